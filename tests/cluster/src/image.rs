//! Images made here: nothing is pulled from anywhere.

use std::path::Path;

use e2e::command::{Run, tool};
use e2e::lab::Lab;

use crate::podman::Podman;

/// Puts an image into a storage that holds Debian's busybox, under the names of its parts, the libraries it may need, and nothing else.
///
/// # Panics
/// When it cannot be built.
pub fn busybox(lab: &Lab, storage: &Podman, name: &str) {
    let context = lab.fresh_dir("busybox");
    let program = tool("busybox");
    std::fs::copy(&program, context.join("busybox")).expect("copying busybox");
    let parts = ["sh", "sleep", "cat", "ls", "id", "stat", "touch", "grep", "env", "echo", "true", "dd"];
    let mut lines: String = parts.iter().map(|part| format!("COPY busybox /bin/{part}\n")).collect();
    // Of the two packages that have it, one is static, and says nothing of libraries here.
    let needed = Run::tool("ldd").arg(&program).done().stdout;
    for library in needed.split_whitespace().filter(|word| word.starts_with('/')) {
        let file = Path::new(library).file_name().expect("a library's name").to_string_lossy().into_owned();
        std::fs::copy(library, context.join(&file)).expect("copying a library");
        lines += &format!("COPY {file} {library}\n");
    }
    let file = format!("FROM scratch\n{lines}ENV PATH=/bin\n");
    std::fs::write(context.join("Containerfile"), file).expect("writing a Containerfile");
    build(storage, &context, name);
}

/// Builds an image from a folder with a `Containerfile` into a storage.
///
/// # Panics
/// When it cannot be built.
pub fn build(storage: &Podman, context: &Path, name: &str) {
    let run = Run::tool("buildah").args(storage.options());
    let run = run.words("bud --isolation chroot --pull=never --quiet --tag").arg(name);
    run.arg(context).limit(120).done().ok();
}
