//! What this machine proves itself by, and by what it knows the gateway: read from files, before anything is started.

use std::path::Path;

use imgstream::error::{Error, IoContext, Kind, Result};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use zeroize::Zeroizing;

use crate::medium::config::Auth;

/// What one value of the control socket holds.
const MAX_FILE: usize = 65_535;
/// Shortest pre-shared key. Whoever plays the gateway once can try shorter ones at leisure (RFC 7296, section 8).
const MIN_PSK: usize = 16;

/// How each side proves who it is.
pub enum Credentials {
    /// A pre-shared key.
    Psk(Zeroizing<Vec<u8>>),
    /// Certificates.
    Certificate {
        /// This machine's, and those between it and its authority (DER).
        chain: Vec<Vec<u8>>,
        /// Its private key (PEM).
        key: Zeroizing<Vec<u8>>,
        /// The authorities that vouch for the gateway (DER).
        ca: Vec<Vec<u8>>,
        /// Their revocation lists.
        crl: Vec<Zeroizing<Vec<u8>>>,
    },
}

impl Credentials {
    /// Reads what a configuration names.
    ///
    /// # Errors
    /// [`Kind::Usage`], naming the key and the file.
    pub fn read(auth: &Auth) -> Result<Self> {
        match auth {
            Auth::Psk(file) => psk(file),
            Auth::Certificate { certificate, key, ca, crl } => {
                let all = |files: &[std::path::PathBuf], name| -> Result<Vec<Vec<Vec<u8>>>> {
                    files.iter().map(|file| certificates(file, name)).collect()
                };
                Ok(Credentials::Certificate {
                    chain: certificates(certificate, "certificate")?,
                    key: private_key(key)?,
                    ca: all(ca, "ca")?.concat(),
                    crl: crl.iter().map(|file| read(file, "ipsec.auth.certificate.crl")).collect::<Result<_>>()?,
                })
            }
        }
    }
}

fn psk(file: &Path) -> Result<Credentials> {
    let key = read(file, "ipsec.auth.psk")?;
    if key.ends_with(b"\n") {
        return Err(wrong("ipsec.auth.psk", file, "ends in a newline, which would be part of the key")
            .with_hint("write it without one: `printf %s KEY > FILE`"));
    }
    if key.len() < MIN_PSK {
        return Err(wrong(
            "ipsec.auth.psk",
            file,
            format_args!("has {} bytes; at least {MIN_PSK} are needed", key.len()),
        )
        .with_hint("a short key can be found by trying: take a random one, such as `openssl rand -base64 32` gives"));
    }
    Ok(Credentials::Psk(key))
}

fn private_key(file: &Path) -> Result<Zeroizing<Vec<u8>>> {
    const NAME: &str = "ipsec.auth.certificate.key";
    let key = read(file, NAME)?;
    let has = |words: &[u8]| key.windows(words.len()).any(|window| window == words);
    if has(b"ENCRYPTED") {
        return Err(wrong(NAME, file, "is encrypted, and nobody is there to give its passphrase")
            .with_hint("decrypt it: `openssl pkey -in FILE -out FILE`"));
    }
    if !has(b"PRIVATE KEY-----") {
        return Err(
            wrong(NAME, file, "holds no private key in PEM").with_hint("convert it: `openssl pkey -in FILE -out FILE`")
        );
    }
    Ok(key)
}

fn certificates(file: &Path, name: &str) -> Result<Vec<Vec<u8>>> {
    let name = format!("ipsec.auth.certificate.{name}");
    let pem = read(file, &name)?;
    let found = CertificateDer::pem_slice_iter(&pem).map(|found| found.map(|certificate| certificate.to_vec()));
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| wrong(&name, file, error))?;
    if found.is_empty() {
        return Err(wrong(&name, file, "holds no certificate in PEM")
            .with_hint("convert it: `openssl x509 -in FILE -inform DER -out FILE`"));
    }
    Ok(found)
}

fn read(file: &Path, name: &str) -> Result<Zeroizing<Vec<u8>>> {
    let bytes =
        crate::file::read(file, MAX_FILE).context(Kind::Usage, || format!("`{name}`: reading {}", file.display()))?;
    bytes.ok_or_else(|| wrong(name, file, format_args!("has more than {MAX_FILE} bytes")))
}

fn wrong(name: &str, file: &Path, why: impl std::fmt::Display) -> Error {
    Error::usage(format!("`{name}`: {} {why}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

    fn file(content: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), content).unwrap();
        file
    }

    fn psk_of(content: &str) -> Result<Credentials> {
        Credentials::read(&Auth::Psk(file(content).path().into()))
    }

    #[test]
    fn a_key_is_taken_as_it_is_or_refused() {
        let Ok(Credentials::Psk(key)) = psk_of("0123456789abcdef") else { panic!() };
        assert_eq!(*key, b"0123456789abcdef");
        for (content, why) in [("0123456789abcdef\n", "newline"), ("short", "at least 16"), ("", "at least 16")] {
            let error = psk_of(content).err().unwrap();
            assert!(error.to_string().contains(why) && error.kind() == Kind::Usage, "{error}");
        }
        assert!(psk_of(&"x".repeat(70_000)).is_err());
    }

    #[test]
    fn certificates_are_read_and_mistakes_named() {
        let certificate = |certificate: &str, key: &str, ca: &str| {
            let files = [certificate, key, ca].map(file);
            let [certificate, key, ca] = [0, 1, 2].map(|at| files[at].path().to_owned());
            Credentials::read(&Auth::Certificate { certificate, key, ca: vec![ca], crl: Vec::new() })
        };
        let key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
        let two = CERTIFICATE.repeat(2);
        let Ok(Credentials::Certificate { chain, ca, .. }) = certificate(CERTIFICATE, key, &two) else { panic!() };
        assert_eq!((chain.len(), ca), (1, vec![vec![0; 3]; 2]));
        let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
        for (found, name) in [
            (certificate("", key, CERTIFICATE), "`ipsec.auth.certificate.certificate`"),
            (certificate(CERTIFICATE, "", CERTIFICATE), "`ipsec.auth.certificate.key`"),
            (certificate(CERTIFICATE, &encrypted, CERTIFICATE), "encrypted"),
            (certificate(CERTIFICATE, key, "\u{1}"), "`ipsec.auth.certificate.ca`"),
        ] {
            let error = found.err().unwrap();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
