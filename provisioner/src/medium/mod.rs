//! The boot medium, seen from inside: what it is configured to do, and what its agent leaves for its first process. How it is built is
//! the crate `iso`'s business.

pub(crate) mod check;
pub mod config;
pub mod embed;
pub mod ended;
pub mod ipsec;
mod load;
pub mod net;
mod parameters;
mod whole;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub use config::Config;
pub use load::load;
pub use whole::Task;

/// A time as it is written for people and in configurations: RFC 3339, in whole seconds.
pub(crate) fn written(time: OffsetDateTime) -> String {
    let time = time.replace_nanosecond(0).unwrap_or(time);
    time.format(&Rfc3339).unwrap_or_else(|_| time.to_string())
}

/// The folder of the running medium that holds the configuration.
pub const FOLDER: &str = "/etc/z-provisioner";

/// The configuration's file in it.
const FILE: &str = "config.json";

/// The file that says what the files of a configuration are: a SHA-256 and a name in each line.
const DIGESTS: &str = "digests";
