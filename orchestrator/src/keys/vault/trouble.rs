//! Why the server has not done it, and whether it may do it later.

use crate::engine::KeeperError;
use crate::error::Error;

/// Why it has not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It is not there, sealed, or overloaded.
    Away(String),
    /// There is no token yet: whoever writes it there has not got one.
    NoToken {
        /// What is missing.
        what: String,
        /// What to do.
        hint: String,
    },
    /// There is no token that could be shown.
    Token {
        /// What is wrong with it.
        what: String,
        /// What to do.
        hint: String,
    },
    /// The token may not do that.
    Denied(String),
    /// Its certificate is none that is believed.
    Stranger(String),
    /// It is not what it must be.
    Wrong(String),
    /// The same, with what to do.
    Other {
        /// What is wrong.
        what: String,
        /// What to do.
        hint: String,
    },
}

impl Trouble {
    /// With what was being done.
    pub(super) fn while_doing(self, doing: &str) -> Self {
        let with = |what: String| format!("{doing}: {what}");
        match self {
            Trouble::Away(what) => Trouble::Away(with(what)),
            Trouble::NoToken { what, hint } => Trouble::NoToken { what: with(what), hint },
            Trouble::Token { what, hint } => Trouble::Token { what: with(what), hint },
            Trouble::Denied(what) => Trouble::Denied(with(what)),
            Trouble::Stranger(what) => Trouble::Stranger(with(what)),
            Trouble::Wrong(what) => Trouble::Wrong(with(what)),
            Trouble::Other { what, hint } => Trouble::Other { what: with(what), hint },
        }
    }

    /// Whether nothing is wrong but that it does not answer; so that its own agent, which waits for it as well, has no token for us.
    pub(super) fn is_away(&self) -> bool {
        matches!(self, Trouble::Away(_) | Trouble::NoToken { .. })
    }

    fn parts(self, policy: &str) -> (String, String) {
        match self {
            Trouble::Away(what) => {
                (what, "see that it runs, is unsealed, and is reached at `keys.vault.address`; then this goes on by itself".into())
            }
            Trouble::NoToken { what, hint } | Trouble::Token { what, hint } | Trouble::Other { what, hint } => (what, hint),
            Trouble::Denied(what) => {
                (what, format!("the token in `keys.vault.token_file` must be valid, and its policy must have: {policy}"))
            }
            Trouble::Stranger(what) => (
                what,
                "give the certificate of its authority with `keys.vault.ca`, and reach it by a name in its own certificate; where both are right, this is another server".into(),
            ),
            Trouble::Wrong(what) => (what, "see what answers at `keys.vault.address`: it must be a Vault or an OpenBao, the active one".into()),
        }
    }

    /// For the keeper. Tokens are renewed, and policies mended, while the service runs.
    pub(super) fn keeper_error(self, policy: &str) -> KeeperError {
        let may_pass = self.is_away() || matches!(self, Trouble::Token { .. } | Trouble::Denied(_));
        let (what, hint) = self.parts(policy);
        KeeperError { what, hint, may_pass }
    }

    /// For a start that is refused.
    pub(super) fn error(self, policy: &str) -> Error {
        let (what, hint) = self.parts(policy);
        Error::refused(what).with_hint(hint)
    }
}
