//! `run create`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use protocol::ServerName;
use protocol::control::NewRun;
use protocol::control::run::{LauncherKind, MAX_NEW_RUN};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::Value;

use super::{Service, read, show, watch};
use crate::client::PATIENCE;
use crate::command::on_stdout;
use crate::command::screen::Screen;
use crate::error::{Context, Error, Result};
use crate::identity::bounded;

/// Its arguments.
#[derive(clap::Args)]
pub(super) struct Args {
    /// What is wanted (JSON); `-` reads it from stdin
    file: PathBuf,
    /// The server
    #[arg(long, value_parser = |text: &str| ServerName::try_from(text.to_owned()))]
    server: Option<ServerName>,
    /// -100 to 100; the higher goes first
    #[arg(long, allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Seconds from now until which it must have ended, or it fails
    #[arg(long, value_name = "SECONDS")]
    deadline: Option<u64>,
    /// How often it is tried, 1 to 100
    #[arg(long, value_name = "COUNT")]
    max_attempts: Option<u32>,
    /// Who starts the agent: the service (process), or a machine that boots the medium (external)
    #[arg(long, value_parser = launcher)]
    launcher: Option<LauncherKind>,
    /// The same run is made once, however often it is asked for with the same key. Default: a new one
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Watch it until it is over, and end as it has ended
    #[arg(long)]
    watch: bool,
    /// Write the run to stdout as one JSON object; with --watch also what happens to it
    #[arg(long)]
    json: bool,
}

fn launcher(text: &str) -> Result<LauncherKind, String> {
    let all = LauncherKind::ALL;
    let names = || format!("give one of {}", all.map(LauncherKind::name).join(", "));
    all.into_iter().find(|kind| kind.name() == text).ok_or_else(names)
}

/// Creates a run.
pub(super) async fn create(args: &Args, service: &Service, screen: &Screen) -> Result<ExitCode> {
    let new = args.order(&args.read()?)?;
    let client = service.client()?;
    let key = args.key.clone().map_or_else(random_key, Ok)?;
    let unsettled = Unsettled { key: &key, screen, is_settled: false };
    let tell = |error: &Error, wait: std::time::Duration| {
        screen.lines(&format!("{error}; asking again in {:.1} s", wait.as_secs_f64()));
    };
    let created = client.create_surely(&new, &key, PATIENCE, tell).await;
    let (run, is_new) = unsettled.settled(created)?;
    // Where we made the key ourselves, an answer was lost, and that is told already.
    if !is_new && args.key.is_some() {
        screen.lines(&format!("run {} was created with this key before", run.run));
    }
    let line = if args.json { show::json(&run)? } else { run.run.to_string() };
    on_stdout(format!("{line}\n").as_bytes())?;
    if args.watch { watch::until_over(&client, vec![run.run], args.json, screen).await } else { Ok(ExitCode::SUCCESS) }
}

/// Says how to ask again, where it is not known whether the run was made: also when somebody interrupts.
struct Unsettled<'a> {
    key: &'a str,
    screen: &'a Screen,
    is_settled: bool,
}

impl Unsettled<'_> {
    fn settled<T>(mut self, outcome: Result<T>) -> Result<T> {
        // What was refused, and what was never asked, has made no run.
        self.is_settled = outcome.as_ref().err().is_none_or(|error| error.retry().is_none());
        outcome
    }
}

impl Drop for Unsettled<'_> {
    fn drop(&mut self) {
        if !self.is_settled {
            let again = format!("whether the run was created is not known: ask again with --key {}", self.key);
            self.screen.lines(&again);
        }
    }
}

impl Args {
    fn read(&self) -> Result<Vec<u8>> {
        if self.file != Path::new("-") {
            let hint = "give a file with what is wanted, as docs/operating.md shows it";
            return Ok(read(&self.file, MAX_NEW_RUN, hint)?.to_vec());
        }
        let bytes = bounded(std::io::stdin().lock(), MAX_NEW_RUN).doing(|| "reading stdin".into())?;
        let bytes = bytes.ok_or_else(|| Error::usage(format!("stdin has more than {MAX_NEW_RUN} bytes")))?;
        Ok(bytes.to_vec())
    }

    /// What is wanted, with what the command line says instead.
    fn order(&self, bytes: &[u8]) -> Result<NewRun> {
        let bad = |error: &dyn std::fmt::Display| Error::usage(format!("{}: {error}", self.file.display()));
        let with_server = self.server.as_ref().and_then(|server| with_server(bytes, server));
        let mut new = NewRun::parse(with_server.as_deref().unwrap_or(bytes)).map_err(|error| bad(&error))?;
        new.server = self.server.clone().unwrap_or(new.server);
        new.priority = self.priority.unwrap_or(new.priority);
        new.deadline = self.deadline.or(new.deadline);
        new.max_attempts = self.max_attempts.unwrap_or(new.max_attempts);
        new.launcher = self.launcher.unwrap_or(new.launcher);
        new.check().map_err(|error| Error::usage(format!("the command line: {error}")))?;
        Ok(new)
    }
}

/// The same object with this server, where it names none. The text is kept otherwise, so that keys that are unknown or doubled are still
/// found; a server's name needs no escapes.
fn with_server(bytes: &[u8], server: &ServerName) -> Option<Vec<u8>> {
    let object: Value = serde_json::from_slice(bytes).ok()?;
    let fields = object.as_object().filter(|fields| !fields.contains_key("server"))?;
    let comma = if fields.is_empty() { "" } else { "," };
    let brace = bytes.iter().position(|byte| *byte == b'{')?;
    let (before, after) = bytes.split_at(brace + 1);
    Some([before, format!("\"server\":\"{server}\"{comma}").as_bytes(), after].concat())
}

/// A key that nobody has used: a UUID of random bits.
fn random_key() -> Result<String> {
    let mut bytes = [0; 16];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::system("the system's random number generator failed"))?;
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok([&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        args: Args,
    }

    const ORDER: &str = r#" {"image":{"name":"debian-13","sources":["http://a/"],
        "trust":["aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"]},"target":{"device":"/dev/vdb"}}"#;

    fn order(words: &[&str], text: &str) -> Result<NewRun> {
        Program::parse_from(["create", "file.json"].iter().chain(words)).args.order(text.as_bytes())
    }

    #[test]
    fn the_command_line_says_it_instead_of_the_file() {
        let with_server = ORDER.replacen('{', r#"{"server":"of-the-file","priority":1,"#, 1);
        let kept = order(&[], &with_server).unwrap();
        assert_eq!((kept.server.as_str(), kept.priority, kept.max_attempts), ("of-the-file", 1, 3));
        let words = [
            "--server",
            "lpar-7",
            "--priority",
            "-5",
            "--deadline",
            "60",
            "--max-attempts",
            "1",
            "--launcher",
            "external",
        ];
        for text in [ORDER, &with_server] {
            let new = order(&words, text).unwrap();
            assert_eq!((new.server.as_str(), new.priority, new.deadline), ("lpar-7", -5, Some(60)));
            assert_eq!((new.max_attempts, new.launcher), (1, LauncherKind::External));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anybody_is_asked() {
        assert!(order(&[], ORDER).unwrap_err().to_string().contains("missing field `server`"));
        let server = ["--server", "lpar-7"];
        let doubled = ORDER.replacen('{', r#"{"priority":1,"priority":2,"#, 1);
        assert!(order(&server, &doubled).unwrap_err().to_string().contains("duplicate field `priority`"));
        let unknown = ORDER.replacen('{', r#"{"serwer":"x","#, 1);
        assert!(order(&server, &unknown).unwrap_err().to_string().contains("unknown field `serwer`"));
        assert!(order(&server, "{}").unwrap_err().to_string().contains("missing field `image`"));
        assert!(order(&["--server", "a", "--priority", "101"], ORDER).unwrap_err().to_string().contains("`priority`"));
        for nonsense in ["", "[]", "{", "\"server\""] {
            order(&server, nonsense).unwrap_err();
        }
    }

    #[test]
    fn keys_are_uuids_and_differ() {
        let (one, other) = (random_key().unwrap(), random_key().unwrap());
        assert!(one.len() == 36 && one.as_bytes()[14] == b'4' && one != other, "{one}");
    }
}
