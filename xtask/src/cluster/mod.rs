//! A Kubernetes control plane for tests, made once and kept in the cache: `bin/{etcd,kube-apiserver,kube-controller-manager,kubectl}`.
//!
//! Debian has etcd and kubectl in binary, and of the API server and the controllers the source: they are built from that by its
//! compiler, and nothing of it is installed. What a cluster is and does is the crate `cluster`, in `tests/cluster`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::build;
use crate::cache;
use crate::containers;
use crate::fail::{Fail, Outcome, Tried};
use crate::packages::{self, CLUSTER, GO};
use crate::prerequisites::{Lane, ensure};
use crate::shell::{capture, cargo, release_binary, tool};

/// How the programs are built.
const BUILD: &str = include_str!("build.sh");

/// What the programs say they are.
const VERSION: &str = "v1.20.2";

/// Where Debian's archive has the source. Its patches are for kubectl alone, and left out.
const SOURCE: &str = "pool/main/k/kubernetes/kubernetes_1.20.5+really1.20.2.orig.tar.gz";

/// What the archive's signed index says that it is.
const SHA256: &str = "b83c0780efb182d928dc63d46488a847f161f04e40a94b96bf5247dd671ecdfc";

/// What Debian has in binary.
const TOOLS: [&str; 2] = ["etcd", "kubectl"];

/// Change this whenever the steps below change what is made.
const STEPS: u32 = 1;

/// Makes it, or finds it, and prints its folder.
pub fn run() -> Outcome<()> {
    println!("{}", provide()?.display());
    Ok(())
}

/// The tests, not yet started: `soak` takes those that are long as well, `filter` is libtest's.
pub fn tests(soak: bool, filter: &[String]) -> Outcome<Command> {
    ensure(Lane::Kubernetes)?;
    let mut test = cargo();
    // Named, since they do not run unless they are: `cargo test` knows no cluster.
    test.args(["test", "--no-fail-fast", "-p", "cluster", "--test", "*", "--"]);
    if soak {
        test.arg("--include-ignored").env("Z_SOAK", "1");
    }
    test.args(filter);
    test.env("CLUSTER_ROOT", provide()?);
    build::programs()?;
    test.env("IMGSTREAM_BIN", release_binary("imgstream")?).env("Z_PROVISIONER_BIN", release_binary("z-provisioner")?);
    test.env("Z_ORCHESTRATOR_BIN", build::service()?);
    test.env("CLUSTER_IMAGES", containers::for_tests()?);
    Ok(test)
}

/// Its folder, from the cache, or made now, which takes minutes.
pub fn provide() -> Outcome<PathBuf> {
    demand_processor()?;
    ensure(Lane::Cluster)?;
    let tools = packages::ensure(&CLUSTER, |_| Ok(()))?.join("root");
    let go = packages::section(&GO)?;
    let recipe = format!("{}\n{go}{SOURCE} {SHA256} {VERSION}\nsteps {STEPS}\n{BUILD}", tools.display());
    cache::entry("cluster", &recipe, false, |half| make(half, &tools))
}

/// Says so where there can be none, before anything else is done.
pub fn demand_processor() -> Outcome<()> {
    if std::env::consts::ARCH == "x86_64" {
        return Ok(());
    }
    Err(Fail::usage("a Kubernetes control plane for tests is set up on x86_64 only"))
}

fn make(half: &Path, tools: &Path) -> Outcome<()> {
    let (work, bin) = (half.join("work"), half.join("bin"));
    for folder in [&work, &bin] {
        std::fs::create_dir(folder).tried(format_args!("create {}", folder.display()))?;
    }
    // Half a gigabyte that nothing needs any more afterwards.
    let go = packages::unpack(&GO, &work.join("go"))?;
    let source = packages::source("kubernetes", SOURCE, SHA256, &work.join("source"))?;
    eprintln!("building kube-apiserver and kube-controller-manager {VERSION} (once; this takes minutes)");
    let began = Instant::now();
    let mut build = tool("sh");
    build.args(["-c", BUILD, "build.sh"]).env("SOURCE", &source).env("WORK", &work).env("OUT", &bin);
    build.env("GOROOT", go.join("usr/lib/go-1.19")).env("VERSION", VERSION);
    build.env("REFLECT2", go.join("usr/share/gocode/src/github.com/modern-go/reflect2"));
    capture(&mut build)?;
    eprintln!("built in {} s", began.elapsed().as_secs());
    for name in TOOLS {
        wrap(&bin.join(name), tools, name)?;
        capture(tool(bin.join(name)).arg(if name == "etcd" { "--version" } else { "options" }))?;
    }
    std::fs::remove_dir_all(&work).tried(format_args!("remove {}", work.display()))
}

/// A program of the root, started by the root's loader: its libraries are not this machine's.
fn wrap(file: &Path, root: &Path, name: &str) -> Outcome<()> {
    let root = root.display();
    let text = format!(
        "#!/bin/sh\nexec '{root}/usr/lib64/ld-linux-x86-64.so.2' --library-path '{root}/usr/lib/x86_64-linux-gnu' \
         '{root}/usr/bin/{name}' \"$@\"\n"
    );
    std::fs::write(file, text).tried(format_args!("write {}", file.display()))?;
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(file, executable).tried(format_args!("make {} executable", file.display()))
}
