//! The ticket: what an attempt may do, signed by the orchestrator (DSSE, payload type `application/vnd.z-provisioner.ticket.v1+json`).
//!
//! The spec's digest covers all of the spec: its sources, its target, its IPsec, what may be wiped. The nonce is of the very process
//! that enrolled. So a ticket is of no use to anybody else, and not for anything else.

use serde::{Deserialize, Serialize};

use crate::text::{Digest, RunId, ServerName, Token, Wwid};

/// The version of tickets.
pub const VERSION: u32 = 1;

/// A ticket. JSON; unknown keys are errors: what an agent does not understand might narrow what it may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ticket {
    /// [`VERSION`].
    pub version: u32,
    /// The run.
    pub run: RunId,
    /// The fencing epoch: the attempt.
    pub epoch: u32,
    /// The server.
    pub server: ServerName,
    /// SHA-256 of the run spec's bytes.
    pub spec: Digest,
    /// The image's digest, where the run is pinned to one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Digest>,
    /// The LUNs that may be written.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wwids: Vec<Wwid>,
    /// Seconds since 1970 from which on it is good.
    pub not_before: u64,
    /// Seconds since 1970 until which it is good.
    pub expires: u64,
    /// The agent's own nonce.
    pub nonce: Token,
    /// SHA-256 of the agent's client key (SPKI in DER): no other process can use the session. An agent takes no ticket without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_key: Option<Digest>,
}
