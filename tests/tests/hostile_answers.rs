//! Servers that say something odd before any body: statuses, redirects, heads that are attacks.

use std::sync::Arc;

use e2e::exit;
use e2e::hostile::Part::{Data, Envelope, Index, Manifest};
use e2e::hostile::{Act, Answer, Case, Hostile, Request, Setting, Step};

fn status(status: &'static str) -> impl Fn(Answer) -> Answer + Clone + Send + Sync + 'static {
    move |_| Answer::new(status, "no")
}

#[test]
fn a_status_that_does_not_pass_is_told_at_once() {
    let mut cases = Vec::new();
    for text in [
        "400 Bad Request",
        "401 Unauthorized",
        "403 Forbidden",
        "404 Not Found",
        "405 Method Not Allowed",
        "410 Gone",
        "416 Range Not Satisfiable",
        "418 I'm a teapot",
        "451 Unavailable For Legal Reasons",
    ] {
        for part in [Index, Data] {
            cases.push(Case::always(text, part, status(text)).says(&format!("answers {text}")));
        }
    }
    cases.push(Case::always("404", Index, status("404 Not Found")).says("hint: check that the address"));
    cases.push(Case::always("403", Index, status("403 Forbidden")).says("--registry-auth FILE"));
    cases.push(Case::always("416", Data, status("416 X")).says("hint: the file there is shorter"));
    // Not tried again: one request, one answer.
    let setting = Setting::new();
    setting.hold(cases);
    let gone = |request: &Request, honest: Answer| match request.part {
        Manifest => Answer::new("410 Gone", "").into(),
        _ => honest.into(),
    };
    let server = Hostile::start(&setting.image.dir, Arc::new(gone));
    setting.write(&server.url(), &setting.target()).done().exits(exit::SOURCE).says("410 Gone");
    assert_eq!(server.asked().iter().map(|request| request.part).collect::<Vec<_>>(), [Index, Manifest]);
}

#[test]
fn a_status_that_may_pass_is_waited_out() {
    let mut cases = Vec::new();
    for text in [
        "408 Request Timeout",
        "429 Too Many Requests",
        "500 Internal Server Error",
        "502 Bad Gateway",
        "503 Service Unavailable",
        "504 Gateway Timeout",
    ] {
        cases.push(Case::once(text, Index, status(text)));
        cases.push(Case::once(text, Data, status(text)));
    }
    cases.push(
        Case::always("503", Index, status("503 X")).says("answers 503 Service Unavailable").says("hint: the server"),
    );
    cases.push(Case::always("429", Data, status("429 X")).says("answers 429 Too Many Requests"));
    Setting::new().hold(cases);
}

#[test]
fn retry_after_is_a_wish_and_no_command() {
    let mut cases = Vec::new();
    let wishes = ["1", "0", "-5", "soon", "", "1.5", "Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 99 Nov 1994 08:49:37 GMT"];
    for (code, part) in [("503 Service Unavailable", Index), ("429 Too Many Requests", Data)] {
        for wish in wishes {
            let twist = move |_| Answer::new(code, "").header("Retry-After", wish);
            cases.push(Case::once(&format!("Retry-After: {wish:?}"), part, twist));
        }
        // By the server's own clock a second away, by ours long ago.
        let dated = move |_| {
            let answer = Answer::new(code, "").header("Date", "Sun, 06 Nov 1994 08:49:36 GMT");
            answer.header("Retry-After", "Sun, 06 Nov 1994 08:49:37 GMT")
        };
        cases.push(Case::once("Retry-After: a second later", part, dated));
    }
    Setting::new().hold(cases);
}

#[test]
#[ignore = "soak"] // a minute is the most that a server is believed
fn an_absurd_retry_after_is_not_obeyed() {
    let setting = Setting::new();
    for part in [Index, Data] {
        for wish in ["1000000000000", "Fri, 31 Dec 9999 23:59:59 GMT"] {
            let script = move |request: &Request, honest: Answer| match request.part == part && request.nth == 0 {
                true => Answer::new("503 x", "").header("Retry-After", wish).into(),
                false => honest.into(),
            };
            let server = Hostile::start(&setting.image.dir, Arc::new(script));
            let target = setting.target();
            setting.write(&server.url(), &target).limit(200).done().ok();
            setting.arrived(&target);
        }
    }
}

#[test]
fn a_status_that_means_nothing_here_is_an_error() {
    let mut cases = Vec::new();
    for text in
        ["204 No Content", "205 Reset Content", "300 Multiple Choices", "304 Not Modified", "101 Switching Protocols"]
    {
        for part in [Index, Envelope, Data] {
            let twist = move |_| Answer::new(text, "").without("Content-Length").header("Upgrade", "h2c");
            cases.push(Case::always(text, part, twist).says(&format!("answers {text}")));
        }
    }
    for odd in ["999 Whatever", "600 Whatever"] {
        cases.push(Case::always(odd, Index, status(odd)).says(&format!("answers {}", &odd[..3])));
    }
    cases.push(
        Case::always("206 although nothing was asked for", Index, |honest| honest.status("206 Partial Content"))
            .says("answers 206"),
    );
    Setting::new().hold(cases);
}

#[test]
fn interim_answers_are_skipped_but_not_for_ever() {
    let before = |interim: &'static str, times: usize| {
        move |honest: Answer| vec![Step::Send(interim.repeat(times).into_bytes()), Step::Send(honest.bytes())]
    };
    let flood = |interim: &'static str| move |_| vec![Step::ForEver(interim.repeat(100).into_bytes())];
    const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n";
    Setting::new().hold(vec![
        Case::always("100 first", Index, before(CONTINUE, 1)).arrives(),
        Case::always("103 first, a hundred times", Data, before(HINTS, 100)).arrives(),
        Case::always("100 for ever", Index, flood(CONTINUE)).stalls().says("not done in 1 s"),
        Case::once("103 for ever", Data, flood(HINTS)).stalls(),
    ]);
}

/// A head in place of the right one; the body is right.
fn raw_head(head: impl Into<Vec<u8>>) -> impl Fn(Answer) -> Act + Send + Sync + 'static {
    let head = head.into();
    move |honest| vec![Step::Send([head.as_slice(), honest.content()].concat())]
}

#[test]
fn a_head_that_is_no_head_is_refused() {
    let heads: [(&str, Vec<u8>); 12] = [
        ("no status line", b"Content-Length: 5\r\n\r\n".to_vec()),
        ("HTTP/0.9: a body and no head", Vec::new()),
        ("an empty line and garbage", b"\r\n\r\n\x01\x02\x03\r\n\r\n".to_vec()),
        ("another protocol", b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()),
        ("shoutcast", b"ICY 200 OK\r\n\r\n".to_vec()),
        ("HTTP/9.9", b"HTTP/9.9 200 OK\r\n\r\n".to_vec()),
        ("HTTP/2.0", b"HTTP/2.0 200 OK\r\n\r\n".to_vec()),
        ("a status of four digits", b"HTTP/1.1 2000 OK\r\n\r\n".to_vec()),
        ("no status", b"HTTP/1.1 OK\r\n\r\n".to_vec()),
        ("a header without a name", b"HTTP/1.1 200 OK\r\n: x\r\n\r\n".to_vec()),
        ("a folded header", b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n".to_vec()),
        ("a space before the colon", b"HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\n".to_vec()),
    ];
    let mut cases = Vec::new();
    for (name, head) in heads {
        let case = Case::always(name, Index, raw_head(head.clone()));
        cases.push(case.says("waiting for an answer").says("hint: what answers there is no proper HTTP server"));
        cases.push(Case::always(name, Data, raw_head(head)).says("waiting for an answer"));
    }
    Setting::new().hold(cases);
}

#[test]
fn a_head_of_any_size_is_bounded() {
    let mut cases = Vec::new();
    for part in [Index, Data] {
        let long = |honest: Answer| honest.header("X-Long", &"x".repeat(1 << 20));
        cases.push(Case::always("a header of 1 MiB", part, long).says("message head is too large"));
        let long_name = |honest: Answer| honest.header(&"x".repeat(1 << 20), "y");
        cases.push(Case::always("a header's name of 1 MiB", part, long_name));
        let many =
            |honest: Answer| (0..100_000).fold(honest, |honest, number| honest.also(&format!("X-{number}"), "y"));
        cases.push(Case::always("100000 headers", part, many).says("message head is too large"));
        let reason = |honest: Answer| honest.status(&format!("200 {}", "x".repeat(1 << 20)));
        cases.push(Case::always("a reason of 1 MiB", part, reason).says("message head is too large"));
        let endless = |_| vec![Step::Send(b"HTTP/1.1 200 OK\r\nX: ".to_vec()), Step::ForEver(vec![b'x'; 4096])];
        cases.push(Case::always("a head without end", part, endless).says("message head is too large"));
    }
    let some =
        |honest: Answer| (0..50).fold(honest, |honest, number| honest.also(&format!("X-{number}"), &"y".repeat(500)));
    cases.push(Case::always("fifty headers", Data, some).arrives());
    Setting::new().hold(cases);
}

/// What a terminal would obey: clear the screen, set the title, go back and overwrite.
const ESCAPES: &str = "\u{1b}[2J\u{1b}]0;owned\u{7}\rerror: all is well\u{8}\u{0}";
/// The same in one byte each (C1), which HTTP allows in values; and writing from right to left.
const LEGAL_ESCAPES: &str = "\u{9b}2J\u{9d}0;owned\u{85}\u{202e}";

#[test]
fn nothing_a_server_says_controls_the_terminal() {
    let json = |text: &str| serde_json::Value::from(text).to_string();
    let two_images = format!(
        r#"{{"schemaVersion":2,"manifests":[{0},{0}]}}"#,
        format_args!(
            r#"{{"digest":"sha256:{}","size":1,"annotations":{{"org.opencontainers.image.ref.name":{}}}}}"#,
            "0".repeat(64),
            json(ESCAPES)
        )
    );
    let strange_key = format!(r#"{{"schemaVersion":2,"manifests":[],{0}:1,{0}:2}}"#, json(ESCAPES));
    let mut cases = vec![
        // `Case` looks at everything that is printed, for every case there is; these are those made for it.
        Case::always("names of images", Index, move |_| Answer::new("200 OK", two_images.as_str()))
            .refused()
            .says("2 images"),
        Case::always("a doubled key", Index, move |_| Answer::new("200 OK", strange_key.as_str())).refused(),
        Case::always("JSON that is none", Index, |_| Answer::new("200 OK", ESCAPES)).refused(),
    ];
    for part in [Index, Data] {
        for text in [ESCAPES, LEGAL_ESCAPES] {
            let reason = move |honest: Answer| honest.status(&format!("404 {text}"));
            cases.push(Case::always("the reason", part, reason));
            for header in ["Content-Range", "Content-Encoding", "Content-Length", "Transfer-Encoding"] {
                cases.push(Case::always(header, part, move |honest| honest.status("206 x").header(header, text)));
            }
            cases.push(Case::always("a redirect", part, move |_| Answer::redirect("302 Found", text)));
            let elsewhere = format!("http://{text}/");
            cases.push(Case::always("a redirect's host", part, move |_| Answer::redirect("302 Found", &elsewhere)));
            cases.push(Case::always("a header's name", part, move |honest| honest.header(text, "x")));
            cases
                .push(Case::always("Retry-After", part, move |_| Answer::new("418 x", "").header("Retry-After", text)));
        }
    }
    Setting::new().hold(cases);
}

/// Answers after `hops` redirects with this status.
fn after_hops(status: &'static str, hops: usize) -> impl Fn(&Request, Answer) -> Act + Send + Sync + 'static {
    move |request, honest| {
        let (path, done) = request.path.split_once("?hop=").unwrap_or((&request.path, "0"));
        let done: usize = done.parse().unwrap();
        match done == hops {
            true => honest.into(),
            false => Answer::redirect(status, &format!("{path}?hop={}", done + 1)).into(),
        }
    }
}

#[test]
fn redirects_are_followed_within_reason() {
    let mut cases = Vec::new();
    for status in ["301 x", "302 x", "303 x", "307 x", "308 x"] {
        cases.push(Case::scripted(status, after_hops(status, 1)));
    }
    cases.push(Case::scripted("five in a row", after_hops("302 x", 5)));
    cases.push(Case::scripted("six in a row", after_hops("302 x", 6)).untouched().says("redirected more than 5 times"));
    for part in [Index, Data] {
        let to = |location: &'static str| move |_| Answer::redirect("302 x", location);
        cases.push(Case::always("to itself", part, to("")).says("redirected more than 5 times"));
        cases.push(Case::always("in a circle", part, to("/elsewhere?")));
        for location in ["file:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/x", "data:,x", "javascript:x"] {
            let case = Case::always(&format!("to {location}"), part, to(location));
            cases.push(case.says("redirected to something that is not HTTP"));
        }
        for location in ["http://", "http://[::1", "http://127.0.0.1:99999/", "//\u{e9}\u{e9}"] {
            cases.push(Case::always(&format!("to {location:?}"), part, to(location)).says("redirected to \""));
        }
        let nowhere = |_| Answer::new("302 x", "");
        cases.push(Case::always("nowhere", part, nowhere).says("redirected without saying where"));
        let far = |_| Answer::redirect("302 x", &format!("file:///{}", "x".repeat(60_000)));
        cases.push(Case::always("to a very long address", part, far).says("redirected to something"));
        let no_name = |_| Answer::redirect("302 x", "https://-.-/");
        cases.push(Case::always("to a name that no certificate has", part, no_name).elsewhere().says("https://-.-"));
    }
    Setting::new().hold(cases);
}

#[test]
fn a_redirect_to_another_server_is_followed() {
    let setting = Setting::new();
    let honest = Hostile::start(&setting.image.dir, Arc::new(|_: &Request, honest: Answer| honest.into()));
    let elsewhere = honest.url();
    let away = move |request: &Request, _: Answer| -> Act {
        Answer::redirect("307 x", &format!("{elsewhere}{}", &request.path[1..])).into()
    };
    let redirecting = Hostile::start(&setting.image.dir, Arc::new(away));
    let target = setting.target();
    setting.write(&redirecting.url(), &target).done().ok();
    setting.arrived(&target);
    assert!(honest.asked().iter().any(|request| request.part == Data));
}
