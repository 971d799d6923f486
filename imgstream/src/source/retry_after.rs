//! `Retry-After` (RFC 9110 §10.2.3): how long a server that is busy asks us to stay away.

use std::time::Duration;

use hyper::header::{DATE, HeaderMap, HeaderName, RETRY_AFTER};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// No server is believed that it needs more than this.
const LONGEST: Duration = Duration::from_secs(3600);

/// What the header says, bounded; nothing where it is missing, makes no sense or lies in the past.
///
/// A date counts from the server's own `Date`, since either clock may be wrong.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = text(headers, RETRY_AFTER)?;
    let seconds = match seconds(text) {
        Some(seconds) => seconds,
        None => {
            let now = text_date(headers).unwrap_or_else(OffsetDateTime::now_utc);
            u64::try_from((date(text)? - now).whole_seconds()).ok().filter(|seconds| *seconds > 0)?
        }
    };
    Some(Duration::from_secs(seconds).min(LONGEST))
}

fn seconds(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // More digits than a number takes are still a number: a large one.
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

/// The one form of HTTP's dates that may still be sent (IMF-fixdate) is also a date of RFC 2822.
fn date(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc2822).ok()
}

fn text_date(headers: &HeaderMap) -> Option<OffsetDateTime> {
    date(text(headers, DATE)?)
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(retry_after_value: &str, date: Option<&str>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry_after_value.parse().unwrap());
        if let Some(date) = date {
            headers.insert(DATE, date.parse().unwrap());
        }
        retry_after(&headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn seconds_are_taken_and_bounded() {
        assert_eq!(said("0", None), Some(0));
        assert_eq!(said(" 17 ", None), Some(17));
        assert_eq!(said("1000000000000", None), Some(3600));
        assert_eq!(said(&"9".repeat(400), None), Some(3600));
    }

    #[test]
    fn dates_count_from_the_servers_clock_or_else_from_ours() {
        let servers = Some("Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(said("Sun, 06 Nov 1994 08:50:07 GMT", servers), Some(30));
        assert_eq!(said("Fri, 31 Dec 9999 23:59:59 GMT", servers), Some(3600));
        assert_eq!(said("Sun, 06 Nov 1994 08:49:07 GMT", servers), None, "the past");
        assert_eq!(said("Sun, 06 Nov 1994 08:50:07 GMT", None), None, "the past");
        assert_eq!(said("Fri, 31 Dec 9999 23:59:59 GMT", None), Some(3600));
        assert_eq!(said("Sun, 06 Nov 1994 08:50:07 GMT", Some("yesterday")), None, "the past");
    }

    #[test]
    fn nonsense_is_ignored() {
        for text in ["", "-5", "+5", "1.5", "5 s", "soon", "Sun, 99 Nov 1994 08:50:07 GMT", "0x10"] {
            assert_eq!(said(text, None), None, "{text}");
        }
        assert_eq!(retry_after(&HeaderMap::new()), None);
    }
}
