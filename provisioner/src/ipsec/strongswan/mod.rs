//! strongSwan's IKE daemon as a child of this process: started, told what to do over its control socket, ended. Keys reach it through
//! that socket alone.

mod connection;
mod settings;

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::process::Stdio;
use std::time::Duration;

use imgstream::error::{Error, IoContext, Kind, Result, Retry};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::credentials::Credentials;
use super::vici::{Message, Vici};
use crate::medium::config::Ipsec;

pub use self::connection::{NAME, child};
pub use self::settings::Settings;

/// How long it may take until it can be talked to, and until it has ended.
const LIMIT: Duration = Duration::from_secs(15);
/// Bytes of its log that are looked at.
const MAX_LOG: usize = 64 << 10;

/// The daemon, running. Dropped, it is killed; what the kernel was told stays, and lets nothing pass in the clear.
#[derive(Debug)]
pub struct Daemon {
    process: Child,
    settings: Settings,
}

impl Daemon {
    /// Starts it.
    ///
    /// # Errors
    /// [`Kind::Source`] when it is not installed, or ends at once, with what it has logged.
    pub async fn start(settings: Settings) -> Result<Self> {
        let cannot = |error: Error| error.with_hint("is /run a file system that can be written?");
        prepare(&settings)
            .context(Kind::Source, || format!("preparing {}", settings.folder.display()))
            .map_err(cannot)?;
        let mut command = Command::new(&settings.program);
        command.env_clear().env("STRONGSWAN_CONF", settings.file()).env("LC_ALL", "C").env("TZ", "UTC0");
        command.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true).process_group(0);
        let process = command
            .spawn()
            .context(Kind::Source, || format!("starting {}", settings.program.display()))
            .map_err(|error| error.with_hint("the VCN needs strongSwan: install charon-systemd"))?;
        let mut daemon = Daemon { process, settings };
        daemon.is_there().await?;
        Ok(daemon)
    }

    /// Waits until it can be talked to.
    async fn is_there(&mut self) -> Result<()> {
        let deadline = Instant::now() + LIMIT;
        loop {
            if self.talk().await.is_ok() {
                return Ok(());
            }
            let ended = self.process.try_wait().ok().flatten();
            if ended.is_none() && Instant::now() < deadline {
                sleep(Duration::from_millis(50)).await;
                continue;
            }
            let program = self.settings.program.display();
            let what =
                ended.map_or("does not answer on its control socket".into(), |status| format!("has ended: {status}"));
            return Err(Error::new(Kind::Source, format!("{program} {what}; {}", self.last_words()))
                .with_retry(Retry::Permanent)
                .with_hint(format!(
                    "its log is {}; are all of strongSwan's plugins installed?",
                    self.settings.log().display()
                )));
        }
    }

    /// A new connection to its control socket.
    ///
    /// # Errors
    /// [`Kind::Source`] when it is gone.
    pub async fn talk(&self) -> Result<Vici> {
        let socket = self.settings.socket();
        Vici::connect(&socket).await.map_err(|error| {
            Error::source_failed(format!("strongSwan's IKE daemon is not there: {}: {error}", socket.display()))
                .with_source(error)
        })
    }

    /// Its settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Tells it who is who, and what tunnels there are.
    ///
    /// # Errors
    /// [`Kind::Source`] with what it says against that.
    pub async fn load(&self, vici: &mut Vici, config: &Ipsec, credentials: &Credentials) -> Result<()> {
        match credentials {
            Credentials::Psk(key) => {
                let owners = [config.local_id.as_deref(), Some(&config.gateway_id)];
                let key = Message::new()
                    .with("type", "IKE")
                    .with("data", &**key)
                    .list("owners", owners.into_iter().flatten());
                vici.command("load-shared", &key).await?;
            }
            Credentials::Certificate { chain, key, crl, .. } => {
                let key = Message::new().with("type", "any").with("data", &**key);
                vici.command("load-key", &key).await.map_err(|error| refused(error, "ipsec.auth.certificate.key"))?;
                for between in chain.iter().skip(1) {
                    let certificate = Message::new().with("type", "X509").with("flag", "NONE").with("data", between);
                    let loaded = vici.command("load-cert", &certificate).await;
                    loaded.map_err(|error| refused(error, "ipsec.auth.certificate.certificate"))?;
                }
                for list in crl {
                    let list = Message::new().with("type", "X509_CRL").with("data", &**list);
                    vici.command("load-cert", &list)
                        .await
                        .map_err(|error| refused(error, "ipsec.auth.certificate.crl"))?;
                }
            }
        }
        let connection = connection::connection(config, credentials, self.settings.encapsulate);
        vici.command("load-conn", &connection).await.map(drop)
    }

    /// The end of its log.
    pub fn log(&self) -> Vec<String> {
        let log = fs::read(self.settings.log()).unwrap_or_default();
        let tail = &log[log.len().saturating_sub(MAX_LOG)..];
        String::from_utf8_lossy(tail).lines().map(str::to_owned).collect()
    }

    fn last_words(&self) -> String {
        let log = self.log();
        let last = &log[log.len().saturating_sub(3)..];
        if last.is_empty() { "it has logged nothing".into() } else { format!("its log ends: {}", last.join("; ")) }
    }

    /// Ends it. What it told the kernel it takes back.
    pub async fn stop(mut self) {
        let id = self.process.id().and_then(|id| i32::try_from(id).ok());
        if let Some(id) = id {
            // It may have ended by itself.
            let _ = kill(Pid::from_raw(id), Signal::SIGTERM);
        }
        if timeout(LIMIT, self.process.wait()).await.is_err() {
            let _ = self.process.kill().await;
        }
    }
}

/// What it refuses stands in a file that the configuration names.
fn refused(error: Error, key: &str) -> Error {
    error.with_hint(format!("`{key}`: is the file what it should be, and PEM?"))
}

fn prepare(settings: &Settings) -> std::io::Result<()> {
    const PRIVATE: u32 = 0o700;
    DirBuilder::new().recursive(true).mode(PRIVATE).create(&settings.folder)?;
    fs::set_permissions(&settings.folder, fs::Permissions::from_mode(PRIVATE))?;
    for left in [settings.socket(), settings.log()] {
        match fs::remove_file(left) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    fs::write(settings.file(), settings.text())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(script: &str) -> (tempfile::TempDir, Settings) {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("charon-systemd");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let folder = dir.path().join("run/ipsec");
        (dir, Settings { folder, program, ..Settings::default() })
    }

    #[tokio::test]
    async fn a_daemon_that_ends_is_told_with_its_last_words() {
        let script = "read load <\"$STRONGSWAN_CONF\" && echo '00[LIB] plugin kdf failed' > ${STRONGSWAN_CONF%/*}/charon.log; exit 66";
        let (_dir, settings) = settings(script);
        let folder = settings.folder.clone();
        let error = Daemon::start(settings).await.unwrap_err();
        assert!(error.to_string().contains("exit status: 66; its log ends: 00[LIB] plugin kdf failed"), "{error}");
        assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[tokio::test]
    async fn one_that_is_not_installed_is_named() {
        let (_dir, settings) = settings("");
        let error = Daemon::start(Settings { program: "/no/charon-systemd".into(), ..settings }).await.unwrap_err();
        assert!(error.to_string().contains("/no/charon-systemd") && error.kind() == Kind::Source, "{error}");
    }
}
