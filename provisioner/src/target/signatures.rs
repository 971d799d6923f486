//! What a target holds already, by name: partition tables, file systems, containers. `wipefs` knows them all.
//!
//! A target on which anything is found may be the wrong one, so it is written only where that was allowed.

use std::fmt;
use std::path::Path;

use imgstream::error::{Error, Kind, Result};
use serde_json::Value;

use crate::tool::Tool;

/// Something found on a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// What it is, in the words of libblkid: `gpt`, `ext4`, `crypto_LUKS`, `LVM2_member`.
    pub kind: String,
    /// Its label, where it has one.
    pub label: Option<String>,
    /// Its UUID, where it has one.
    pub uuid: Option<String>,
    /// Where it lies, in bytes.
    pub offset: String,
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        if let Some(label) = &self.label {
            write!(f, " {label:?}")?;
        }
        write!(f, " at {}", self.offset)
    }
}

/// What lies on a device or file. Nothing is written.
///
/// # Errors
/// `Target` when `wipefs` cannot look.
pub async fn on(device: &Path) -> Result<Vec<Signature>> {
    let said = Tool::new("wipefs").args(["--no-act", "--json"]).arg(device).run().await?;
    parse(&said).ok_or_else(|| Error::target(format!("wipefs does not say in JSON what is on {}", device.display())))
}

/// Makes a device forget what lies on it. The device is the caller's alone.
///
/// # Errors
/// `Device` when it cannot be written.
pub async fn wipe(device: &Path) -> Result<()> {
    // --force: it is open exclusively already, by us.
    Tool::new("wipefs").kind(Kind::Device).args(["--all", "--force", "--quiet"]).arg(device).run().await.map(drop)
}

/// That something is there which nobody has allowed to be destroyed.
pub fn refusal(name: &str, found: &[Signature]) -> Error {
    Error::target(format!("{name} is not empty: it holds {}", listed(found))).with_hint(
        "is it the right one? Then `target.wipe: true` lets it be overwritten; `options.resume: true` goes on with what an earlier attempt began",
    )
}

/// A list for a message.
pub fn listed(found: &[Signature]) -> String {
    found.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Nothing at all is printed where nothing was found.
fn parse(said: &str) -> Option<Vec<Signature>> {
    if said.trim().is_empty() {
        return Some(Vec::new());
    }
    let said: Value = serde_json::from_str(said).ok()?;
    let signature = |one: &Value| {
        let text = |name: &str| one[name].as_str().map(str::to_owned);
        let label = text("label").filter(|label| !label.is_empty());
        Some(Signature { kind: text("type")?, label, uuid: text("uuid"), offset: text("offset")? })
    };
    said["signatures"].as_array()?.iter().map(signature).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wipefs_says_is_understood() {
        let said = r#"{"signatures": [
            {"device":"dm-0", "offset":"0x200", "type":"gpt", "uuid":null, "label":null},
            {"device":"dm-0", "offset":"0x438", "type":"ext4", "uuid":"x", "label":"data"}]}"#;
        let found = parse(said).unwrap();
        assert_eq!(listed(&found), r#"gpt at 0x200, ext4 "data" at 0x438"#);
        assert_eq!((found[0].uuid.as_deref(), found[1].uuid.as_deref()), (None, Some("x")));
        assert!(refusal("LUN 3600", &found).to_string().contains("LUN 3600 is not empty: it holds gpt"));
        assert_eq!(parse(""), Some(Vec::new()));
        assert_eq!((parse("{}"), parse("no JSON")), (None, None));
    }

    #[tokio::test]
    async fn a_file_system_is_found_by_name_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("disk");
        std::fs::File::create(&file).unwrap().set_len(8 << 20).unwrap();
        assert_eq!(on(&file).await.unwrap(), []);
        Tool::new("mke2fs").args(["-q", "-t", "ext4", "-L", "payroll"]).arg(&file).run().await.unwrap();
        let found = on(&file).await.unwrap();
        assert_eq!((found[0].kind.as_str(), found[0].label.as_deref()), ("ext4", Some("payroll")));
        wipe(&file).await.unwrap();
        assert_eq!(on(&file).await.unwrap(), []);
    }
}
