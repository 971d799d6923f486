//! Well-kept tools, driven: `cryptsetup`, `dmsetup`, `multipathd`, `mpathpersist`, `wipefs`, `ip`.
//!
//! Every call has a time limit, an environment of its own and a process group of its own, so that a Ctrl-C at the terminal
//! reaches the agent and not the tool it waits for. A secret goes in through a pipe, never as an argument. What a tool says
//! when it fails stands in the error.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::process::Stdio;
use std::time::Duration;

use imgstream::error::{Error, Kind, Result, Retry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::luks::Key;

/// Where tools are looked for, whatever `PATH` an agent was started with.
pub(crate) const PATH: &str = "/usr/sbin:/usr/bin:/sbin:/bin:/usr/local/sbin:/usr/local/bin";
/// How long a tool may take unless told otherwise.
const LIMIT: Duration = Duration::from_secs(60);
/// Bytes of what a tool says that are read.
const MAX_SAID: u64 = 1 << 20;

/// A tool to run.
#[derive(Debug)]
pub struct Tool<'a> {
    command: Command,
    line: String,
    key: Option<&'a Key>,
    limit: Duration,
    kind: Kind,
}

/// A tool that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    line: String,
    kind: Kind,
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl<'a> Tool<'a> {
    /// A tool by its name.
    pub fn new(name: &str) -> Self {
        let mut command = Command::new(name);
        command.env_clear().env("PATH", PATH).env("LC_ALL", "C").kill_on_drop(true).process_group(0);
        Tool { command, line: name.to_owned(), key: None, limit: LIMIT, kind: Kind::Target }
    }

    /// Adds an argument. Arguments are seen by everybody on the machine: no secret may be one.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        let _ = write!(self.line, " {}", argument.as_ref().to_string_lossy());
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        arguments.into_iter().fold(self, Tool::arg)
    }

    /// Gives it a key as its standard input.
    #[must_use]
    pub fn key(mut self, key: &'a Key) -> Self {
        self.key = Some(key);
        self
    }

    /// Sets how long it may take.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Sets whose problem it is when it fails; the target's, unless told otherwise.
    #[must_use]
    pub fn kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Runs it to its end, however that is.
    ///
    /// # Errors
    /// Of its kind, when it cannot be started or takes too long.
    pub async fn end(mut self) -> Result<Ended> {
        let stdin = if self.key.is_some() { Stdio::piped() } else { Stdio::null() };
        self.command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let ended = tokio::time::timeout(self.limit, talk(&mut self.command, self.key)).await;
        let Ok(ended) = ended else {
            let limit = self.limit.as_secs();
            let hint = match self.kind {
                Kind::Source => "see the kernel log",
                _ => "a device below it does not answer: see the kernel log and the paths (multipath -ll)",
            };
            return Err(Error::new(self.kind, format!("`{}` did not end within {limit} s", self.line))
                .with_retry(Retry::Temporary)
                .with_hint(hint));
        };
        let (code, stdout, stderr) = ended.map_err(|error| not_started(&self.line, self.kind, error))?;
        Ok(Ended { line: self.line, kind: self.kind, code, stdout, stderr })
    }

    /// Runs it to its end, which must be a good one. Returns its standard output.
    ///
    /// # Errors
    /// Of its kind, with what it said.
    pub async fn run(self) -> Result<String> {
        let ended = self.end().await?;
        if ended.code == Some(0) { Ok(ended.stdout) } else { Err(ended.failure()) }
    }
}

impl Ended {
    /// That it failed, and what it said.
    pub fn failure(&self) -> Error {
        let how = self.code.map_or("was ended by a signal".into(), |code| format!("ended with {code}"));
        // Why is for people to read; a path that was lost for a moment is as good a reason as any, so it may go well next time.
        Error::new(self.kind, format!("`{}` {how}: {}", self.line, self.said())).with_retry(Retry::Temporary)
    }

    /// What it said, on one line. Some tools print their manual after the reason.
    pub fn said(&self) -> String {
        let lines = |text: &str| {
            let said = text.lines().map(str::trim).filter(|line| !line.is_empty());
            said.take_while(|line| !line.starts_with("Usage:")).take(6).collect::<Vec<_>>().join("; ")
        };
        let said = [lines(&self.stderr), lines(&self.stdout)];
        said.into_iter().find(|said| !said.is_empty()).unwrap_or_else(|| "it gave no reason".into())
    }
}

async fn talk(command: &mut Command, key: Option<&Key>) -> io::Result<(Option<i32>, String, String)> {
    let mut child = command.spawn()?;
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let give = async {
        if let (Some(mut stdin), Some(key)) = (stdin, key) {
            // A tool that ends before it has read its key says why itself.
            let _ = stdin.write_all(key.passphrase()).await;
        }
    };
    let ((), stdout, stderr) = tokio::join!(give, listen(stdout), listen(stderr));
    Ok((child.wait().await?.code(), stdout, stderr))
}

async fn listen(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let mut said = Vec::new();
    if let Some(pipe) = pipe {
        // What cannot be read was not said.
        let _ = pipe.take(MAX_SAID).read_to_end(&mut said).await;
    }
    String::from_utf8_lossy(&said).into_owned()
}

fn not_started(line: &str, kind: Kind, error: io::Error) -> Error {
    let name = line.split(' ').next().unwrap_or_default();
    let message = match error.kind() {
        io::ErrorKind::NotFound => format!("{name} is not installed"),
        _ => format!("starting `{line}`: {error}"),
    };
    Error::new(kind, message)
        .with_source(error)
        .with_hint(format!("the agent drives {name}: install the package that has it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Tool<'static> {
        Tool::new("sh").args(["-c", script])
    }

    #[tokio::test]
    async fn what_a_tool_says_comes_back_or_stands_in_the_error() {
        assert_eq!(shell("echo fine; echo noise >&2").run().await.unwrap(), "fine\n");
        let error =
            shell("echo 'no such map' >&2; echo; echo Usage: >&2; echo long >&2; exit 3").run().await.unwrap_err();
        assert!(error.to_string().ends_with("ended with 3: no such map"), "{error}");
        assert_eq!(error.kind(), Kind::Target);
        assert_eq!(shell("exit 4").end().await.unwrap().code, Some(4));
        assert!(shell("kill $$").run().await.unwrap_err().to_string().contains("by a signal: it gave no reason"));
    }

    #[tokio::test]
    async fn one_that_does_not_end_is_given_up_and_killed() {
        let pid_file = tempfile::NamedTempFile::new().unwrap();
        let script = format!("echo $$ > {}; exec sleep 100", pid_file.path().display());
        let error = shell(&script).limit(Duration::from_millis(500)).run().await.unwrap_err();
        assert!(error.to_string().contains("did not end within"), "{error}");
        assert_eq!(error.retry(), Retry::Temporary);
        let pid = std::fs::read_to_string(pid_file.path()).unwrap();
        for _ in 0..500 {
            let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            if state.is_empty() || state.contains(") Z ") {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it still runs");
    }

    #[tokio::test]
    async fn one_that_is_not_there_is_named() {
        let error = Tool::new("z-no-such-tool").arg("x").run().await.unwrap_err();
        assert_eq!(error.to_string(), "z-no-such-tool is not installed");
    }

    #[tokio::test]
    async fn the_environment_is_not_inherited_and_the_key_comes_through_the_pipe() {
        let key = Key::generate().unwrap();
        let said = shell("env; cat; ps -o args= -p $$ || true").key(&key).run().await.unwrap();
        let passphrase = String::from_utf8(key.passphrase().to_vec()).unwrap();
        assert_eq!(said.matches(&passphrase).count(), 1, "{said}");
        assert!(!said.contains("CARGO"), "{said}");
    }
}
