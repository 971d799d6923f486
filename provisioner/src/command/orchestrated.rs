//! `z-provisioner run --orchestrator`: the arguments of a run that a service has for this process.

use std::path::PathBuf;
use std::time::Duration;

use imgstream::error::{Error, Result};
use imgstream::source::SourceOptions;
use protocol::{BadText, RunId, ServerName};
use provisioner::control::{Named, Options};

/// Its arguments. Each but the first needs the first.
#[derive(clap::Args)]
#[command(next_help_heading = "A run that an orchestrating service has for this process")]
pub(super) struct Orchestrated {
    /// Enrol with this service (https://, or http:// and a loopback address) and do its run, instead of --spec
    #[arg(long, value_name = "URL", requires_all = ["token", "ticket_key", "trust"])]
    orchestrator: Option<String>,
    /// The enrolment token; /dev/stdin will do
    #[arg(long, value_name = "FILE", requires = "orchestrator")]
    token: Option<PathBuf>,
    /// The certificates (PEM) that count for https:// to the service, and no others
    #[arg(long, value_name = "FILE", requires = "orchestrator")]
    orchestrator_ca: Option<PathBuf>,
    /// A key (PEM) with which the service may sign tickets; several may be given
    #[arg(long, value_name = "FILE", requires = "orchestrator")]
    ticket_key: Vec<PathBuf>,
    /// A key (PEM) that may sign images; several may be given, of which the run uses those that it names
    #[arg(long, value_name = "FILE", requires = "orchestrator")]
    trust: Vec<PathBuf>,
    /// Refuse a run for another server than this
    #[arg(long, value_name = "NAME", requires = "orchestrator", value_parser = server)]
    server: Option<ServerName>,
    /// Refuse another run than this
    #[arg(long, value_name = "RUN", requires = "orchestrator", value_parser = run)]
    run: Option<RunId>,
    /// How long enrolling may take
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    enrol_within: u64,
    /// How long the service may take to accept the end of the run
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    report_within: u64,
}

impl Orchestrated {
    /// Which service, and how this process proves who it is.
    ///
    /// # Errors
    /// `Usage` when something is missing.
    pub(super) fn options(&self) -> Result<Options> {
        let (Some(url), Some(token)) = (&self.orchestrator, &self.token) else {
            return Err(Error::usage("--orchestrator needs --token"));
        };
        Ok(Options {
            url: url.clone(),
            ca: self.orchestrator_ca.clone(),
            token: token.clone(),
            ticket_keys: self.ticket_key.clone(),
            run: self.run.clone(),
            server: self.server.clone(),
            enrol_within: Duration::from_secs(self.enrol_within.min(LONGEST)),
            source: SourceOptions::default(),
            named: Named::OPTIONS,
        })
    }

    /// The keys that may sign images; none without a service.
    pub(super) fn anchors(&self) -> Vec<PathBuf> {
        self.trust.clone()
    }

    /// How long the service may take to accept the end.
    pub(super) fn report_within(&self) -> Duration {
        Duration::from_secs(self.report_within.min(LONGEST))
    }
}

/// A year, in seconds: more is no wait but for ever, and too much for a clock.
const LONGEST: u64 = 31_536_000;

fn server(text: &str) -> Result<ServerName, BadText> {
    text.to_owned().try_into()
}

fn run(text: &str) -> Result<RunId, BadText> {
    text.to_owned().try_into()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::run::Args;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn refusal(line: &str) -> Option<String> {
        Command::try_parse_from(line.split(' ')).err().map(|error| error.to_string())
    }

    #[test]
    fn a_run_is_either_a_files_or_a_services() {
        let service =
            "run --orchestrator https://o --token t --orchestrator-ca c --ticket-key k --ticket-key l --trust i";
        for right in ["run --spec s", service, &format!("{service} --server s-1 --run r --report-within 5 --json -v")] {
            assert_eq!(refusal(right), None, "{right}");
        }
        for (wrong, says) in [
            ("run", "--spec <FILE>"),
            (&format!("{service} --spec s")[..], "cannot be used with"),
            ("run --orchestrator https://o --token t --trust i", "--ticket-key <FILE>"),
            ("run --orchestrator https://o --ticket-key k --trust i", "--token <FILE>"),
            ("run --orchestrator https://o --token t --ticket-key k", "--trust <FILE>"),
            ("run --spec s --token t", "--orchestrator <URL>"),
            ("run --spec s --trust t", "--orchestrator <URL>"),
            (&format!("{service} --server a/b"), "is not a server's name"),
            (&format!("{service} --run a/b"), "is not a run id"),
        ] {
            let refusal = refusal(wrong).unwrap_or_default();
            assert!(refusal.contains(says), "{wrong}: {refusal}");
        }
    }
}
