//! The run spec the demo hands to the agent: the one place that knows its shape.

use std::path::Path;

use serde_json::json;

/// What differs from run to run.
pub struct Run<'a> {
    /// The image's name, which the agent demands of the descriptor.
    pub name: &'a str,
    /// Where the image is served.
    pub source: &'a str,
    /// The public key the agent trusts.
    pub trust: &'a Path,
    /// The block device to write.
    pub device: &'a str,
}

/// The spec as a file's text.
pub fn text(run: &Run) -> String {
    let spec = json!({
        "run": "demo",
        "image": {
            "name": run.name,
            "architecture": "s390x",
            "sources": [run.source],
            "trust": [run.trust],
            "threshold": 1,
        },
        "target": { "device": run.device },
    });
    format!("{spec:#}\n")
}
