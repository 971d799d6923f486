//! The answer to a GET, which comes from somebody who may be lying: its status, its headers and its body are taken only as
//! far as they are what was asked for.

use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Response, StatusCode};
use url::Url;

use super::client::{Client, Sender, named, wrong};
use super::fault::fault;
use super::pace::Pace;
use super::retry_after::retry_after;
use super::{Boxed, Stream};
use crate::error::{Error, Result, Retry};
use crate::manifest::BlobRef;

/// The head of an answer and the connection its body comes from.
pub(super) struct Answer {
    url: Url,
    response: Response<Incoming>,
    sender: Sender,
    client: Arc<Client>,
}

impl Answer {
    pub(super) fn new(url: Url, response: Response<Incoming>, sender: Sender, client: Arc<Client>) -> Self {
        Answer { url, response, sender, client }
    }

    /// Who answered, after all redirects.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    pub(super) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// The server is wrong about this answer; another one may do better.
    fn wrong(&self, what: impl Display) -> Error {
        wrong(&self.url, what)
    }

    /// A header as messages show it.
    fn shown(&self, name: HeaderName) -> String {
        self.headers().get(name).map_or_else(String::new, |value| quoted(value.as_bytes()))
    }

    /// Where the server sends us instead, if it does.
    pub(super) fn redirect(&self) -> Result<Option<Url>> {
        if !matches!(self.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
            return Ok(None);
        }
        let location = self.headers().get(header::LOCATION);
        let location = location.ok_or_else(|| self.wrong("redirected without saying where"))?;
        let next = location.to_str().ok().and_then(|text| self.url.join(text).ok());
        let next = next.ok_or_else(|| self.wrong(format_args!("redirected to {}", self.shown(header::LOCATION))))?;
        match (self.url.scheme(), next.scheme()) {
            ("https", "https") | ("http", "http" | "https") => Ok(Some(next)),
            ("https", "http") => Err(self.wrong(format_args!("redirected from TLS to plain HTTP: {}", named(&next)))),
            _ => Err(self.wrong(format_args!("redirected to something that is not HTTP: {}", named(&next)))),
        }
    }

    fn unexpected_status(&self) -> Error {
        let status = self.status();
        let error = Error::source_failed(format!("{} answers {status}", named(&self.url)));
        let may_pass = matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT);
        if status.is_server_error() || may_pass {
            let error = error.with_hint("the server is overloaded or broken: try later, or give another source");
            return match retry_after(self.headers()) {
                Some(wait) => error.with_retry_after(wait),
                None => error,
            };
        }
        let error = error.with_retry(Retry::OtherSource);
        match status {
            StatusCode::NOT_FOUND => {
                error.with_hint("check that the address is the directory with `index.json`, or the repository and tag")
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => error.with_hint(
                "give a registry credentials with --registry-auth FILE (docker's config.json); let a web server show its files",
            ),
            StatusCode::RANGE_NOT_SATISFIABLE => {
                error.with_hint("the file there is shorter than the image says: copy the image there again")
            }
            _ => error,
        }
    }

    /// A whole small body.
    pub(super) async fn into_bytes(self, limit: u64) -> Result<Vec<u8>> {
        if self.status() != StatusCode::OK {
            return Err(self.unexpected_status());
        }
        let url = self.url.clone();
        let too_long = || wrong(&url, format_args!("sends more than the {limit} bytes that are accepted"));
        if self.response.body().size_hint().lower() > limit {
            return Err(too_long());
        }
        let mut stream = self.into_stream()?;
        let mut bytes = Vec::new();
        while let Some(more) = stream.next().await? {
            if bytes.len() as u64 + more.len() as u64 > limit {
                return Err(too_long());
            }
            bytes.extend_from_slice(&more);
        }
        Ok(bytes)
    }

    /// The part of a blob that was asked for, and nothing else.
    pub(super) fn into_range(self, blob: BlobRef, range: &Range<u64>) -> Result<Box<dyn Stream>> {
        let whole = *range == (0..blob.size);
        match self.status() {
            StatusCode::OK if whole => {}
            StatusCode::OK => {
                return Err(self.wrong("ignores ranges and sends whole files").with_hint(
                    "serve the image with a server that supports HTTP ranges: nginx, apache, S3, `imgstream serve`",
                ));
            }
            StatusCode::PARTIAL_CONTENT => self.check_content_range(blob, range)?,
            _ => return Err(self.unexpected_status()),
        }
        let asked = range.end - range.start;
        match self.response.body().size_hint().exact() {
            Some(said) if said != asked => {
                Err(self.wrong(format_args!("announces {said} bytes although {asked} were asked for")))
            }
            _ => Ok(Box::new(self.into_stream()?)),
        }
    }

    fn check_content_range(&self, blob: BlobRef, range: &Range<u64>) -> Result<()> {
        let span = format!("bytes {}-{}/", range.start, range.end.saturating_sub(1));
        let Some(value) = self.headers().get(header::CONTENT_RANGE) else {
            return Err(self.wrong("sends a part without saying which (no Content-Range)"));
        };
        let total = value.to_str().ok().and_then(|value| value.strip_prefix(&span));
        if total.is_some_and(|total| total == "*" || total.parse() == Ok(blob.size)) {
            return Ok(());
        }
        let found = self.shown(header::CONTENT_RANGE);
        Err(self.wrong(format_args!("sends the part {found} instead of {span}{}", blob.size)))
    }

    /// Checks that the bytes come as they are.
    fn check_encoding(&self) -> Result<()> {
        for (name, plain) in [(header::CONTENT_ENCODING, "identity"), (header::TRANSFER_ENCODING, "chunked")] {
            let mut values = self.headers().get_all(&name).iter();
            if values.any(|value| !value.as_bytes().eq_ignore_ascii_case(plain.as_bytes())) {
                let found = self.shown(name.clone());
                return Err(self
                    .wrong(format_args!("sends an encoded body ({name}: {found}) although none was asked for"))
                    .with_hint("turn compression off for the image's files on that server"));
            }
        }
        Ok(())
    }

    /// The body as a stream. The connection is kept for the next request when the body has been read to its end.
    fn into_stream(self) -> Result<BodyStream> {
        self.check_encoding()?;
        let pace = Pace::new(self.client.timeout);
        let body = self.response.into_body();
        Ok(BodyStream { body, pace, url: self.url, sender: Some(self.sender), client: self.client })
    }
}

/// A body on its way.
struct BodyStream {
    body: Incoming,
    pace: Pace,
    url: Url,
    sender: Option<Sender>,
    client: Arc<Client>,
}

impl BodyStream {
    /// The next piece of data, which may be empty.
    async fn piece(&mut self) -> Result<Option<Bytes>> {
        let _waiting = self.client.awaiting_answer();
        match self.pace.wait(self.body.frame()).await {
            None => Err(Error::source_failed(format!("{}: the body stalled: {}", named(&self.url), self.pace.told()))
                .with_hint("look at the server and at the link; 1 KiB/s per connection is the least that will do")),
            Some(Some(Err(error))) => Err(fault(&format!("{}: the body broke off", named(&self.url)), error)),
            Some(Some(Ok(frame))) => {
                let bytes = frame.into_data().unwrap_or_default();
                self.pace.count(bytes.len());
                Ok(Some(bytes))
            }
            Some(None) => Ok(None),
        }
    }
}

impl Stream for BodyStream {
    fn next(&mut self) -> Boxed<'_, Result<Option<Bytes>>> {
        Box::pin(async move {
            while let Some(bytes) = self.piece().await? {
                if !bytes.is_empty() {
                    return Ok(Some(bytes));
                }
            }
            if let Some(sender) = self.sender.take() {
                self.client.keep(&self.url, sender);
            }
            Ok(None)
        })
    }
}

/// What a server said, as messages show it: in quotes, without control characters, and not for ever.
pub(super) fn quoted(said: &[u8]) -> String {
    const LONGEST: usize = 120;
    let cut = if said.len() > LONGEST { "…" } else { "" };
    format!("\"{}{cut}\"", said[..said.len().min(LONGEST)].escape_ascii())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_said_is_shown_harmlessly() {
        assert_eq!(quoted(b"bytes 0-1/2"), "\"bytes 0-1/2\"");
        assert_eq!(quoted(b"\x1b]0;owned\x07\r\n\xff"), r#""\x1b]0;owned\x07\r\n\xff""#);
        assert_eq!(quoted(&[b'x'; 4000]).chars().count(), 123);
    }
}
