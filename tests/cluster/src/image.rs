//! Images made here: nothing is pulled from anywhere.

use std::path::Path;

use e2e::command::{Run, tool};
use e2e::lab::Lab;

use crate::podman::Podman;

/// Puts an image into a storage that holds one static program, Debian's busybox, under the names of its parts, and nothing else.
///
/// # Panics
/// When it cannot be built.
pub fn busybox(lab: &Lab, storage: &Podman, name: &str) {
    let context = lab.fresh_dir("busybox");
    let program = tool("busybox");
    std::fs::copy(&program, context.join("busybox")).expect("copying busybox");
    let parts = ["sh", "sleep", "cat", "ls", "id", "stat", "touch", "grep", "env", "echo", "true", "dd"];
    let links: String = parts.iter().map(|part| format!("COPY busybox /bin/{part}\n")).collect();
    let file = format!("FROM scratch\n{links}ENV PATH=/bin\nUSER 0\n");
    std::fs::write(context.join("Containerfile"), file).expect("writing a Containerfile");
    build(storage, &context, name);
}

/// Builds an image from a folder with a `Containerfile` into a storage.
///
/// # Panics
/// When it cannot be built.
pub fn build(storage: &Podman, context: &Path, name: &str) {
    let podman = storage.command();
    let options = podman.get_args().take_while(|word| *word != "--cgroup-manager=cgroupfs");
    let run = Run::tool("buildah").args(options).words("bud --isolation chroot --pull=never --quiet --tag").arg(name);
    run.arg(context).limit(120).done().ok();
}
