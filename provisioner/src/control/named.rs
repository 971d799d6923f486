//! What this process was given is called differently where it comes from: errors call it as whoever reads them has written it.

/// How each is called, and what to do about it.
#[derive(Debug, Clone, Copy)]
pub struct Named {
    /// The service's URL.
    pub service: &'static str,
    /// The authorities that count for it.
    pub ca: &'static str,
    /// The enrolment token.
    pub token: &'static str,
    /// The keys that may sign tickets.
    pub ticket_keys: &'static str,
    /// The run.
    pub run: &'static str,
    /// The server.
    pub server: &'static str,
    /// How long enrolling may take.
    pub enrol_within: &'static str,
    /// What to do when somebody has enrolled with the token before.
    pub used: &'static str,
}

impl Named {
    /// As options of `z-provisioner run`.
    pub const OPTIONS: Named = Named {
        service: "--orchestrator",
        ca: "--orchestrator-ca",
        token: "--token",
        ticket_keys: "--ticket-key",
        run: "--run",
        server: "--server",
        enrol_within: "--enrol-within",
        used: "find the other process that uses this token",
    };
    /// As keys of the configuration of a machine that boots the medium.
    pub const KEYS: Named = Named {
        service: "`orchestrator.url`",
        ca: "`trust.orchestrator_ca`",
        token: "`orchestrator.token`",
        ticket_keys: "`trust.tickets`",
        run: "`orchestrator.run`",
        server: "`server`",
        enrol_within: "`orchestrator.enrol_within`",
        used: "this medium was IPLed before, or somebody else has its token: see at the service what became of that attempt",
    };
}
