//! Where a service is: its URL, taken apart, and whether it may be sent a token.

use std::fmt;
use std::net::IpAddr;

use hyper::Uri;
use imgstream::error::{Error, Result};

/// A service's address: a URL without a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    https: bool,
    /// Without the brackets of IPv6.
    host: String,
    port: u16,
    /// Host and port as the URL writes them.
    authority: String,
    /// What all paths begin with; it does not end in `/`.
    path: String,
}

impl Address {
    /// That of a service which is sent tokens: `https://`, or `http://` and a loopback address.
    ///
    /// # Errors
    /// `Usage` for anything else.
    pub(crate) fn of_service(url: &str) -> Result<Self> {
        let address = Self::parse(url)?;
        let stays_here = address.host.parse::<IpAddr>().is_ok_and(|host| host.is_loopback());
        if address.https || stays_here {
            return Ok(address);
        }
        Err(Error::usage(format!("{url}: tokens are not sent in the clear")).with_hint(
            "use https:// and --orchestrator-ca; http:// is for loopback addresses (127.0.0.1, [::1]) alone",
        ))
    }

    /// Any, be it in the clear.
    ///
    /// # Errors
    /// `Usage` when it is no URL of HTTP, or has a user, a query or a fragment.
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::usage(format!("{:?} is no address of a service: {why}", shown(url)))
                .with_hint("such as https://orchestrator.example.com:8443")
        };
        let uri: Uri = url.parse().map_err(|error| wrong(&format!("{error}")))?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("it begins neither with https:// nor with http://")),
        };
        let authority = uri.authority().ok_or_else(|| wrong("it names no host"))?;
        if authority.as_str().contains('@') || uri.query().is_some() || url.contains('#') {
            return Err(wrong("it has a user, a query or a fragment"));
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() {
            return Err(wrong("it names no host"));
        }
        Ok(Address {
            https,
            host: host.to_owned(),
            port: authority.port_u16().unwrap_or(if https { 443 } else { 80 }),
            authority: authority.to_string(),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    pub(crate) fn is_https(&self) -> bool {
        self.https
    }

    pub(super) fn host(&self) -> &str {
        &self.host
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }

    /// The path of a request: what all begin with, and `path`.
    pub(super) fn path(&self, path: &str) -> String {
        let path = format!("{}{path}", self.path);
        if path.is_empty() { "/".into() } else { path }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

/// Without what may be a password.
fn shown(url: &str) -> &str {
    url.rsplit_once('@').map_or(url, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart() {
        let address = Address::of_service("https://o.example.com/prefix/").unwrap();
        assert_eq!((address.host(), address.port(), address.authority()), ("o.example.com", 443, "o.example.com"));
        assert_eq!(address.path("/v1/agent/enrol"), "/prefix/v1/agent/enrol");
        assert_eq!(address.to_string(), "https://o.example.com/prefix");
        let address = Address::of_service("http://[::1]:8080").unwrap();
        assert_eq!((address.host(), address.port(), address.authority()), ("::1", 8080, "[::1]:8080"));
        assert_eq!((address.path("").as_str(), address.path("/v1").as_str()), ("/", "/v1"));
    }

    #[test]
    fn tokens_are_not_sent_in_the_clear() {
        for url in ["http://127.0.0.1:1", "http://127.9.9.9", "https://10.0.0.1"] {
            assert!(Address::of_service(url).is_ok(), "{url}");
        }
        for url in ["http://10.0.0.1", "http://localhost:8080", "http://o.example.com", "http://127.0.0.1.example.com"]
        {
            let error = Address::of_service(url).unwrap_err();
            assert!(error.to_string().contains("in the clear") && error.hint().unwrap().contains("https://"), "{url}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_without_showing_a_password() {
        let wrongs =
            ["o.example.com", "ftp://h", "https://", "/x", "", "https://h/?q=1", "https://h/a b", "https://h/#f"];
        for wrong in wrongs.into_iter().chain(["https://me:hunter2@h/"]) {
            let error = Address::of_service(wrong).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
