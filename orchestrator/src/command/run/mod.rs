//! `z-orchestrator run …`: what people and scripts ask a service.

mod act;
mod create;
mod keys;
mod list;
mod show;
mod streams;
mod told;
mod watch;
mod words;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use protocol::{BadText, RunId, Token};

use super::screen::Screen;
use super::{logging, no_core_dumps, signals};
use crate::client::{Client, DEFAULT_URL, Proof};
use crate::config::default_data;
use crate::error::{Context, Error, Result};
use crate::identity::{CA, OPERATOR_TOKEN, bounded};

/// Where the service is, when `--url` does not say it.
const URL: &str = "Z_ORCHESTRATOR_URL";
/// What is logged, by how often `-v` is said.
const LOGGED: [&str; 2] = ["error", "warn,orchestrator=debug"];
const MAX_CA: usize = 1 << 20;
const MAX_TOKEN: usize = 4096;

/// Its arguments.
#[derive(clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    service: Service,
    #[command(subcommand)]
    command: Command,
}

/// Which service, and how it is known.
#[derive(clap::Args)]
#[command(next_help_heading = "The service")]
struct Service {
    /// Where the service is. Default: $Z_ORCHESTRATOR_URL, else https://127.0.0.1:7443
    #[arg(long, global = true, value_name = "URL")]
    url: Option<String>,
    /// The certificates (PEM) by which it is known. Default: ca.pem in its data folder
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// The operator's token, or a viewer's. Default: operator.token in its data folder
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "certificate")]
    operator_token: Option<PathBuf>,
    /// A client certificate (PEM), instead of a token
    #[arg(long, global = true, value_name = "FILE", requires = "certificate_key")]
    certificate: Option<PathBuf>,
    /// The key of that certificate (PEM)
    #[arg(long, global = true, value_name = "FILE", requires = "certificate")]
    certificate_key: Option<PathBuf>,
    /// The service's data folder, where those two are looked for. Default: that of a service that this user has started
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Say more: causes of errors (-vv: everything)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Subcommand)]
enum Command {
    /// Creates a run and prints its name
    Create(create::Args),
    /// Lists runs, the latest first
    List(list::Args),
    /// Shows everything about a run: what it waits for, what can be done, what became of it
    Show(show::Args),
    /// Shows what happens, as it happens, until the named runs are over; of all runs where none is named
    Watch(watch::Args),
    /// Calls runs off
    Cancel(act::CancelArgs),
    /// Queues runs again that have failed or were cancelled
    Retry(act::RetryArgs),
    /// Vouches that the silent agent of a lost run is powered off or cut off from the storage
    ConfirmDeath(act::ConfirmDeathArgs),
    /// Revokes an attempt: its token, its session and its certificate count no more, and it is taken for lost
    Revoke(act::RevokeArgs),
    /// Makes an enrolment token for a machine that boots the medium. Those before it are void
    Token(act::TokenArgs),
    /// Prints the key that unlocks a run's disk, alone on stdout. It is shown once
    Key(keys::KeyArgs),
    /// Makes the service forget the key of a run's disk
    DestroyKey(keys::DestroyArgs),
}

impl Args {
    pub(super) fn verbose(&self) -> u8 {
        self.service.verbose
    }
}

/// Asks the service.
pub(super) fn run(args: &Args, screen: &Screen) -> Result<ExitCode> {
    no_core_dumps()?;
    logging::start(screen, &LOGGED, args.service.verbose, false);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.doing(|| "starting the runtime".into())?;
    let done = runtime.block_on(carry_out(args, screen));
    // A name server that does not answer, or a question that nobody answers, must not keep the command from ending.
    runtime.shutdown_background();
    done
}

async fn carry_out(args: &Args, screen: &Screen) -> Result<ExitCode> {
    let service = &args.service;
    let asking = async {
        match &args.command {
            Command::Create(args) => create::create(args, service, screen).await,
            Command::List(args) => list::list(args, &service.client()?, screen).await,
            Command::Show(args) => show::show(args, &service.client()?).await,
            Command::Watch(args) => watch::watch(args, &service.client()?, screen).await,
            Command::Cancel(args) => act::cancel(args, &service.client()?, screen).await,
            Command::Retry(args) => act::retry(args, &service.client()?, screen).await,
            Command::ConfirmDeath(args) => act::confirm_death(args, &service.client()?, screen).await,
            Command::Revoke(args) => act::revoke(args, &service.client()?, screen).await,
            Command::Token(args) => act::token(args, &service.client()?, screen).await,
            Command::Key(args) => keys::show(args, &service.client()?).await,
            Command::DestroyKey(args) => keys::destroy(args, &service.client()?, screen).await,
        }
    };
    let what = match &args.command {
        Command::Watch(_) => "watching; the runs go on",
        _ => "asking the service",
    };
    signals::unless_interrupted(what, asking).await
}

impl Service {
    fn client(&self) -> Result<Client> {
        let url = self.url.clone().or_else(|| std::env::var(URL).ok().filter(|url| !url.is_empty()));
        let file = |given: &Option<PathBuf>, name: &str| -> Result<PathBuf> {
            match given {
                Some(file) => Ok(file.clone()),
                None => Ok(self.data.clone().map_or_else(default_data, Ok)?.join(name)),
            }
        };
        let ca = file(&self.ca, CA)?;
        let pem = read(&ca, MAX_CA, "--ca FILE names the certificates by which the service is known: its ca.pem")?;
        let proof = match (&self.certificate, &self.certificate_key) {
            (Some(certificate), Some(key)) => of_certificate(certificate, key)?,
            _ => of_token(&file(&self.operator_token, OPERATOR_TOKEN)?)?,
        };
        Client::new(url.as_deref().unwrap_or(DEFAULT_URL), &pem, proof).map_err(|error| match error.hint() {
            None => Error::usage(format!("{}: {error}", ca.display())),
            Some(_) => error,
        })
    }
}

fn of_token(path: &Path) -> Result<Proof> {
    let line = read(path, MAX_TOKEN, "--operator-token FILE names the operator's token")?;
    let text = std::str::from_utf8(&line).unwrap_or_default().trim().to_owned();
    let token = Token::try_from(text);
    let token = token.map_err(|error| Error::usage(format!("the token in {}: {error}", path.display())))?;
    Ok(token.into())
}

fn of_certificate(certificate: &Path, key: &Path) -> Result<Proof> {
    let pem = read(certificate, MAX_CA, "--certificate FILE names a client certificate")?;
    let secret = read(key, MAX_CA, "--certificate-key FILE names the key of --certificate")?;
    Proof::certificate(&pem, &secret).map_err(|error| {
        Error::usage(format!("{} and {}: {error}", certificate.display(), key.display()))
            .with_hint("give the two files that z-orchestrator certificate has written, PREFIX.pem and PREFIX.key")
    })
}

/// A whole file that the command line names, of at most `most` bytes.
fn read(path: &Path, most: usize, hint: &str) -> Result<zeroize::Zeroizing<Vec<u8>>> {
    let bad = |why: String| Error::usage(format!("reading {}: {why}", path.display())).with_hint(hint);
    let bytes = File::open(path).and_then(|file| bounded(file, most)).map_err(|error| bad(error.to_string()))?;
    bytes.ok_or_else(|| bad(format!("it has more than {most} bytes")))
}

/// The name of a run, as clap reads it.
fn run_id(text: &str) -> Result<RunId, BadText> {
    text.to_owned().try_into()
}
