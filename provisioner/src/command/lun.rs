//! `z-provisioner release-reservation`.

use std::process::ExitCode;

use imgstream::error::{Error, Result};
use protocol::{BadText, RunId, Wwid};
use provisioner::report::Screen;
use provisioner::signals;
use provisioner::target::multipath::Map;
use provisioner::target::reservation::{self, ReservedLun, Which};
use provisioner::target::scsi::persistent::Key;
use tokio_util::sync::CancellationToken;

/// Its arguments.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The LUN's WWID, as `multipath -ll` shows it. Without an option below, it is only looked at
    wwid: String,
    /// Remove the registrations of this run, whatever their epoch
    #[arg(long, value_name = "RUN", conflicts_with_all = ["key", "all"])]
    run: Option<String>,
    /// Remove this key, such as 0x7a0102030405000a; may be given several times
    #[arg(long, value_name = "KEY", value_parser = parse_key, conflicts_with = "all")]
    key: Vec<Key>,
    /// Remove every registration. Whoever uses the LUN cannot write to it any more
    #[arg(long)]
    all: bool,
    /// Write the result to stdout, as one JSON object
    #[arg(long)]
    pub(super) json: bool,
}

fn parse_key(text: &str) -> Result<Key, String> {
    let hex = text.strip_prefix("0x").ok_or("a key starts with 0x")?;
    u64::from_str_radix(hex, 16).map(Key).map_err(|error| error.to_string())
}

impl Args {
    fn which(&self) -> Result<Which> {
        Ok(match (&self.run, &self.key[..], self.all) {
            (Some(run), ..) => Which::Run(RunId::try_from(run.clone()).map_err(wrong)?),
            (None, [], false) => Which::None,
            (None, [], true) => Which::All,
            (None, keys, _) => Which::Keys(keys.to_vec()),
        })
    }
}

fn wrong(text: BadText) -> Error {
    Error::usage(text.to_string())
}

/// Looks at a LUN's registrations and removes those that were named.
pub(super) fn release_reservation(args: &Args, screen: &Screen) -> Result<ExitCode> {
    let wwid = Wwid::try_from(args.wwid.clone()).map_err(wrong)?;
    let which = args.which()?;
    let map = Map::find(&wwid).ok_or_else(|| {
        Error::target(format!("there is no multipath map of {wwid}")).with_hint("multipath -ll lists those there are")
    })?;
    let released = super::runtime()?.block_on(async {
        // Half of it would leave a key of ours: a signal is heard, and what was begun is finished.
        let tell = screen.clone();
        let told = move |_| tell.lines("this is finished first; a second signal ends at once");
        signals::listen(&CancellationToken::new(), told, || ())?;
        reservation::release(&ReservedLun::behind(&map), &which).await
    })?;
    if args.json {
        println!("{}", released.to_json());
    }
    screen.lines(&released.to_string());
    Ok(ExitCode::SUCCESS)
}
