//! The demo: a real disk image, the whole way, every step shown as the command a person could run.

mod kubernetes;
mod orchestrated;
mod spec;
mod steps;

use std::path::PathBuf;
use std::time::Instant;

use crate::demo::steps::Steps;
use crate::fail::{Fail, Outcome, Tried};
use crate::image::{self, Kind};
use crate::loopdev::{Loop, demand_root};
use crate::prerequisites::{Lane, ensure};
use crate::scratch::Scratch;
use crate::server::Server;
use crate::shell::{capture, cargo, release_binary, tool};

const MIB: u64 = 1 << 20;

/// The demo's command line.
#[derive(clap::Args)]
pub struct Options {
    /// A small image, for a first look
    #[arg(long, conflicts_with = "image")]
    quick: bool,
    /// Any raw disk image instead of the Debian one
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    /// Three servers at once, provisioned by the orchestrating service
    #[arg(long)]
    orchestrated: bool,
    /// One server, provisioned by a Job in a Kubernetes cluster of this machine
    #[arg(long, conflicts_with = "orchestrated")]
    kubernetes: bool,
    /// Keep the packed image, the keys, the spec and the written disk
    #[arg(long)]
    keep: bool,
}

/// What is taken through the demo.
struct Subject {
    raw: PathBuf,
    name: &'static str,
    size: u64,
}

/// What every demo begins with: the programs, and an image that is served.
struct Stage {
    steps: Steps,
    scratch: Scratch,
    subject: Subject,
    packed_size: u64,
    /// The builder's public key, and its id.
    trusted: PathBuf,
    key_id: String,
    server: Server,
}

/// Runs the demo; fine only if `cmp`, which is not ours, finds each device and the raw image equal.
pub fn run(options: &Options) -> Outcome<()> {
    demand_root("cargo xtask demo")?;
    let from_cache = options.quick || options.image.is_some();
    ensure(if from_cache { Lane::DemoQuick } else { Lane::Demo })?;
    if options.kubernetes {
        kubernetes::prepare()?;
    }
    let began = Instant::now();
    let mut stage = Stage::set(options)?;
    let how = match options {
        Options { kubernetes: true, .. } => kubernetes::provision(&mut stage)?,
        Options { orchestrated: true, .. } => orchestrated::provision(&mut stage)?,
        _ => provision(&mut stage)?,
    };
    let mib = |bytes: u64| bytes / MIB;
    eprintln!("\nDone in {:.1} s. {}", began.elapsed().as_secs_f64(), stage.subject.raw.display());
    eprintln!("  raw image      {} MiB", mib(stage.subject.size));
    eprintln!("  packed         {} MiB, signed", mib(stage.packed_size));
    eprintln!("  provisioned    {how}");
    eprintln!("  cmp            every one of {} bytes is the same", stage.subject.size);
    if !options.keep {
        eprintln!("The files above are removed now; --keep keeps them, to run the steps by hand.");
    }
    Ok(())
}

impl Stage {
    fn set(options: &Options) -> Outcome<Self> {
        let mut steps = Steps::new();
        steps.start("Build the programs");
        steps.run(cargo().args(["build", "--quiet", "--release", "-p", "imgstream", "-p", "provisioner"]))?;
        if options.orchestrated {
            // In a command of its own: what the service's types need must not come into the agent.
            steps.run(cargo().args(["build", "--quiet", "--release", "-p", "orchestrator"]))?;
        }
        let imgstream = release_binary("imgstream")?;
        let subject = subject(options, &mut steps)?;
        let scratch = Scratch::new("z-provisioner-demo", options.keep)?;
        let (key, packed) = (scratch.path("builder.key"), scratch.path("image"));
        let trusted = scratch.path("builder.key.pub");

        steps.start("Make a signing key, as the image builder");
        let mut keygen = tool(&imgstream);
        steps.show(keygen.arg("keygen").arg(&key));
        let said = crate::shell::output(&mut keygen)?;
        let said = [said.stdout, said.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        steps.say(said.trim());
        let key_id = said.lines().find_map(|line| line.strip_prefix("key id")).map(|id| id.trim().to_owned());
        let key_id = key_id.ok_or_else(|| Fail::new("keygen does not say the key's id"))?;

        steps.start("Pack: compress in chunks, index, sign");
        let mut pack = tool(&imgstream);
        pack.arg("pack").arg(&subject.raw).arg(&packed).args(["--name", subject.name, "--image-version", "1"]);
        steps.run(pack.args(["--arch", "s390x", "--key"]).arg(&key))?;
        let packed_size = crate::image::used(&packed)?;

        steps.start("Inspect what was packed");
        steps.run(tool(&imgstream).arg("inspect").arg(&packed).arg("--trust").arg(&trusted))?;

        steps.start("Serve it over HTTP (in the background)");
        let mut serve = tool(&imgstream);
        serve.arg("serve").arg(&packed).args(["--listen", "127.0.0.1:0"]);
        steps.show(&serve);
        let server = Server::start(&mut serve, &scratch.path("serve.log"))?;
        steps.say(&format!("listening on {}", server.url));
        Ok(Stage { steps, scratch, subject, packed_size, trusted, key_id, server })
    }
}

/// One server, without a service; says how it went.
fn provision(stage: &mut Stage) -> Outcome<String> {
    let Stage { steps, scratch, subject, trusted, server, .. } = stage;
    let agent = release_binary("z-provisioner")?;
    steps.start("Attach a block device: the server's disk");
    let disk = attach(scratch, subject, steps, "disk.img")?;

    steps.start("Provision: stream, verify, write, read back, sum up");
    let file = scratch.path("spec.json");
    let run = spec::Run { name: subject.name, source: &server.url, trust: trusted, device: &disk.device };
    let text = spec::text(&run);
    std::fs::write(&file, &text).tried("write the run spec")?;
    steps.say(&format!("{} holds {}", file.display(), text.trim_end()));
    let began = Instant::now();
    steps.run(tool(&agent).args(["run", "--spec"]).arg(&file))?;
    let took = began.elapsed();

    steps.start("Compare the device with the raw image, by means that are not ours");
    compare(&disk, subject, steps)?;
    Ok(format!("{:.1} s onto {}", took.as_secs_f64(), disk.device))
}

fn subject(options: &Options, steps: &mut Steps) -> Outcome<Subject> {
    let (raw, name) = match &options.image {
        Some(file) => (file.clone(), "demo"),
        None if options.quick => {
            steps.start("Get a small disk image (from the cache, or build it)");
            steps.say("$ cargo xtask image --quick");
            (image::raw(Kind::Quick, false)?, "quick-look")
        }
        None => {
            steps.start("Get a Debian disk image for s390x (from the cache, or build it)");
            steps.say("$ cargo xtask image");
            (image::raw(Kind::Debian, false)?, "debian-13")
        }
    };
    let facts = std::fs::metadata(&raw).tried(format_args!("read the image {}", raw.display()))?;
    if !facts.is_file() || facts.len() == 0 {
        return Err(Fail::usage(format!(
            "{} is not a raw disk image: give a regular file with --image",
            raw.display()
        )));
    }
    Ok(Subject { raw, name, size: facts.len() })
}

fn attach(scratch: &Scratch, subject: &Subject, steps: &Steps, name: &str) -> Outcome<Loop> {
    let backing = scratch.path(name);
    // As large as the image, so that every byte can be compared: on a larger one the GPT's backup moves to the end.
    steps.run(tool("truncate").args(["--size", &subject.size.to_string()]).arg(&backing))?;
    let options = ["--direct-io=on"];
    steps.show(tool("losetup").args(["--find", "--show"]).args(options).arg(&backing));
    let disk = Loop::attach(&backing, &options).map_err(|fail| Fail {
        message: format!("{}; in a container, give it /dev/loop* and CAP_SYS_ADMIN", fail.message),
        ..fail
    })?;
    steps.say(&disk.device);
    Ok(disk)
}

fn compare(disk: &Loop, subject: &Subject, steps: &Steps) -> Outcome<()> {
    // What the kernel remembers of the device is forgotten first: the media is asked, not the memory.
    steps.run(tool("blockdev").arg("--flushbufs").arg(disk))?;
    let mut cmp = tool("cmp");
    cmp.arg("-n").arg(subject.size.to_string());
    cmp.arg(disk).arg(&subject.raw);
    steps.show(&cmp);
    capture(&mut cmp)
        .map_err(|fail| Fail { message: format!("the device does not hold the image: {}", fail.message), ..fail })?;
    steps.say("equal");
    if subject.name == "debian-13" {
        let mut list = tool("sfdisk");
        list.arg("--list").arg(disk);
        steps.show(&list);
        let table = capture(&mut list)?;
        steps.say(table.trim());
    }
    Ok(())
}
