//! The examples in the documentation, to be run.

use std::path::Path;

use crate::command::{Run, binary};
use crate::lab::{Lab, demand};

/// The fenced `sh` block of a document of this repository that holds `mark`.
///
/// # Panics
/// When there is none.
pub fn example(document: &str, mark: &str) -> String {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository");
    let text = std::fs::read_to_string(repository.join(document)).expect("reading a document");
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap_or(rest));
    blocks.into_iter().find(|block| block.contains(mark)).expect("an example").to_owned()
}

/// Runs a script in an empty folder with `imgstream` on the PATH; returns all it said.
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn run(script: &str) -> String {
    demand(&["bash", "openssl", "zstd", "mke2fs", "cmp", "sha256sum", "base64"]);
    let lab = Lab::new();
    let folder = lab.fresh_dir("empty");
    let imgstream = binary("imgstream", "IMGSTREAM_BIN");
    let dir = imgstream.parent().expect("its directory");
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap_or_default());
    let whole = format!("set -m\nexec 2>&1\n{script}");
    Run::tool("bash").args(["-c", &whole]).env("PATH", path).within(&folder).limit(120).text()
}
