//! `z-orchestrator certificate`: a client certificate for a person, issued by the service's authority, also while the service runs.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use super::screen::Screen;
use super::{no_core_dumps, on_stdout};
use crate::config::default_data;
use crate::error::{Error, Result};
use crate::identity::{Authority, Folder, REVOKED, Role};
use crate::model::Moment;

const DAY: Duration = Duration::from_secs(86_400);

/// Its arguments.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Whose it is: a name for logs and for those who read them
    name: String,
    /// What its holder may do
    #[arg(long)]
    role: RoleArg,
    /// For how many days it is good
    #[arg(long, value_name = "DAYS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=366))]
    days: u32,
    /// Where it goes: PREFIX.pem and PREFIX.key, which must not be there yet
    #[arg(long, value_name = "PREFIX")]
    out: PathBuf,
    /// The service's data folder. Default: that of a service that this user has started
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum RoleArg {
    /// Look
    Viewer,
    /// Look and act
    Operator,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Role {
        match role {
            RoleArg::Viewer => Role::Viewer,
            RoleArg::Operator => Role::Operator,
        }
    }
}

/// Issues it.
pub(super) fn run(args: &Args, screen: &Screen) -> Result<ExitCode> {
    no_core_dumps()?;
    let folder = Folder::look(&args.data.clone().map_or_else(default_data, Ok)?)?;
    let now = Moment::of_wall_clock();
    let length = DAY * args.days;
    let issued = Authority::known(&folder, now)?.issue_person(&args.name, args.role.into(), length, now)?;
    let (certificate, key) = (file(&args.out, "pem"), file(&args.out, "key"));
    write_new(&key, issued.key.as_bytes(), 0o600)?;
    if let Err(error) = write_new(&certificate, issued.certificate.as_bytes(), 0o644) {
        // Without its certificate it is of no use, and in the way of the next try.
        let _ = std::fs::remove_file(&key);
        return Err(error);
    }
    screen.lines(&format!(
        "{} and {} are written, good until {}; to revoke it, put the fingerprint into {}",
        certificate.display(),
        key.display(),
        now.after(length),
        folder.file(REVOKED).display()
    ));
    on_stdout(format!("{}\n", issued.fingerprint).as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// `PREFIX.EXTENSION`, whatever dots there are in the prefix.
fn file(prefix: &Path, extension: &str) -> PathBuf {
    let mut name = prefix.as_os_str().to_owned();
    name.push(format!(".{extension}"));
    name.into()
}

fn write_new(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let written = file.and_then(|mut file| file.write_all(bytes).and_then(|()| file.sync_all()));
    written.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "nothing is overwritten: name another PREFIX, or remove that file",
            _ => "see that the folder of PREFIX is there, can be written, and has room",
        };
        Error::system(format!("writing {}: {error}", path.display())).with_hint(hint).with_source(error)
    })
}
