//! Keys: made, read, and turned into a trust policy.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use envelope::{PublicKey, SecretKey};
use imgstream::error::{Error, IoContext, Kind, Result};
use zeroize::Zeroizing;

use super::args;

/// Makes a key pair; never replaces a file.
pub fn keygen(arguments: &args::Keygen) -> Result<()> {
    no_core_dumps();
    let key = SecretKey::generate().map_err(|error| Error::device(error.to_string()))?;
    let mut public = arguments.key.clone().into_os_string();
    public.push(".pub");
    // The public key first: a private key that was made has its public one beside it.
    create(Path::new(&public), 0o644, key.public().to_pem().as_bytes())?;
    create(&arguments.key, 0o600, key.to_pem().as_bytes()).inspect_err(|_| drop(std::fs::remove_file(&public)))?;
    say!("private key  {}  (keep it secret)", arguments.key.display());
    say!("public key   {}", Path::new(&public).display());
    say!("key id       {}", key.public().id());
    Ok(())
}

fn create(path: &Path, mode: u32, bytes: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AlreadyExists => "a key is never overwritten: choose another name",
            _ => "check the folder and its permissions",
        };
        Error::usage(format!("creating {}: {error}", path.display())).with_source(error).with_hint(hint)
    })?;
    file.write_all(bytes).and_then(|()| file.sync_all()).context(Kind::Device, || format!("writing {}", path.display()))
}

/// Reads a private key.
pub fn secret_key(path: &Path) -> Result<SecretKey> {
    no_core_dumps();
    let pem = Zeroizing::new(read(path)?);
    SecretKey::from_pem(&pem).map_err(|error| Error::usage(format!("{}: {error}", path.display())).with_source(error))
}

/// A process that holds a private key must not leave it in a core dump. Lowering one's own limit has no way to fail.
fn no_core_dumps() {
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
}

/// The trust policy of the options.
pub fn trust(arguments: &args::Trust) -> Result<envelope::Trust> {
    let keys = arguments.trust.iter().map(|path| {
        PublicKey::from_pem(&read(path)?)
            .map_err(|error| Error::usage(format!("{}: {error}", path.display())).with_source(error))
    });
    let keys = keys.collect::<Result<Vec<_>>>()?;
    if keys.is_empty() {
        return Err(
            Error::usage("no key is trusted").with_hint("give the image maker's public key with --trust KEY.pub")
        );
    }
    envelope::Trust::new(keys, arguments.threshold).map_err(|error| Error::usage(error.to_string()).with_source(error))
}

/// Reads a small file named on the command line.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| Error::usage(format!("reading {}: {error}", path.display())).with_source(error))
}
