//! What goes into a decision, and what comes out of it.

use protocol::control::problem::Problem;
use protocol::control::run::What;
use protocol::event::{Event, Progress};
use protocol::{Digest, ServerName};

use super::super::record::{Ending, Record};
use super::super::{BackOff, Sealed};

/// What decisions depend on besides the run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rules {
    /// Before a run is tried again.
    pub back_off: BackOff,
    /// 0 to 1, drawn anew for each decision.
    pub dice: f64,
}

/// What can happen to a run.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// Its turn has come. `token`: the digest of its enrolment token, where the service launches it; else that of a person's.
    Start {
        /// The digest.
        token: Option<Digest>,
    },
    /// Its launcher has started something, which waits to be let go.
    Launched {
        /// The attempt.
        attempt: u32,
        /// What the launcher knows it by.
        handle: String,
    },
    /// Nothing of an attempt runs that could enrol.
    NotLaunched {
        /// The attempt.
        attempt: u32,
        /// Why.
        reason: String,
        /// Whether trying again may help.
        retryable: bool,
        /// Whether it counts among the attempts that a run has. One that the service itself has spoilt does not.
        counts: bool,
    },
    /// A person is given an enrolment token.
    Token {
        /// Its digest.
        digest: Digest,
    },
    /// An agent enrols.
    Enrol {
        /// Digest of its token.
        token: Digest,
        /// Digest of its nonce.
        nonce: Digest,
        /// Digest of its client key.
        client_key: Digest,
        /// Program and version.
        agent: String,
        /// The server it believes to be on.
        server: Option<ServerName>,
    },
    /// An agent reports.
    Report {
        /// The attempt.
        attempt: u32,
        /// What happened.
        events: Vec<Event>,
    },
    /// The lease is over.
    Expired {
        /// The attempt.
        attempt: u32,
    },
    /// Its launcher says what an attempt waits for that has not enrolled, or that is being ended.
    Said {
        /// The attempt.
        attempt: u32,
        /// What.
        words: String,
    },
    /// Its launcher vouches that nothing of an attempt runs any more.
    Died {
        /// The attempt.
        attempt: u32,
        /// How, in words.
        how: String,
        /// Whether trying again may help.
        retryable: bool,
    },
    /// A person vouches for that.
    ConfirmDeath {
        /// The attempt.
        attempt: u32,
    },
    /// A person shuts an attempt out at once.
    Revoke {
        /// The attempt.
        attempt: u32,
        /// Who, and why.
        reason: String,
    },
    /// It is to end.
    Cancel {
        /// Why.
        reason: String,
        /// What it is then.
        ending: Ending,
    },
    /// A person wants it to be tried again.
    Retry {
        /// A new key, for a run whose own was destroyed. Nothing is done with it where it was not.
        key: Option<Sealed>,
    },
    /// The agent of an attempt asks for the key of the disk.
    ReleaseKey {
        /// The attempt.
        attempt: u32,
    },
    /// The owner of the disk asks to be shown its key.
    ShowKey {
        /// Who asks.
        by: String,
    },
    /// The key of the disk was sealed anew. It is the same key.
    Reseal {
        /// As it was sealed.
        from: Sealed,
        /// As it is sealed now.
        to: Sealed,
    },
    /// The key of the disk is to be forgotten.
    DestroyKey {
        /// Who wants that.
        by: String,
        /// Why.
        reason: Option<String>,
    },
    /// Whoever has kept a key elsewhere has destroyed it.
    KeyErased {
        /// The key.
        sealed: Sealed,
    },
}

/// What must be done once a decision is stored. All of it can be told from the record as well, after a restart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Launch the current attempt.
    Launch,
    /// Let go what was launched: it may enrol now.
    Release {
        /// The attempt.
        attempt: u32,
    },
    /// Make sure that nothing of an attempt runs any more, and say so.
    End {
        /// The attempt.
        attempt: u32,
        /// What its launcher knows it by; without, whatever it has started by now.
        handle: Option<String>,
    },
    /// An attempt is over by its agent's own word: what its launcher keeps of it need not be kept.
    Settle {
        /// What its launcher knows it by.
        handle: String,
    },
    /// Destroy a key that the run has forgotten where it is kept. Until that is done it is one of [`Record::remains`].
    DestroyKey {
        /// The key.
        sealed: Sealed,
    },
}

/// What is answered to whoever brought the input.
#[derive(Debug, Clone, PartialEq)]
pub enum Answer {
    /// It is done.
    Done,
    /// The attempt that has enrolled, or the one that a token is for.
    Attempt(u32),
    /// The key that may be opened now, for whoever asked.
    Sealed(Sealed),
    /// The lowest index that was not reported, and the latest progress.
    Reported {
        /// The index.
        next: u64,
        /// The progress.
        progress: Option<Box<Progress>>,
    },
}

/// Why an input is refused.
pub type Refusal = Box<Problem>;

/// What comes of an input.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The new record. Its version is raised where anything has to be stored.
    pub record: Record,
    /// What is told, in order.
    pub told: Vec<What>,
    /// What must be done then.
    pub effects: Vec<Effect>,
    /// What is answered.
    pub answer: Answer,
}
