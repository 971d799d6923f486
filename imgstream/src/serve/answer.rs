//! From a request to its response: methods, preconditions, ranges and refusals, as RFC 9110 asks.
//!
//! Not here: which paths there are, how a file is opened and read ([`super::files`]), and connections ([`super`]).

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::header::{self, HeaderMap, HeaderName};
use hyper::{Method, Request, Response, StatusCode, Version};
use tokio::time::timeout;
use tracing::debug;

use super::Bounds;
use super::files::{FileBody, Item, Opened};

type Body = Either<FileBody, Full<Bytes>>;
type Answer = Result<Response<Body>, hyper::http::Error>;

pub(super) async fn respond(bounds: Bounds, root: Arc<Path>, request: Request<Incoming>, peer: SocketAddr) -> Answer {
    let answer = answer(bounds, root, &request).await;
    if let Ok(response) = &answer {
        debug!(
            %peer,
            method = %request.method(),
            path = request.uri().path(),
            range = ?request.headers().get(header::RANGE),
            status = response.status().as_u16(),
            "request",
        );
    }
    answer
}

async fn answer(bounds: Bounds, root: Arc<Path>, request: &Request<Incoming>) -> Answer {
    let headers = request.headers();
    // RFC 9112, 3.2.
    if request.version() == Version::HTTP_11 && headers.get_all(header::HOST).iter().count() != 1 {
        return refusal(StatusCode::BAD_REQUEST, "one Host header, please\n");
    }
    let head = match *request.method() {
        Method::GET => false,
        Method::HEAD => true,
        _ => {
            let mut response = refusal(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD only\n")?;
            response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static("GET, HEAD"));
            return Ok(response);
        }
    };
    let Some(item) = Item::at(request.uri().path()) else {
        return refusal(StatusCode::NOT_FOUND, "not a path of an OCI image layout\n");
    };

    let open = tokio::task::spawn_blocking({
        let item = item.clone();
        move || Opened::open(&root, &item)
    });
    let opened = match timeout(bounds.disk, open).await {
        Ok(Ok(Ok(opened))) => opened,
        Ok(Ok(Err(error))) => return no_file(&item, &error),
        Ok(Err(error)) => return no_file(&item, &io::Error::other(error)),
        Err(_) => return no_file(&item, &io::Error::from(io::ErrorKind::TimedOut)),
    };
    let Opened { file, len, etag } = opened;

    let response = Response::builder().header(header::ETAG, &etag).header(header::CACHE_CONTROL, item.cache_control());
    // RFC 9110, 13.2.2: the order of preconditions. Without Last-Modified, those on dates do not apply.
    if headers.contains_key(header::IF_MATCH) && !lists(headers, header::IF_MATCH, &etag, Comparison::Strong) {
        return refusal(StatusCode::PRECONDITION_FAILED, "If-Match names another version\n");
    }
    if lists(headers, header::IF_NONE_MATCH, &etag, Comparison::Weak) {
        return response.status(StatusCode::NOT_MODIFIED).body(Either::Right(Full::default()));
    }
    let response = response.header(header::ACCEPT_RANGES, "bytes");
    let wanted = if head { Wanted::Whole } else { Wanted::by(headers, &etag, len) };
    let response = match wanted {
        Wanted::Unsatisfiable => {
            let text = "the range lies outside of the file\n";
            return response
                .status(StatusCode::RANGE_NOT_SATISFIABLE)
                .header(header::CONTENT_RANGE, format!("bytes */{len}"))
                .header(header::CONTENT_TYPE, "text/plain")
                .header(header::CONTENT_LENGTH, text.len())
                .body(Either::Right(Full::from(text)));
        }
        Wanted::Whole => response.status(StatusCode::OK),
        Wanted::Part { first, len: part } => response
            .status(StatusCode::PARTIAL_CONTENT)
            .header(header::CONTENT_RANGE, format!("bytes {first}-{}/{len}", first + (part - 1))),
    };
    let (first, part) = match wanted {
        Wanted::Part { first, len } => (first, len),
        _ => (0, len),
    };
    response.header(header::CONTENT_TYPE, item.content_type()).header(header::CONTENT_LENGTH, part).body(if head {
        Either::Right(Full::default())
    } else {
        Either::Left(FileBody::new(file, first, part, bounds.disk))
    })
}

/// A short answer in plain text.
fn refusal(status: StatusCode, text: &'static str) -> Answer {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "text/plain")
        .header(header::CONTENT_LENGTH, text.len())
        .body(Either::Right(Full::from(text)))
}

/// The answer when a layout's file could not be opened.
fn no_file(item: &Item, error: &io::Error) -> Answer {
    debug!(path = ?item.components(), %error, "cannot open");
    match error.raw_os_error() {
        // ELOOP is a symbolic link where O_NOFOLLOW met one.
        Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP) => refusal(StatusCode::NOT_FOUND, "not in this layout\n"),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => {
            refusal(StatusCode::SERVICE_UNAVAILABLE, "too busy to open the file\n")
        }
        None if error.kind() == io::ErrorKind::NotFound => refusal(StatusCode::NOT_FOUND, "not in this layout\n"),
        _ => refusal(StatusCode::INTERNAL_SERVER_ERROR, "the file cannot be opened\n"),
    }
}

/// RFC 9110, 8.8.3.2.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Strong,
    Weak,
}

/// Whether the list of entity tags in header `name` contains `etag` (or is `*`).
fn lists(headers: &HeaderMap, name: HeaderName, etag: &str, comparison: Comparison) -> bool {
    let opaque = |tag: &str| tag.strip_prefix("W/").unwrap_or(tag).to_owned();
    headers.get_all(name).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|tag| {
        let tag = tag.trim();
        match comparison {
            _ if tag == "*" => true,
            Comparison::Strong => tag == etag && !etag.starts_with("W/"),
            Comparison::Weak => opaque(tag) == opaque(etag),
        }
    })
}

/// Which part of a file of `len` bytes a GET asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    /// Never empty, and within the file.
    Part {
        first: u64,
        len: u64,
    },
    Unsatisfiable,
}

impl Wanted {
    fn by(headers: &HeaderMap, etag: &str, len: u64) -> Self {
        let mut ranges = headers.get_all(header::RANGE).iter();
        let (Some(range), None) = (ranges.next(), ranges.next()) else {
            return Self::Whole;
        };
        // A date never matches: there is no Last-Modified here that a client could have it from.
        if headers.contains_key(header::IF_RANGE) {
            let same = headers.get(header::IF_RANGE).is_some_and(|value| value.as_bytes() == etag.as_bytes());
            if !same || etag.starts_with("W/") {
                return Self::Whole;
            }
        }
        range.to_str().map_or(Self::Whole, |range| Self::parse(range, len))
    }

    /// A range we do not understand, or several at once, may be ignored (RFC 9110, 14.2): the answer is the whole.
    fn parse(range: &str, len: u64) -> Self {
        let Some((unit, set)) = range.split_once('=') else {
            return Self::Whole;
        };
        // A list may have empty elements (RFC 9110, 5.6.1.2).
        let mut specs = set.split(',').map(|spec| spec.trim_matches([' ', '\t'])).filter(|spec| !spec.is_empty());
        let (Some(spec), None) = (specs.next(), specs.next()) else {
            return Self::Whole;
        };
        let Some((first, last)) = spec.split_once('-') else {
            return Self::Whole;
        };
        if !unit.eq_ignore_ascii_case("bytes") {
            return Self::Whole;
        }
        match (number(first), number(last)) {
            (None, Some(0)) if first.is_empty() => Self::Unsatisfiable,
            // The last bytes of nothing: satisfiable, but Content-Range cannot say so.
            (None, Some(_)) if first.is_empty() && len == 0 => Self::Whole,
            (None, Some(suffix)) if first.is_empty() => {
                let part = suffix.min(len);
                Self::Part { first: len - part, len: part }
            }
            (Some(first), Some(last)) if first > last => Self::Whole,
            (Some(first), Some(_)) if first >= len => Self::Unsatisfiable,
            (Some(first), Some(last)) => Self::Part { first, len: last.min(len - 1) - first + 1 },
            (Some(first), None) if last.is_empty() && first >= len => Self::Unsatisfiable,
            (Some(first), None) if last.is_empty() => Self::Part { first, len: len - first },
            _ => Self::Whole,
        }
    }
}

/// Digits only (no sign); what does not fit is beyond any file anyway.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        use Wanted::{Unsatisfiable, Whole};
        let part = |first, len| Wanted::Part { first, len };
        let cases = [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-99", part(0, 100)),
            ("bytes=0-100", part(0, 100)),
            ("bytes=10-19", part(10, 10)),
            ("BYTES=10-19", part(10, 10)),
            ("bytes= 10-19 ,", part(10, 10)),
            ("bytes=99-", part(99, 1)),
            ("bytes=0-", part(0, 100)),
            ("bytes=-1", part(99, 1)),
            ("bytes=-100", part(0, 100)),
            ("bytes=-101", part(0, 100)),
            ("bytes=5-99999999999999999999999", part(5, 95)),
            ("bytes=-99999999999999999999999", part(0, 100)),
            ("bytes=100-", Unsatisfiable),
            ("bytes=100-200", Unsatisfiable),
            ("bytes=99999999999999999999999-", Unsatisfiable),
            ("bytes=-0", Unsatisfiable),
            ("bytes=0-1,5-6", Whole),
            ("bytes=5-4", Whole),
            ("bytes=-", Whole),
            ("bytes=", Whole),
            ("bytes", Whole),
            ("", Whole),
            ("bytes=+1-2", Whole),
            ("bytes=1--2", Whole),
            ("bytes=--2", Whole),
            ("bytes=1 - 2", Whole),
            ("bytes=a-b", Whole),
            ("bytes=1-b", Whole),
            ("bytes=a-1", Whole),
            ("chunks=0-1", Whole),
        ];
        for (range, wanted) in cases {
            assert_eq!(Wanted::parse(range, 100), wanted, "{range}");
        }
        assert_eq!(Wanted::parse("bytes=0-", 0), Unsatisfiable);
        assert_eq!(Wanted::parse("bytes=0-0", 0), Unsatisfiable);
        assert_eq!(Wanted::parse("bytes=-5", 0), Whole);
    }
}
