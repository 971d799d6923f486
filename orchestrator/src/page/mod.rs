//! The one page that shows every run live: HTML, style and script as they stand in this folder, put into the program.
//!
//! They hold no data, so everybody may have them; what the page shows it asks of the API, as whoever is signed in. There is no framework
//! and no build step: what a browser gets is what stands here, the script's parts one after the other. The policy that goes with each of
//! them forbids the browser everything that the page does not do, so that a text which came from an agent could not do it either.

use axum::Router;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;

/// What a browser may do with the page: take these files and ask this service, nothing else.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'none'; \
                      frame-ancestors 'none'; base-uri 'none'; require-trusted-types-for 'script'";

/// The script, in the order in which its parts need each other.
const SCRIPT: &str = concat!(
    include_str!("js/words.js"),
    include_str!("js/api.js"),
    include_str!("js/row.js"),
    include_str!("js/fleet.js"),
    include_str!("js/dialog.js"),
    include_str!("js/parts.js"),
    include_str!("js/story.js"),
    include_str!("js/start.js"),
);

/// Where each file is, of which kind it is, and what is in it.
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("page.html")),
    ("/page.css", "text/css; charset=utf-8", concat!(include_str!("page.css"), include_str!("story.css"))),
    ("/page.js", "text/javascript; charset=utf-8", SCRIPT),
    ("/icon.svg", "image/svg+xml", include_str!("icon.svg")),
];

/// Where the page is, for a router that lets everybody have it. There is nothing else to be had below these paths: none of them is
/// looked for in a folder.
pub fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    FILES.into_iter().fold(Router::new(), |router, (path, kind, text)| {
        let tag = tag(text);
        router.route(path, get(move |request: Request| std::future::ready(answer(request.headers(), kind, text, &tag))))
    })
}

/// A name of the content: another content has another.
fn tag(text: &str) -> HeaderValue {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let digits: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    // Hex digits in quotes are a header's value.
    HeaderValue::from_str(&format!("\"{digits}\"")).unwrap_or(HeaderValue::from_static("\"\""))
}

fn answer(asked: &HeaderMap, kind: &'static str, text: &'static str, tag: &HeaderValue) -> Response {
    let has_it = asked.get_all(IF_NONE_MATCH).iter().any(|known| is_known(known, tag));
    let mut response = match has_it {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Bytes::from_static(text.as_bytes()).into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(ETAG, tag.clone());
    for (name, value) in [
        (CONTENT_TYPE, kind),
        // It may be kept, but after an update of the service no old page talks to a new API.
        (CACHE_CONTROL, "no-cache"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (REFERRER_POLICY, "no-referrer"),
        (X_FRAME_OPTIONS, "DENY"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether a list of tags has this one, weak or not, or is `*`.
fn is_known(list: &HeaderValue, tag: &HeaderValue) -> bool {
    let (Ok(list), Ok(tag)) = (list.to_str(), tag.to_str()) else { return false };
    list.split(',').map(str::trim).any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_that_has_the_page_does_not_get_it_again() {
        let (_, kind, text) = FILES[0];
        let tag = tag(text);
        let status = |known: Option<&str>| {
            let mut asked = HeaderMap::new();
            known.map(|known| asked.insert(IF_NONE_MATCH, known.parse().unwrap()));
            let response = answer(&asked, kind, text, &tag);
            assert_eq!(response.headers()[CONTENT_SECURITY_POLICY], POLICY, "{known:?}");
            response.status()
        };
        let ours = tag.to_str().unwrap();
        assert_eq!(status(None), StatusCode::OK);
        assert_eq!(status(Some("\"another\"")), StatusCode::OK);
        for known in [ours.to_owned(), format!("W/{ours}"), format!("\"another\", {ours}"), "*".into()] {
            assert_eq!(status(Some(&known)), StatusCode::NOT_MODIFIED, "{known}");
        }
    }

    /// The policy would forbid all of these; here they are found before a browser is started.
    #[test]
    fn nothing_in_the_page_comes_from_elsewhere_or_stands_in_line() {
        for (path, _, text) in FILES {
            for harmful in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                " style=",
                " onclick=",
                "javascript:",
            ] {
                assert!(!text.contains(harmful), "{path} has {harmful}");
            }
            let elsewhere = text.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains("http://") && !elsewhere.contains("https://"), "{path} names another site");
        }
    }
}
