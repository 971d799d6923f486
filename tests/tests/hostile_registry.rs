//! Registries and token servers that lie, go in circles, or want credentials that are not theirs.

use std::sync::Arc;

use e2e::exit;
use e2e::hostile::Part::{self, Data, Envelope, Index, Manifest};
use e2e::hostile::{Act, Answer, Case, Hostile, Request, Setting, Step, readable};
use e2e::server::registry_auth;
use serde_json::json;

const LOGIN: &str = "Basic bWU6c2VjcmV0";

fn challenge(says: &str) -> Answer {
    Answer::new("401 Unauthorized", "").header("WWW-Authenticate", says)
}

/// A registry that always wants a token, from `realm`.
fn wants_token(realm: &str) -> Case {
    let says = format!("Bearer realm=\"{realm}\",service=\"s\"");
    Case::scripted(realm, move |_, _| challenge(&says).into()).registry().untouched()
}

/// A registry that is its own token server, whose token requests are answered by `gives`. It lets `Bearer good` in.
fn token_server(name: &str, gives: impl Fn(&Request) -> Act + Send + Sync + 'static) -> Case {
    Case::scripted(name, with_tokens(gives)).registry().untouched()
}

fn with_tokens(
    gives: impl Fn(&Request) -> Act + Send + Sync + 'static,
) -> impl Fn(&Request, Answer) -> Act + Send + Sync + 'static {
    move |request, honest| {
        let host = request.header("host").unwrap_or_default();
        match request.header("authorization") {
            _ if request.path.starts_with("/token") => gives(request),
            Some("Bearer good") => honest.into(),
            _ => challenge(&format!("Bearer realm=\"http://{host}/token\"")).into(),
        }
    }
}

fn token(text: &str) -> Act {
    Answer::new("200 OK", json!({"token": text}).to_string()).into()
}

#[test]
fn a_registry_that_answers_rightly_is_written_from() {
    Setting::new().hold(vec![
        Case::scripted("open", |_, honest| honest.into()).registry(),
        token_server("with tokens", |_| token("good")).arrives(),
        token_server("with tokens that run out", |request| token(if request.nth == 1 { "bad" } else { "good" }))
            .arrives(),
    ]);
}

#[test]
fn what_a_registry_says_of_a_digest_is_not_believed() {
    let other = |honest: Answer| honest.header("Docker-Content-Digest", &format!("sha256:{}", "0".repeat(64)));
    Setting::new().hold(vec![
        // What comes is checked by what was signed; what is said about it does not matter.
        Case::always("a Docker-Content-Digest that lies", Manifest, other).registry().arrives(),
        Case::always("and on blobs", Data, other).registry().arrives(),
        Case::always("a Docker-Content-Digest that is none", Manifest, |honest| {
            honest.header("Docker-Content-Digest", "\u{9b}31m")
        })
        .registry()
        .arrives(),
        Case::always("a flipped bit", Data, |honest| honest.twisted(|body| body[9] ^= 1))
            .registry()
            .says("came corrupted"),
        Case::always("a flipped bit", Envelope, |honest| honest.twisted(|body| body[9] ^= 1)).registry().says("digest"),
        Case::always("an endless manifest", Manifest, |honest| {
            honest.without("Content-Length").then([Step::ForEver(vec![b' '; 0x10000])])
        })
        .registry()
        .says("sends more than"),
        Case::always("404", Manifest, |_| Answer::new("404 Not Found", "")).registry().says("answers 404"),
        Case::once("503", Manifest, |_| Answer::new("503 x", "")).registry(),
        Case::once("a reset", Data, |_| vec![Step::Reset]).registry(),
        Case::always("no ranges", Data, Answer::whole).registry().says("ignores ranges"),
    ]);
}

#[test]
fn a_manifest_by_digest_with_other_content_is_refused() {
    let setting = Setting::new();
    let digest = setting.image.layout().index()["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let changed = |request: &Request, honest: Answer| match request.part {
        Manifest => {
            let other = [honest.content(), b" "].concat();
            honest.header("Docker-Content-Digest", request.path.rsplit('/').next().unwrap()).body(other).into()
        }
        _ => honest.into(),
    };
    let server = Hostile::start(&setting.image.dir, Arc::new(changed));
    let target = setting.target();
    let from = format!("oci+http://{}/sample@{digest}", server.authority());
    let done = setting.write(&from, &target).done().exits(exit::SOURCE);
    readable(&done.says("sends another manifest").says(&server.authority()));
    target.is_untouched();
}

#[test]
fn a_manifest_list_that_leads_nowhere_ends() {
    const LIST: &str = "application/vnd.oci.image.index.v1+json";
    let list = |digest: &str| {
        let entry = json!({"mediaType": LIST, "digest": digest, "size": 100});
        json!({"schemaVersion": 2, "mediaType": LIST, "manifests": [entry]}).to_string()
    };
    let zeros = format!("sha256:{}", "0".repeat(64));
    let itself = list(&zeros);
    // A list that names a list, with the right digest: one level is followed, and a list is no image.
    let setting = Setting::new();
    let inner = itself.clone();
    let inner_digest = format!("sha256:{}", e2e::layout::sha256(&setting.lab.file("list", inner.as_bytes())));
    let outer = list(&inner_digest);
    let nested = move |request: &Request, honest: Answer| -> Act {
        match request.path.rsplit('/').next() {
            Some("7") => Answer::new("200 OK", outer.as_str()).into(),
            Some(name) if name == inner_digest => Answer::new("200 OK", inner.as_str()).into(),
            _ => honest.into(),
        }
    };
    let to_itself = move |request: &Request, honest: Answer| -> Act {
        if request.path.contains("/manifests/") { Answer::new("200 OK", itself.as_str()).into() } else { honest.into() }
    };
    setting.hold(vec![
        Case::scripted("a list that names itself", to_itself).registry().untouched().says("sends another manifest"),
        Case::scripted("a list of lists", nested).registry().refused(),
    ]);
}

#[test]
fn a_registry_that_is_never_content_is_left() {
    let mut cases = vec![
        Case::scripted("401 without saying why", |_, _| Answer::new("401 x", "").into()).registry().untouched(),
        token_server("tokens that are not taken", |_| token("bad")),
        Case::scripted("Basic, which we have no password for", |_, _| challenge("Basic realm=\"x\"").into())
            .registry()
            .untouched(),
    ];
    for text in ["lorem ipsum", "", ",,,,", "Digest realm=\"x\"", "Negotiate", "\u{9b}31m"] {
        cases.push(Case::scripted(text, move |_, _| challenge(text).into()).registry().untouched());
    }
    cases = cases.into_iter().map(|case| case.says("answers 401 Unauthorized").says("--registry-auth")).collect();
    for text in
        ["Bearer", "Bearer ", "Bearer realm", "Bearer realm=\"", "Bearer ====", "Bearer x=\"y\",realm=", "bearer \"\""]
    {
        let case = Case::scripted(text, move |_, _| challenge(text).into()).registry().untouched();
        cases.push(case.says("names a token server that is no HTTP address"));
    }
    let setting = Setting::new();
    setting.hold(cases);
    // No loop: the request, the token, the request again.
    let server = Hostile::start(&setting.image.dir, Arc::new(with_tokens(|_| token("bad"))));
    setting.write(&server.reference(), &setting.target()).done().exits(exit::SOURCE);
    assert_eq!(server.asked().len(), 3, "{:?}", server.asked());
}

#[test]
fn a_token_server_is_an_http_address() {
    let realms = ["file:///etc/passwd", "ftp://127.0.0.1/token", "gopher://127.0.0.1/", "data:,x", "/token", "http://"];
    let cases = realms.map(|realm| wants_token(realm).says("names a token server that is no HTTP address"));
    Setting::new().hold(cases.into());
}

#[test]
fn a_token_server_that_makes_no_sense_is_refused() {
    let answer = |status: &'static str, body: &'static str| move |_: &Request| Answer::new(status, body).into();
    let mut cases = vec![
        token_server("a circle", |_| Answer::redirect("302 x", "/token").into()).says("redirected more than 5 times"),
        token_server("a challenge for the token", |_| challenge("Bearer realm=\"http://127.0.0.1/\"").into())
            .says("answers 401"),
        token_server("404", answer("404 Not Found", "")).says("answers 404"),
        token_server("503", answer("503 x", "")).says("answers 503"),
        token_server("an enormous token", |_| token(&"x".repeat(1 << 20))).says("sends more than the 65536 bytes"),
        token_server("an endless token", |_| {
            vec![Step::Send(b"HTTP/1.1 200 OK\r\n\r\n{\"token\":\"".to_vec()), Step::ForEver(vec![b'x'; 4096])]
        })
        .says("sends more than the 65536 bytes"),
        token_server("a token as large as may be", |_| token(&"x".repeat(60_000))).says("answers 401"),
        token_server("a token that drips", |_| {
            let head = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
            vec![Step::Send(head), Step::Drip(vec![b'x'; 1000], std::time::Duration::from_millis(200))]
        })
        .stalls()
        .says("the body stalled"),
    ];
    let bodies = [
        "lorem ipsum",
        "",
        "{}",
        "[]",
        "{\"token\":\"\"}",
        "{\"token\":7}",
        "{\"token\":\"a\\r\\nHost: elsewhere\"}",
        "{\"token\":\"\\u001b[2J\"}",
    ];
    for body in bodies {
        cases.push(token_server(body, answer("200 OK", body)).says("sends no token"));
    }
    cases.push(
        token_server("503 once", |request| match request.nth {
            0 => token("good"),
            1 => Answer::new("503 x", "").into(),
            _ => token("good"),
        })
        .arrives(),
    );
    Setting::new().hold(cases);
}

/// The values of a header that a server has seen, one per request.
fn authorizations(server: &Hostile) -> Vec<String> {
    server.asked().iter().filter_map(|request| request.header("authorization")).map(str::to_owned).collect()
}

#[test]
fn credentials_do_not_travel_along_a_redirect() {
    let setting = Setting::new();
    let elsewhere = Hostile::start(&setting.image.dir, Arc::new(|_: &Request, honest: Answer| honest.into()));
    let away = elsewhere.url();
    let registry = Hostile::start(
        &setting.image.dir,
        Arc::new(move |request: &Request, honest: Answer| -> Act {
            match (request.header("authorization"), request.part) {
                (None, _) => challenge("Basic realm=\"x\"").into(),
                (Some(_), Data) => Answer::redirect("307 x", &format!("{away}{}", &request.path[1..])).into(),
                _ => honest.into(),
            }
        }),
    );
    let auth = registry_auth(&setting.lab, &registry.authority(), "me", "secret");
    let target = setting.target();
    setting.write(&registry.reference(), &target).arg("--registry-auth").arg(&auth).done().ok();
    setting.arrived(&target);
    assert!(authorizations(&registry).iter().all(|value| value == LOGIN) && !authorizations(&registry).is_empty());
    assert!(!elsewhere.asked().is_empty());
    assert_eq!(authorizations(&elsewhere), Vec::<String>::new());
}

#[test]
fn credentials_are_not_given_to_whoever_asks_after_a_redirect() {
    let setting = Setting::new();
    let greedy = Hostile::start(&setting.image.dir, Arc::new(|_: &Request, _| challenge("Basic realm=\"x\"").into()));
    let away = greedy.url();
    let redirecting = move |_: &Request, _: Answer| -> Act { Answer::redirect("307 x", &away).into() };
    let registry = Hostile::start(&setting.image.dir, Arc::new(redirecting));
    let auth = registry_auth(&setting.lab, &registry.authority(), "me", "secret");
    let target = setting.target();
    let write = setting.write(&registry.reference(), &target).arg("--registry-auth").arg(&auth).arg("-vvv");
    let done = write.done().exits(exit::SOURCE).says("answers 401").says(&greedy.authority());
    assert!(!done.stderr.contains("secret") && !done.stderr.contains(&LOGIN[6..]), "{}", done.stderr);
    assert_eq!(authorizations(&greedy), Vec::<String>::new());
    target.is_untouched();
}

#[test]
fn a_token_server_elsewhere_gets_the_login_and_gives_it_to_nobody() {
    let setting = Setting::new();
    let beyond = Hostile::start(&setting.image.dir, Arc::new(|_: &Request, _| token("good")));
    let further = beyond.url();
    let tokens = Hostile::start(
        &setting.image.dir,
        Arc::new(move |_: &Request, _| Answer::redirect("307 x", &format!("{further}token")).into()),
    );
    let says = format!("Bearer realm=\"{}token\"", tokens.url());
    let registry = Hostile::start(
        &setting.image.dir,
        Arc::new(move |request: &Request, honest: Answer| match request.header("authorization") {
            Some("Bearer good") => honest.into(),
            _ => challenge(&says).into(),
        }),
    );
    let auth = registry_auth(&setting.lab, &registry.authority(), "me", "secret");
    let target = setting.target();
    setting.write(&registry.reference(), &target).arg("--registry-auth").arg(&auth).done().ok();
    setting.arrived(&target);
    assert!(authorizations(&tokens).iter().all(|value| value == LOGIN) && !authorizations(&tokens).is_empty());
    assert_eq!(authorizations(&beyond), Vec::<String>::new(), "the login went along a redirect");
    assert!(authorizations(&registry).iter().all(|value| value == "Bearer good"), "the login went to the registry");
    assert!(!registry.asked().iter().any(|request| request.part == Index), "a registry has no index.json");
    assert!(registry.asked().iter().any(|request| request.part != Part::Other));
}
