//! Where a store is.

use std::fmt;
use std::path::{Path, PathBuf};

use url::Url;

/// Where a store is. Shown without its password.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// SQLite, in this file.
    File(PathBuf),
    /// PostgreSQL, at this URL.
    Postgres(Box<Url>),
}

/// Why a text names no store. It does not show the text, which may have a password in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadLocation(String);

impl Location {
    /// Reads the path of a file, or a URL that starts with `postgres://` or `postgresql://`.
    ///
    /// # Errors
    /// It is empty, another kind of URL, or one that cannot be read.
    pub fn parse(text: &str) -> Result<Self, BadLocation> {
        let refuse =
            |why: &str| Err(BadLocation(format!("{why}; give a file's path, or postgres://USER@HOST/DATABASE")));
        match text.split_once("://") {
            None if text.is_empty() => refuse("a store's place is empty"),
            None => Ok(Location::File(text.into())),
            Some(("postgres" | "postgresql", _)) => match Url::parse(text) {
                Ok(url) => Ok(Location::Postgres(Box::new(url))),
                Err(error) => refuse(&format!("a store's URL cannot be read: {error}")),
            },
            Some(_) => refuse("a store's URL is none of PostgreSQL"),
        }
    }

    /// As sqlx takes it: it knows SQLite's files by URL as well. Every byte is escaped, so that none has a meaning of its own.
    pub(super) fn url(&self) -> Result<String, String> {
        match self {
            Location::Postgres(url) => Ok(url.to_string()),
            Location::File(path) => {
                let path = std::path::absolute(path).map_err(|error| error.to_string())?;
                Ok(format!("sqlite:{}?mode=rwc", escaped(&path).ok_or("SQLite takes only paths that are UTF-8")?))
            }
        }
    }
}

fn escaped(path: &Path) -> Option<String> {
    Some(path.to_str()?.bytes().map(|byte| format!("%{byte:02X}")).collect())
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Location::File(path) => path.display().fmt(f),
            Location::Postgres(url) => {
                // A password may also stand among the parameters.
                let user = if url.username().is_empty() { String::new() } else { format!("{}@", url.username()) };
                let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
                write!(f, "postgres://{user}{}{port}{}", url.host_str().unwrap_or_default(), url.path())
            }
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_file_and_a_url_a_server() {
        assert_eq!(Location::parse("data/runs.sqlite"), Ok(Location::File("data/runs.sqlite".into())));
        assert!(matches!(Location::parse("postgresql://db/runs"), Ok(Location::Postgres(_))));
        for refused in ["", "mysql://secret@db/runs", "postgres://user:secret@db:port/runs"] {
            let error = Location::parse(refused).unwrap_err().to_string();
            assert!(error.contains("give a file's path") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let location = Location::parse("postgres://user:secret@db:5433/runs?password=secret&sslmode=require").unwrap();
        assert_eq!(location.to_string(), "postgres://user@db:5433/runs");
        assert_eq!(format!("{location:?}"), "Location(postgres://user@db:5433/runs)");
    }

    #[test]
    fn no_byte_of_a_path_has_a_meaning_of_its_own() {
        let url = Location::File("/a?mode=ro&%2e/../file:#".into()).url().unwrap();
        assert!(url.starts_with("sqlite:%2F%61%3F") && url.ends_with("%23?mode=rwc"), "{url}");
        assert!(Location::File(":memory:".into()).url().unwrap().starts_with("sqlite:%2F"), "a file, not memory");
    }
}
