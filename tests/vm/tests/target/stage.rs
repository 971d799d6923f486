//! What every test of the target needs: an image on a server of this machine, a LUN, an agent's spec, and its events.

use std::path::PathBuf;

use e2e::server::Server;
use e2e::{Image, Lab, sample};
use serde_json::{Value, json};
use vm::multipath::Multipath;
use vm::{Builder, Disk, Done, Guest, Link, MIB, Process, Run};

/// The configuration that comes with the agent.
pub const MULTIPATH_CONF: &str = include_str!("../../../../provisioner/multipath.conf");

/// Bytes of the header of a container that holds a whole image.
pub const WHOLE_HEADER: u64 = 16 * MIB;

/// An image, and who serves it.
pub struct Stage {
    pub raw: PathBuf,
    pub size: u64,
    image: Image,
    server: Server,
    slow: Server,
    _lab: Lab,
}

impl Stage {
    /// The sample disk: a GPT, an ext4 with files, noise.
    pub fn new() -> Self {
        Self::of(sample::disk(512), "--chunk-size 512KiB")
    }

    /// Another raw image, packed with other options.
    pub fn of(raw: PathBuf, options: &str) -> Self {
        Self::packed(Lab::new(), raw, options)
    }

    /// The same, with the raw image in a lab that lives as long as this.
    pub fn packed(lab: Lab, raw: PathBuf, options: &str) -> Self {
        let size = std::fs::metadata(&raw).unwrap().len();
        let image = lab.pack(&raw, options);
        let server = Server::nginx(&lab, &image.dir, None);
        // Slow enough to do something meanwhile: half a minute for the sample disk on two connections.
        let slow = Server::nginx(&lab, &image.dir, Some("200k"));
        Stage { raw, size, image, server, slow, _lab: lab }
    }

    /// A LUN with two paths, of which `more` bytes are not the image's.
    pub fn lun(&self, more: u64) -> Disk {
        Disk::new(self.size + more).paths(2)
    }

    /// A guest that can fetch the image.
    pub fn guests(&self) -> Builder {
        Guest::builder().network().file("/etc/image.pub", 0o644, self.public_key())
    }

    /// A guest with this LUN.
    pub fn guest(&self, lun: &Disk) -> Guest {
        self.guests().disk(lun).boot()
    }

    pub fn public_key(&self) -> Vec<u8> {
        std::fs::read(&self.image.key.public).unwrap()
    }

    /// A spec of run `r`: this image onto the LUN, which may know no reservations.
    pub fn spec(&self, wwid: &str) -> Value {
        json!({
            "run": "r",
            "image": {
                "name": "sample",
                "sources": [format!("http://10.0.2.2:{}/", self.server.port())],
                "trust": ["/etc/image.pub"],
            },
            "target": { "lun": { "wwid": wwid, "wait": 30 }, "reservation": "prefer" },
            "options": { "connections": 2, "request_size": MIB },
            "ipsec": "not-required",
        })
    }

    /// The same with a source that takes half a minute.
    pub fn slow_spec(&self, wwid: &str) -> Value {
        let source = format!("http://10.0.2.2:{}/", self.slow.port());
        with(&self.spec(wwid), "/image/sources", json!([source]))
    }
}

/// What most tests of containers begin with: a LUN with room for the image and a header, a guest with two live paths to it and a key,
/// and the spec that puts the image into one container.
pub struct Whole {
    pub stage: Stage,
    pub lun: Disk,
    pub guest: Guest,
    pub key: String,
    pub spec: Value,
}

impl Whole {
    pub fn new() -> Self {
        Self::with_spec(Stage::spec)
    }

    /// With a source that takes half a minute.
    pub fn slow() -> Self {
        Self::with_spec(Stage::slow_spec)
    }

    fn with_spec(spec: fn(&Stage, &str) -> Value) -> Self {
        let stage = Stage::new();
        let lun = stage.lun(WHOLE_HEADER);
        let guest = stage.guest(&lun);
        multipath(&guest, &lun);
        let key = make_key(&guest);
        let spec = with(&spec(&stage, &lun.wwid()), "/target/layout", json!("whole"));
        Whole { stage, lun, guest, key, spec }
    }
}

/// Names in iSCSI, and the addresses of the storage on its two cables.
pub const IQN: &str = "iqn.2026-01.example:lun";
pub const SERVER: &str = "iqn.2026-01.example:server";
pub const PORTALS: [&str; 2] = ["10.9.0.1", "10.9.1.1"];

/// A machine that has LUNs, one that can fetch images, and two cables between them.
pub fn storage_and_server(stage: &Stage) -> (Guest, Guest, [Link; 2]) {
    let links = [Link::new(), Link::new()];
    let ends = |guests: vm::Builder, end: u8| {
        let at = |net: u8| format!("10.9.{net}.{}/24", end + 1);
        guests.link(&links[0], end, &at(0)).link(&links[1], end, &at(1))
    };
    let storage = ends(Guest::builder(), 0).named("storage").boot();
    let server = ends(stage.guests(), 1).named("server").boot();
    (storage, server, links)
}

/// udevd and multipathd, configured as the agent wants them, with both paths of the LUN live.
pub fn multipath<'g>(guest: &'g Guest, lun: &Disk) -> Multipath<'g> {
    let multipath = guest.start_multipath_with(MULTIPATH_CONF);
    multipath.map(&lun.wwid(), 2);
    multipath
}

/// Sets one value of a spec.
pub fn with(spec: &Value, pointer: &str, value: Value) -> Value {
    let mut spec = spec.clone();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    spec.pointer_mut(parent).unwrap()[key] = value;
    spec
}

/// The agent, with this spec.
pub fn agent(guest: &Guest, spec: &Value) -> Run {
    agent_with(guest, spec, &[])
}

/// The agent, with this spec and the key of the guest.
pub fn agent_with_key(guest: &Guest, spec: &Value) -> Run {
    agent_with(guest, spec, &["--luks-key", "/run/luks-key"])
}

fn agent_with(guest: &Guest, spec: &Value, more: &[&str]) -> Run {
    guest.put("/run/spec.json", 0o600, spec.to_string());
    let arguments = ["z-provisioner", "run", "--json", "--spec", "/run/spec.json"];
    guest.program(arguments.into_iter().chain(more.iter().copied())).limit(300)
}

/// Makes the guest's key, and returns its text.
pub fn make_key(guest: &Guest) -> String {
    guest.sh("rm -f /run/luks-key && z-provisioner keygen /run/luks-key");
    guest.sh("cat /run/luks-key")
}

/// The events' bodies.
pub fn events(said: &str) -> Vec<Value> {
    said.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .map(|mut event| event["event"].take())
        .collect()
}

/// The last event of a run that reached its goal.
#[track_caller]
pub fn finished(done: Done) -> Value {
    let last = events(&done.ok().stdout).pop().expect("a last event");
    assert_eq!(last["kind"], "run-finished", "{last}");
    last
}

/// The last event of a run that did not, which ended with this code and says these words.
#[track_caller]
pub fn failed(done: Done, code: i32, words: &[&str]) -> Value {
    let last = events(&done.exits(code).stdout).pop().expect("a last event");
    assert_eq!((&last["kind"], &last["exit_code"]), (&json!("run-failed"), &json!(code)), "{last}");
    let said = format!("{} {}", last["message"].as_str().unwrap(), last["hint"].as_str().unwrap_or_default());
    for word in words {
        assert!(said.contains(word), "{word:?} is not in {said:?}");
    }
    last
}

/// A spec of the next attempt, which goes on with what is there.
pub fn next_attempt(spec: &Value) -> Value {
    let epoch = spec.get("epoch").and_then(Value::as_u64).unwrap_or(1);
    let mut spec = with(spec, "/options/resume", json!(true));
    spec["epoch"] = json!(epoch + 1);
    spec
}

/// Waits until the agent is writing.
#[track_caller]
pub fn until_writing(running: &Process) {
    running.until("writing", |out, _| out.contains(r#""step":"write""#));
}

/// Demands that nothing of a run is left: no mapping of ours, nobody who holds the map, no key in its place.
#[track_caller]
pub fn nothing_is_left(guest: &Guest, wwid: &str) {
    let mappings = guest.sh("dmsetup ls --target linear; dmsetup ls --target crypt");
    assert!(!mappings.contains("zprov"), "{mappings}");
    // multipathd looks at paths that come back, and whoever reads a map has it open for a moment; an agent that has ended would for good.
    let nobody = format!("test \"$(dmsetup info -c --noheadings -o open {wwid})\" -eq 0");
    guest.until("nobody who has the map open", 10, &nobody);
}

/// The SHA-256 of the first `len` bytes of a device of the guest.
pub fn digest_of(guest: &Guest, device: &str, len: u64) -> String {
    let line = format!("head -c {len} {device} | sha256sum | cut -d' ' -f1");
    guest.run(&line).limit(120).text().trim().to_owned()
}

/// The SHA-256 of a file of this machine.
pub fn digest_of_file(path: &std::path::Path) -> String {
    e2e::Run::tool("sha256sum").arg(path).text().split(' ').next().unwrap().to_owned()
}
