//! What IMAGE means on a command line: a directory, a URL, or a registry reference. Text only.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use url::Url;

use crate::digest::Digest;

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Locator {
    /// The directory of a layout.
    Dir(PathBuf),
    /// A layout below an `http://` or `https://` URL; the path ends in a slash.
    Http(Url),
    /// A repository of a registry.
    Registry(Reference),
}

/// `oci://HOST[:PORT]/REPOSITORY[:TAG][@DIGEST]`; `oci+http://` for a registry without TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// Host and, where given, port.
    pub authority: String,
    /// Repository path.
    pub repository: String,
    /// Tag or digest.
    pub version: Version,
}

/// What a reference names in its repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// Whatever the tag points at.
    Tag(String),
    /// The manifest with this digest.
    Digest(Digest),
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.scheme == "http" { "oci+http" } else { "oci" };
        write!(f, "{scheme}://{}/{}", self.authority, self.repository)?;
        match &self.version {
            Version::Tag(tag) => write!(f, ":{tag}"),
            Version::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}

impl FromStr for Locator {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(rest) = text.strip_prefix("oci://") {
            return reference("https", rest).map(Locator::Registry);
        }
        if let Some(rest) = text.strip_prefix("oci+http://") {
            return reference("http", rest).map(Locator::Registry);
        }
        if text.starts_with("http://") || text.starts_with("https://") {
            let mut url = Url::parse(text).map_err(|error| format!("{text:?} is not a URL: {error}"))?;
            if !url.username().is_empty() || url.password().is_some() {
                return Err(
                    "a URL on the command line must not carry a password: everybody on the machine can read it".into(),
                );
            }
            if !url.path().ends_with('/') {
                let path = format!("{}/", url.path());
                url.set_path(&path);
            }
            return Ok(Locator::Http(url));
        }
        if let Some((scheme, _)) = text.split_once("://") {
            return Err(format!(
                "{scheme}:// is not a kind of source: a directory, http://, https://, oci:// or oci+http://"
            ));
        }
        Ok(Locator::Dir(text.into()))
    }
}

fn reference(scheme: &'static str, text: &str) -> Result<Reference, String> {
    let refused = || format!("{text:?} is not HOST/REPOSITORY:TAG or HOST/REPOSITORY@sha256:DIGEST");
    let (authority, path) = text.split_once('/').ok_or_else(refused)?;
    let (path, version) = match path.split_once('@') {
        Some((path, digest)) => (path, Some(Version::Digest(digest.parse().map_err(|_| refused())?))),
        None => (path, None),
    };
    let (repository, tag) = path.split_once(':').map_or((path, None), |(path, tag)| (path, Some(tag)));
    // The distribution specification's grammar for names and tags, minus its length rules.
    let name_ok = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-'))
    };
    let tag_ok = |tag: &str| {
        !tag.is_empty()
            && tag.len() <= 128
            && tag.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
    };
    let host_ok =
        !authority.is_empty() && authority.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]".contains(&b));
    if !host_ok || !repository.split('/').all(name_ok) || !tag.is_none_or(tag_ok) {
        return Err(refused());
    }
    let version = version.unwrap_or_else(|| Version::Tag(tag.unwrap_or("latest").into()));
    Ok(Reference { scheme, authority: authority.into(), repository: repository.into(), version })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_every_kind() {
        assert_eq!("images/a".parse(), Ok(Locator::Dir("images/a".into())));
        let Ok(Locator::Http(url)) = "http://127.0.0.1:8080/x".parse() else { panic!() };
        assert_eq!(url.join("index.json").unwrap().as_str(), "http://127.0.0.1:8080/x/index.json");
        let Ok(Locator::Registry(found)) = "oci+http://[::1]:5000/a/b:7".parse() else { panic!() };
        assert_eq!((found.scheme, found.authority.as_str(), found.repository.as_str()), ("http", "[::1]:5000", "a/b"));
        assert_eq!(found.to_string(), "oci+http://[::1]:5000/a/b:7");
        let by_digest = format!("oci://registry.example.com/debian@{}", Digest::of(b""));
        let Ok(Locator::Registry(found)) = by_digest.parse() else { panic!() };
        assert_eq!(found.to_string(), by_digest);
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "ftp://x/",
            "oci://host",
            "oci://host/../x",
            "oci://host/x:",
            "oci://host/x@sha256:12",
            "http://u:p@h/",
            "oci://h h/x",
        ] {
            assert!(text.parse::<Locator>().is_err(), "{text}");
        }
    }
}
