//! buildah, with a storage of its own, so that nothing of this machine's is touched: staged folders become images, images an index.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::containers::Arch;
use crate::containers::inputs::Inputs;
use crate::fail::{Fail, Outcome, Tried};
use crate::shell::{capture, tool, workspace};

/// What the annotations of OCI begin with.
const ANNOTATION: &str = "org.opencontainers.image";

/// A storage of images in the making.
pub struct Buildah<'a> {
    folder: PathBuf,
    inputs: &'a Inputs,
}

impl<'a> Buildah<'a> {
    /// In a folder.
    pub fn new(folder: &Path, inputs: &'a Inputs) -> Outcome<Self> {
        std::fs::create_dir_all(folder.join("tmp")).tried(format_args!("create {}", folder.display()))?;
        Ok(Self { folder: folder.to_owned(), inputs })
    }

    /// Builds what `containers/NAME.Containerfile` says from a staged folder, and adds it to the index of that name.
    pub fn build(&self, name: &str, arch: Arch, context: &Path) -> Outcome<()> {
        let mut build = self.command();
        build.args(["build", "--quiet", "--isolation", "chroot", "--format", "oci", "--manifest", name]);
        // Nothing of this machine, this moment or this version of buildah.
        build.args(["--identity-label=false", "--timestamp", &self.inputs.epoch]);
        build.args(["--platform", &format!("linux/{}", arch.name())]);
        let said = [
            ("version", Some(env!("CARGO_PKG_VERSION"))),
            ("created", Some(self.inputs.created.as_str())),
            ("revision", self.inputs.revision.as_deref()),
        ];
        for (key, value) in said {
            if let Some(value) = value {
                let pair = format!("{ANNOTATION}.{key}={value}");
                build.args(["--label", &pair, "--annotation", &pair]);
            }
        }
        build.args(["--annotation", &format!("{ANNOTATION}.title={name}")]);
        build.args(["--annotation", &format!("{ANNOTATION}.licenses=Apache-2.0")]);
        build.arg("--file").arg(workspace().join(format!("containers/{name}.Containerfile"))).arg(context);
        capture(&mut build).map(drop)
    }

    /// Writes the index of that name, and all that is in it, as an OCI layout, which takes the place of one that is there.
    pub fn push(&self, name: &str, layout: &Path) -> Outcome<()> {
        if layout.join("oci-layout").exists() {
            std::fs::remove_dir_all(layout).tried(format_args!("remove the former {}", layout.display()))?;
        } else if layout.exists() {
            return Err(Fail::usage(format!("{} is there and is no OCI layout: remove it", layout.display())));
        }
        let to = format!("oci:{}:{}", layout.display(), env!("CARGO_PKG_VERSION"));
        let mut push = self.command();
        push.args(["manifest", "push", "--quiet", "--all", "--format", "oci", name, &to]);
        capture(&mut push).map(drop)
    }

    fn command(&self) -> Command {
        let mut buildah = tool("buildah");
        buildah.arg("--root").arg(self.folder.join("storage")).arg("--runroot").arg(self.folder.join("run"));
        buildah.args(["--storage-driver", "vfs"]).env("TMPDIR", self.folder.join("tmp"));
        buildah
    }
}
