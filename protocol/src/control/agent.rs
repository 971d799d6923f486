//! An agent's side: it enrols once per attempt, gets its orders, reports, and renews its lease.

use serde::{Deserialize, Serialize};

use crate::event::Event;
use crate::text::{ClientKey, RunId, ServerName, Token};

/// Largest body of a report, in bytes.
pub const MAX_REPORT: usize = 1 << 20;
/// Most events of one report.
pub const MAX_EVENTS: usize = 256;
/// Largest body of anything else an agent sends, in bytes.
pub const MAX_BODY: usize = 16 << 10;
/// Longest text that an agent says of itself, in bytes.
pub const MAX_TEXT: usize = 256;

/// The first thing an agent says, with its enrolment token in the header `Authorization: Bearer`. The same process may say it again
/// when it got no answer: it is known by its nonce. Another one is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Enrol {
    /// The run that the token is for, where the agent knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// 32 random bytes of this process, which the ticket echoes.
    pub nonce: Token,
    /// The public half of a key that this process has made: the service issues a certificate over it, and binds the ticket to it.
    pub client_key: ClientKey,
    /// Program and version, at most 256 bytes.
    #[cfg_attr(feature = "schema", schema(max_length = 256))]
    pub agent: String,
    /// The server that it runs on, where it has been told. It must be the run's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerName>,
}

/// What an agent needs for its attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Enrolled {
    /// The run.
    pub run: RunId,
    /// The attempt, which is also its fencing epoch.
    pub attempt: u32,
    /// What the agent authenticates with from now on, besides its certificate.
    pub session: Token,
    /// How long it may write.
    pub lease: Terms,
    /// The run spec: exactly these bytes have the digest that the ticket names.
    pub spec: String,
    /// The ticket: a DSSE envelope, as text.
    pub ticket: String,
    /// The certificate over `client_key` (PEM), which the agent shows from now on. Another one comes with a lease that is renewed, before
    /// this one has ended.
    pub certificate: String,
}

/// How long an agent may write without hearing from the service. It counts from before it asked, on a clock that never jumps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Terms {
    /// Seconds that the lease lasts.
    pub seconds: u64,
    /// Seconds after which it should be renewed.
    pub renew_after: u64,
}

/// What happened since the last report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// In the order of their index.
    #[cfg_attr(feature = "schema", schema(max_items = 256))]
    pub events: Vec<Event>,
}

/// What the service wants of an agent: in the answer to each report and each renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Orders {
    /// The lowest index that was not reported yet.
    pub next: u64,
    /// Whether the run shall be cancelled.
    #[serde(default)]
    pub cancel: bool,
    /// Milliseconds between two reports of nothing but progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress_every: Option<u64>,
}

/// A lease that was renewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Lease {
    /// How long it lasts.
    pub lease: Terms,
    /// What the service wants.
    pub orders: Orders,
    /// Another certificate over the same key (PEM), which the agent shows from now on: the one that it has shown has less than half of its
    /// time left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
}
