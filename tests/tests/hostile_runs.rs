//! Servers whose content changes midway, addresses where nobody is, and what the other commands make of hostile servers.

use std::path::Path;
use std::sync::Arc;

use e2e::hostile::Part::{self, Data, Envelope, Index, Manifest, SpanIndex};
use e2e::hostile::{Act, Answer, CHUNK, Case, Hostile, Request, Script, Setting, Step, readable};
use e2e::{Run, exit, lab, sample};

/// Another image by the same signer, as large, with other content.
fn another(setting: &Setting) -> std::path::PathBuf {
    let dir = setting.lab.fresh("another");
    let raw = setting.lab.file("raw", &sample::noise(52, setting.raw.len()));
    lab::pack(&raw, &dir, &setting.image.key, "--chunk-size 64KiB --level 1").done().ok();
    dir
}

/// The right answer for a part of another image, whose blob has another name.
fn of_another(dir: &Path, part: Part, request: &Request) -> Answer {
    let layout = e2e::Layout::new(dir);
    let file = match part {
        Index => layout.index_path(),
        Manifest => layout.manifest_path(),
        Envelope => layout.envelope_path(),
        SpanIndex => layout.index_blobs().remove(0),
        Data | Part::Other => layout.data_blobs().remove(0),
    };
    Answer::of_file(Arc::new(std::fs::read(file).unwrap()), request.range.as_ref())
}

#[test]
fn content_that_changes_midway_is_noticed() {
    let setting = Setting::new();
    let other = another(&setting);
    let swapped = |part: Part, after: usize| {
        let other = other.clone();
        move |request: &Request, honest: Answer| match request.part == part && request.nth >= after {
            true => of_another(&other, part, request).into(),
            false => honest.into(),
        }
    };
    let vanishing = |request: &Request, honest: Answer| match request.part == Data && request.nth > 1 {
        true => Answer::new("404 Not Found", "").into(),
        false => honest.into(),
    };
    setting.hold(vec![
        Case::scripted("index.json of another image, the rest of this one", swapped(Index, 0)).untouched().says("404"),
        Case::scripted("another manifest", swapped(Manifest, 0)).untouched().says("digest"),
        Case::scripted("another envelope", swapped(Envelope, 0)).untouched().says("digest"),
        Case::scripted("another index of the span", swapped(SpanIndex, 0)).untouched().says("digest"),
        Case::scripted("other chunks from the start", swapped(Data, 0)).unbootable().says("came corrupted"),
        Case::scripted("other chunks from the second request on", swapped(Data, 1)).unbootable().says("came corrupted"),
        Case::scripted("other chunks from the last request on", swapped(Data, 4)).unbootable().says("came corrupted"),
        Case::scripted("chunks that are taken away", vanishing).unbootable().says("404 Not Found"),
    ]);
}

#[test]
fn an_image_that_replaces_another_is_written_whole_or_not_at_all() {
    let setting = Setting::new();
    let other = another(&setting);
    // All of the other image, from the first request on: signed by a trusted key, so it may be written; as a whole.
    let target = setting.target();
    setting.write(other.to_str().unwrap(), &target).done().ok();
    assert!(target.now() == sample::noise(52, setting.raw.len()));
    // The digest in the run's order decides which one it may be.
    let inspect = Run::imgstream().arg("inspect").arg(&setting.image.dir).arg("--json").done().ok();
    let digest = inspect.json()[0]["digest"].as_str().unwrap().to_owned();
    let server = Hostile::start(&setting.image.dir, replaced_by(other));
    let target = setting.target();
    let write = setting.write(&server.url(), &target).args(["--digest", &digest]);
    write.done().exits(exit::IMAGE).says("the run demands");
    target.is_untouched();
}

/// Everything that `index.json` of another directory leads to.
fn replaced_by(dir: std::path::PathBuf) -> Script {
    Arc::new(move |request, honest| {
        let file = dir.join(request.path.trim_start_matches('/'));
        match request.part {
            Index | Part::Other => {
                Answer::of_file(Arc::new(std::fs::read(file).unwrap()), request.range.as_ref()).into()
            }
            _ => honest.into(),
        }
    })
}

#[test]
fn a_manifest_that_names_an_empty_envelope_is_refused() {
    let setting = Setting::new();
    let dir = setting.lab.copy(&setting.image.dir);
    e2e::Layout::new(&dir).put_envelope(b"");
    let server = Hostile::start(&setting.image.dir, replaced_by(dir));
    let target = setting.target();
    readable(&setting.write(&server.url(), &target).done().exits(exit::IMAGE));
    // No bytes are no request: a range of them cannot be written down.
    assert!(!server.asked().iter().any(|request| request.path.contains("e3b0c44298fc1c14")));
    target.is_untouched();
}

#[test]
fn a_refused_connection_says_what_to_do_and_says_it_once() {
    let setting = Setting::new();
    let target = setting.target();
    let nobody = format!("http://127.0.0.1:{}/", e2e::server::free_port());
    let done = setting.write(&nobody, &target).arg("-v").done().exits(exit::SOURCE);
    let done = done.says("connecting: Connection refused").says("hint: nobody listens there: start the server");
    assert_eq!(done.stderr.matches("Connection refused").count(), 1, "{}", done.stderr);
    target.is_untouched();
    let nowhere = setting.write("http://no-such-host.invalid/", &target).done().exits(exit::SOURCE);
    nowhere.says("no-such-host.invalid").says("looking up its name").says("hint: look at the host's name");
}

/// What is said, about which part, and what is wrong with it.
type Fault = (&'static str, Part, fn(Answer) -> Act);

/// A few of all hostile servers, for the commands other than `write`.
fn representative() -> Vec<Fault> {
    vec![
        ("answers 404", Index, |_| Answer::new("404 \u{9b}31mx", "").into()),
        ("encoded body", Envelope, |honest| honest.header("Content-Encoding", "gzip").into()),
        ("message head is too large", SpanIndex, |honest| honest.header("X", &"x".repeat(1 << 20)).into()),
        ("announces", Data, |honest| honest.header("Content-Length", "3").into()),
        ("no proper HTTP", Data, |_| vec![Step::Send(b"lorem ipsum\r\n\r\n".to_vec()), Step::Close]),
        ("sends the part", Data, |honest| honest.header("Content-Range", "\u{9b}31m").status("206 x").into()),
    ]
}

fn twisting(part: Part, twist: fn(Answer) -> Act) -> Script {
    Arc::new(move |request, honest| if request.part == part { twist(honest) } else { honest.into() })
}

#[test]
fn inspect_verify_and_unpack_refuse_what_write_refuses() {
    let setting = Setting::new();
    for (says, part, twist) in representative() {
        let server = Hostile::start(&setting.image.dir, twisting(part, twist));
        let unpacked = setting.lab.fresh("unpacked");
        let trusting = |run: Run| run.arg("--trust").arg(&setting.image.key.public);
        let commands = [
            ("inspect", Run::imgstream().arg("inspect").arg(server.url())),
            ("inspect", trusting(Run::imgstream().arg("inspect").arg(server.url()))),
            ("verify", trusting(Run::imgstream().arg("verify").arg(server.url()))),
            ("unpack", trusting(Run::imgstream().arg("unpack").arg(server.url()).arg(&unpacked))),
        ];
        for (command, run) in commands {
            // `inspect` reads no further than the envelope; `verify` asks for whole blobs, for which 200 is right.
            if command == "inspect" && matches!(part, SpanIndex | Data) {
                readable(&run.done().ok());
                continue;
            }
            let done = run.done().exits(exit::SOURCE).says(&server.authority()).says(says);
            readable(&done);
        }
        assert!(!unpacked.exists(), "{says}: unpack left something");
    }
}

#[test]
fn the_agent_refuses_what_write_refuses() {
    let setting = Setting::new();
    for (says, part, twist) in representative() {
        let server = Hostile::start(&setting.image.dir, twisting(part, twist));
        let target = setting.target();
        let spec = serde_json::json!({
            "run": "hostile",
            "image": {"name": "sample", "sources": [server.url()], "trust": [setting.image.key.public]},
            "target": {"device": target.path()},
            "options": {"request_size": 4 * CHUNK},
        });
        let spec = setting.lab.file("spec.json", spec.to_string().as_bytes());
        let done = Run::provisioner().args(["run", "--json", "--spec"]).arg(&spec).done().exits(exit::SOURCE);
        readable(&done);
        let last = done.json().pop().expect("a last event");
        let event = &last["event"];
        assert_eq!((&event["kind"], &event["exit_code"]), (&"run-failed".into(), &exit::SOURCE.into()), "{last}");
        let told = format!("{} {}", event["message"], event["hint"]);
        assert!(told.contains(&server.authority()) && told.contains(says), "{told} does not say {says:?}");
        match part {
            Data => target.is_unbootable_and_never_wrong(&setting.raw, CHUNK),
            _ => target.is_untouched(),
        }
    }
}

#[test]
fn the_agent_gets_the_image_from_a_server_that_recovers() {
    let setting = Setting::new();
    let faults = |request: &Request, honest: Answer| match (request.nth, request.part) {
        (0, Index | SpanIndex) => vec![Step::Reset],
        (0, Manifest | Envelope) => Answer::new("503 x", "").header("Retry-After", "0").into(),
        (0, _) => honest.up_to(1000, [Step::Close]),
        _ => honest.into(),
    };
    let server = Hostile::start(&setting.image.dir, Arc::new(faults));
    let target = setting.target();
    let spec = serde_json::json!({
        "run": "recovers",
        "image": {"name": "sample", "sources": [server.url()], "trust": [setting.image.key.public]},
        "target": {"device": target.path()},
    });
    let spec = setting.lab.file("spec.json", spec.to_string().as_bytes());
    readable(&Run::provisioner().args(["run", "--spec"]).arg(&spec).done().ok());
    setting.arrived(&target);
}
