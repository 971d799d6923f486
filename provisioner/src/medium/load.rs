//! Reading a configuration: whole, as it was made, and in itself consistent.

use std::path::Path;

use imgstream::digest::Digest;
use imgstream::error::{Error, IoContext, Kind, Result};
use serde_json::Value;
use zeroize::Zeroizing;

use super::{Config, DIGESTS, FILE, parameters};
use crate::file;

/// Largest file of a configuration, in bytes.
const MAX_FILE: usize = 1 << 20;

const REMEDY: &str =
    "make it with `z-provisioner config FILE --medium MEDIUM`, which checks it; docs/operating.md explains every key";

/// Reads the configuration of a folder and applies the kernel's parameters to it.
///
/// # Errors
/// [`Kind::Usage`]: there is none, it is damaged, a key is unknown, missing or out of its bounds.
pub fn load(folder: &Path, command_line: &str) -> Result<Config> {
    if !folder.join(FILE).exists() {
        return Err(Error::usage("this medium has no configuration").with_hint(REMEDY));
    }
    compare_digests(folder)?;
    let text = read(&folder.join(FILE))?;
    let config = parse(&text)?;
    let wrong = |why: String| Error::usage(why).with_hint(REMEDY);
    let set = parameters::of(command_line).map_err(wrong)?;
    if set.is_empty() {
        return Ok(config);
    }
    let mut value: Value = serde_json::from_slice(&text).map_err(|error| wrong(error.to_string()))?;
    set.into_iter().try_for_each(|(way, value_of)| parameters::set(&mut value, &way, value_of)).map_err(wrong)?;
    parse(value.to_string().as_bytes())
        .map_err(|error| Error::usage(format!("with the kernel's parameters: {error}")).with_hint(REMEDY))
}

/// Reads and checks it, wherever its files are.
///
/// # Errors
/// [`Kind::Usage`].
pub(super) fn parse(text: &[u8]) -> Result<Config> {
    let wrong = |why: String| Error::usage(format!("the configuration: {why}")).with_hint(REMEDY);
    let config: Config = serde_json::from_slice(text).map_err(|error| wrong(error.to_string()))?;
    config.check().map_err(wrong)?;
    Ok(config)
}

/// A medium is read from CDs and over networks whose errors nobody notices: what was put in must have come out.
fn compare_digests(folder: &Path) -> Result<()> {
    let damaged = |what: &str| {
        Error::usage(format!("the configuration is damaged: {what}"))
            .with_hint("put it into the medium again with `z-provisioner config`, upload that, and IPL again")
    };
    let list = read(&folder.join(DIGESTS)).map_err(|_| damaged("its list of digests is missing"))?;
    let list = std::str::from_utf8(&list).map_err(|_| damaged("its list of digests is no text"))?;
    for line in list.lines() {
        let (wanted, name) = line.split_once("  ").ok_or_else(|| damaged("its list of digests makes no sense"))?;
        let bytes = read(&folder.join(name)).map_err(|_| damaged(&format!("{name} is missing")))?;
        if Digest::of(&bytes).hex() != wanted {
            return Err(damaged(&format!("{name} is not what was put in")));
        }
    }
    if list.lines().any(|line| line.ends_with(&format!("  {FILE}"))) {
        Ok(())
    } else {
        Err(damaged("it vouches for nothing"))
    }
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>> {
    let bytes = file::read(path, MAX_FILE).context(Kind::Usage, || format!("reading {}", path.display()))?;
    bytes.ok_or_else(|| Error::usage(format!("{} has more than {MAX_FILE} bytes", path.display())))
}
