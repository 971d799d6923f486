//! Which images may be installed: for each image whose signatures count, how many are needed, and which version is too old. A file that
//! whoever may order runs cannot write; without it, each order says so itself.
//!
//! The rule completes and bounds the order when the run is created, and what results is stored, signed into tickets and carried out. A
//! policy that is changed later changes nothing about runs that there are.

mod rules;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use protocol::control::NewRun;
use protocol::control::problem::{Code, Problem};

use crate::identity::{bounded, tokens::sha256};
use crate::model::PolicyPin;
use rules::Rules;

/// The data folder's own.
pub const POLICY: &str = "policy.json";
/// What is added to its name to say that it was there.
const SEEN: &str = ".seen";
/// Largest file that is read, in bytes.
const MAX_POLICY: usize = 1 << 20;

/// The policy, as its file is now.
#[derive(Debug)]
pub struct Policy {
    path: PathBuf,
    /// Whether there must be a file. Once one was there it must stay, also over a restart: a policy does not end because a file is lost.
    demanded: bool,
    /// That one was there.
    mark: PathBuf,
    read: Mutex<Option<Read>>,
}

/// What was read last.
#[derive(Debug)]
struct Read {
    bytes: Vec<u8>,
    rules: Result<Arc<Rules>, String>,
}

impl Policy {
    /// The policy in this file. `demanded`: no run is created without it.
    pub fn new(path: PathBuf, demanded: bool) -> Self {
        let mut mark = path.clone().into_os_string();
        mark.push(SEEN);
        let mark = PathBuf::from(mark);
        Policy { demanded: demanded || mark.exists(), path, mark, read: Mutex::default() }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The rules as they stand in the file; none where there is no policy.
    ///
    /// # Errors
    /// Why the file cannot be used.
    pub fn look(&self) -> Result<Option<Arc<Rules>>, String> {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        // It is small, and asked for when a run is created: to read it costs less than to be wrong about whether it has changed.
        let bytes = match File::open(&self.path).and_then(|file| bounded(file, MAX_POLICY)) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => return Err(format!("it has more than {MAX_POLICY} bytes")),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && !self.demanded && read.is_none() => {
                return Ok(None);
            }
            Err(error) => return Err(error.to_string()),
        };
        let known = read.as_ref().filter(|read| read.bytes == **bytes).map(|read| read.rules.clone());
        let rules = known.unwrap_or_else(|| {
            let rules = Rules::parse(&bytes).map(Arc::new);
            match &rules {
                Ok(rules) => tracing::info!(images = rules.len(), "the policy for images is {}", self.path.display()),
                Err(why) => tracing::error!("the policy for images {}: {why}", self.path.display()),
            }
            if read.is_none() && !self.demanded {
                self.remember();
            }
            *read = Some(Read { bytes: bytes.to_vec(), rules: rules.clone() });
            rules
        });
        rules.map(Some)
    }

    /// Leaves a mark beside the file. Where that cannot be done it is remembered as long as this process lives.
    fn remember(&self) {
        let text = "a policy was here, and is demanded; whoever wants none removes this file as well\n";
        if let Err(error) = std::fs::write(&self.mark, text) {
            tracing::warn!(%error, "{} cannot be written: a policy that is lost is not missed after a restart", self.mark.display());
        }
    }

    /// Completes an order by what the policy says, and the rule that it then obeys.
    ///
    /// # Errors
    /// `policy` where the policy does not allow it or cannot be read; `bad-request` where there is none and the order does not say whom to
    /// trust.
    pub fn apply(&self, order: NewRun) -> Result<(NewRun, Option<PolicyPin>), Problem> {
        let rules = self.look().map_err(|why| {
            Problem::new(Code::Policy, format!("the policy for images cannot be used: {}: {why}", self.path.display()))
                .with_hint("no run is created before it is mended: it says whose images may be installed")
        })?;
        let Some(rules) = rules else {
            order.check_whole().map_err(|error| {
                Problem::new(Code::BadRequest, format!("the run: {error}")).with_hint(
                    "name the ids of the keys that may sign the image; this service has no policy that says them",
                )
            })?;
            return Ok((order, None));
        };
        let refuse = |why: String| {
            Problem::new(Code::Policy, format!("image {}: {why}", crate::text::printable(&order.image.name)))
                .with_hint(format!("whoever runs the service says in {} what is allowed", self.path.display()))
        };
        let (name, rule) =
            rules.find(&order.image.name).ok_or_else(|| refuse("the policy has no rule for it".into()))?;
        let image = rule.bound(&order.image).map_err(refuse)?;
        let rule = rule.text(name);
        let pin = PolicyPin { digest: sha256(rule.as_bytes()), rule };
        let whole = NewRun { image, ..order.clone() };
        whole.check_whole().map_err(|error| refuse(format!("with what the policy says of it, {error}")))?;
        Ok((whole, Some(pin)))
    }
}

#[cfg(test)]
mod tests;
