//! What the kernel's IPsec is told to do: policies, security associations, and what becomes of packets that no policy matches; dumped
//! over netlink (`NETLINK_XFRM`). The kernel does not say which policy a flow would take: [`super::flow`] finds that out.

mod fields;
mod netlink;
pub mod policy;
pub mod state;
#[cfg(test)]
mod tests;

use std::io;

use imgstream::error::{Error, Kind, Result, Retry};

use self::netlink::{Failed, Xfrm};
use self::policy::{Policies, Policy, Unmatched};
use self::state::State;

const XFRM_MSG_GETSA: u16 = 0x12;
const XFRM_MSG_GETPOLICY: u16 = 0x15;
const XFRM_MSG_GETDEFAULT: u16 = 0x28;

/// Most policies, and most security associations, that are looked at.
const MOST: usize = 65_536;
/// How often the kernel is asked again when something was changed while it was telling.
const TRIES: usize = 5;

/// The policies and security associations of this network namespace (SPD and SAD in RFC 4301), as they were at about one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Databases {
    /// The policies.
    pub policies: Policies,
    /// The security associations.
    pub associations: Vec<State>,
}

/// Asks the kernel for all of it.
///
/// # Errors
/// [`Kind::Source`], as what hangs on it is the way from a source: this process may not ask, the kernel has no IPsec, or its answer is
/// not understood.
pub fn dump() -> Result<Databases> {
    for _ in 0..TRIES {
        match try_dump() {
            Ok(found) => return Ok(found),
            Err(Failed::Changed) => {}
            Err(Failed::Refused(error)) => return Err(refused(error)),
            Err(Failed::Malformed) => {
                return Err(Error::new(
                    Kind::Source,
                    "what the kernel says about its IPsec policies is not understood",
                )
                .with_hint("compare with `ip xfrm policy` and `ip xfrm state`; this is a defect of the agent"));
            }
        }
    }
    Err(Error::source_failed(format!("the kernel's IPsec policies were changed {TRIES} times while they were read"))
        .with_hint("find out who changes them without end: `ip xfrm monitor`"))
}

fn try_dump() -> Result<Databases, Failed> {
    let mut kernel = Xfrm::open()?;
    let mut found = Databases::default();
    kernel.dump(XFRM_MSG_GETPOLICY, |message| keep(&mut found.policies.list, Policy::read(message)?))?;
    kernel.dump(XFRM_MSG_GETSA, |message| keep(&mut found.associations, State::read(message)?))?;
    found.policies.unmatched = match kernel.ask(XFRM_MSG_GETDEFAULT, &[0; 4], Unmatched::read) {
        // Before Linux 5.15 packets that no policy matches always passed.
        Err(Failed::Refused(error)) if error.raw_os_error() == Some(libc::EINVAL) => Unmatched::default(),
        answer => answer?,
    };
    Ok(found)
}

fn keep<T>(list: &mut Vec<T>, found: Option<T>) -> Option<()> {
    list.extend(found);
    (list.len() <= MOST).then_some(())
}

fn refused(error: io::Error) -> Error {
    let hint = match error.raw_os_error() {
        Some(libc::EPERM) => {
            "the agent needs CAP_NET_ADMIN in its network namespace to see whether IPsec protects it: give it that, or write \
             `ipsec: platform` where the platform protects it from outside"
        }
        Some(libc::EPROTONOSUPPORT) => {
            "this kernel has no IPsec, or its module xfrm_user is not loaded: load it, or write `ipsec: platform` where the \
             platform protects the agent from outside"
        }
        _ => "compare with `ip xfrm policy`",
    };
    Error::new(Kind::Source, format!("asking the kernel for its IPsec policies: {error}"))
        .with_source(error)
        .with_retry(Retry::Permanent)
        .with_hint(hint)
}
