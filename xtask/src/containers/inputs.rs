//! What identifies a build besides its files: the time and the commit that it is said to be of. Never those of this moment.

use crate::fail::{Fail, Outcome};
use crate::image::EPOCH;
use crate::shell::{capture, tool, workspace};

/// What an image says of its origin.
pub struct Inputs {
    /// Seconds since 1970: `SOURCE_DATE_EPOCH`, or the last commit's, or a fixed time where no git is.
    pub epoch: String,
    /// The same for people.
    pub created: String,
    /// The commit, if the working tree is one and nothing in it was changed.
    pub revision: Option<String>,
}

impl Inputs {
    /// Asks the environment and git.
    pub fn find() -> Outcome<Self> {
        let committed = git(&["log", "-1", "--format=%ct"]);
        let said = std::env::var("SOURCE_DATE_EPOCH").ok();
        let epoch = said.or(committed).unwrap_or_else(|| EPOCH.into());
        if epoch.is_empty() || !epoch.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(Fail::usage(format!("SOURCE_DATE_EPOCH is {epoch:?}: it must be seconds since 1970")));
        }
        let created = capture(tool("date").args(["--utc", "--date", &format!("@{epoch}"), "+%Y-%m-%dT%H:%M:%SZ"]))?;
        let clean = git(&["status", "--porcelain"]).is_some_and(|changes| changes.is_empty());
        let revision = if clean { git(&["rev-parse", "HEAD"]) } else { None };
        Ok(Self { epoch, created: created.trim().to_owned(), revision })
    }
}

/// What git says; nothing where it is no repository.
fn git(words: &[&str]) -> Option<String> {
    let said = capture(tool("git").arg("-C").arg(workspace()).args(words)).ok()?;
    Some(said.trim().to_owned())
}
