use std::net::TcpListener;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use envelope::{Role, SecretKey};
use imgstream::digest::Digest;
use imgstream::error::Kind;
use protocol::control::agent::{Lease as Renewed, Orders, Terms};
use protocol::control::{Code, Problem};
use serde_json::json;
use tempfile::TempDir;

use super::super::testing::{Heard, Reply, Service, dial, good, problem, run_id, token, told};
use super::*;
use crate::report::{Human, Screen};

const SECONDS: u64 = 4;

/// Files on the agent's side, and the service's ticket key.
struct Site {
    dir: TempDir,
    key: Arc<SecretKey>,
    anchor: SecretKey,
}

impl Site {
    fn new() -> Self {
        let site = Site {
            dir: tempfile::tempdir().unwrap(),
            key: Arc::new(SecretKey::generate().unwrap()),
            anchor: SecretKey::generate().unwrap(),
        };
        site.write("ticket.pub", &site.key.public().to_pem());
        site.write("image.pub", &site.anchor.public().to_pem());
        site.write("token", &format!("{}\n", "e".repeat(43)));
        site
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn options(&self, url: &str) -> Options {
        Options {
            url: url.into(),
            ca: None,
            token: self.dir.path().join("token"),
            ticket_keys: vec![self.dir.path().join("ticket.pub")],
            run: None,
            server: None,
            enrol_within: Duration::from_secs(5),
            source: SourceOptions::default(),
            named: Named::OPTIONS,
        }
    }

    fn files(&self) -> Files {
        Files { anchors: vec![self.dir.path().join("image.pub")], ..Files::default() }
    }

    /// A service that enrols with this spec's source, and leaves all else to `reply`.
    fn service(&self, source: &str, mut reply: impl FnMut(&Heard) -> Reply + Send + 'static) -> Service {
        let (key, anchor, source) = (Arc::clone(&self.key), self.anchor.public().id().to_string(), source.to_owned());
        let target = self.write("target", "old");
        Service::start(move |_, heard| {
            if heard.path != "/v1/agent/enrol" {
                return reply(heard);
            }
            let spec = json!({
                "run": "r-1", "epoch": 1, "ipsec": "not-required",
                "image": {"name": "debian", "sources": [source], "trust": [anchor]},
                "target": {"device": target},
            });
            good(&enrolled(&spec.to_string(), &heard.body, &key))
        })
    }
}

fn enrolled(spec: &str, asked: &serde_json::Value, key: &SecretKey) -> Enrolled {
    let client_key = URL_SAFE_NO_PAD.decode(asked["client_key"].as_str().unwrap()).unwrap();
    let now = seconds_since_1970().unwrap();
    let ticket = json!({
        "version": 1, "run": "r-1", "epoch": 1, "server": "s-1", "spec": Digest::of(spec.as_bytes()).to_string(),
        "not_before": now, "expires": now + 60, "nonce": asked["nonce"],
        "client_key": Digest::of(&client_key).to_string(),
    });
    let ticket = envelope::sign(Role::Ticket, ticket.to_string().as_bytes(), key);
    let lease = Terms { seconds: SECONDS, renew_after: 1 };
    let ticket = String::from_utf8(ticket).unwrap();
    Enrolled {
        run: run_id("r-1"),
        attempt: 1,
        session: token("s"),
        lease,
        spec: spec.into(),
        ticket,
        certificate: String::new(),
    }
}

fn orders(heard: &Heard) -> Orders {
    let last = heard.body["events"].as_array().and_then(|events| events.last());
    let next = last.map_or(0, |event| event["index"].as_u64().unwrap() + 1);
    Orders { next, cancel: false, progress_every: None }
}

fn as_it_should(heard: &Heard) -> Reply {
    if heard.path.ends_with("/lease") {
        let lease = Terms { seconds: SECONDS, renew_after: 1 };
        return good(&Renewed { lease, orders: orders(heard), certificate: None });
    }
    good(&orders(heard))
}

async fn begin(options: &Options) -> Result<Session> {
    Session::begin(options, &|_| (), &CancellationToken::new()).await
}

async fn run(session: &Session, files: &Files, within: u64) -> Ended {
    let outputs = vec![session.output(), Box::new(Human::new(Screen::new(false), false)) as Box<dyn Output>];
    let reporter = Arc::new(Reporter::new(session.spec().run.clone(), session.spec().epoch, outputs));
    let within = Duration::from_secs(within);
    session.run_to_end(files, None, &reporter, within, &|_| (), &CancellationToken::new()).await
}

fn failure(ended: &Ended) -> &protocol::event::Failure {
    let Body::RunFailed(failure) = &ended.last else { panic!("{ended:?}") };
    failure
}

/// A source that takes connections and says nothing.
fn silent_source() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    (listener, url)
}

#[tokio::test]
async fn a_run_that_fails_is_told_to_its_end() {
    let site = Site::new();
    let service = site.service("/no/such/image", as_it_should);
    let session = begin(&site.options(&service.url)).await.unwrap();
    assert_eq!(session.spec().run.as_str(), "r-1");
    let ended = run(&session, &site.files(), 10).await;
    ended.told.unwrap();
    let heard = service.heard();
    let events: Vec<_> = heard.iter().filter_map(|heard| heard.body["events"].as_array()).flatten().collect();
    assert!(events.len() >= 3, "{events:?}");
    assert_eq!(events[0]["event"]["kind"], "run-started");
    assert_eq!(events.last().unwrap()["event"]["kind"], "run-failed");
    assert!(heard[1..].iter().all(|heard| heard.authorization.as_ref().unwrap().contains(&"s".repeat(43))));
}

#[tokio::test]
async fn a_run_that_loses_its_lease_in_any_phase_ends_as_that() {
    let (site, (_listener, source)) = (Site::new(), silent_source());
    let service = site.service(&source, |heard| {
        if heard.path.ends_with("/lease") { problem(Code::Unavailable) } else { as_it_should(heard) }
    });
    let session = begin(&site.options(&service.url)).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(8), run(&session, &site.files(), 10)).await.unwrap();
    let failed = failure(&ended);
    assert!(failed.message.starts_with("the lease of attempt 1 of run r-1 is over: "), "{failed:?}");
    assert!(failed.exit_code == 4 && failed.retryable && failed.phase == protocol::event::Phase::Image, "{failed:?}");
    ended.told.unwrap();
    assert_eq!(std::fs::read(site.dir.path().join("target")).unwrap(), b"old");
}

#[tokio::test]
async fn an_attempt_that_is_over_in_the_middle_ends_and_nobody_wants_to_hear_of_it() {
    for code in [Code::AttemptOver, Code::Revoked] {
        let (site, (_listener, source)) = (Site::new(), silent_source());
        let service = site.service(&source, move |_| told(&Problem::new(code.clone(), "attempt 2 has begun")));
        let session = begin(&site.options(&service.url)).await.unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(8), run(&session, &site.files(), 60)).await.unwrap();
        assert!(failure(&ended).message.contains("attempt 2 has begun"), "{ended:?}");
        let error = ended.told.unwrap_err();
        assert!(error.to_string().contains("does not want it") && error.retry() == Retry::Permanent, "{error}");
    }
}

#[tokio::test]
async fn a_run_that_the_service_cancels_ends_as_cancelled() {
    let (site, (_listener, source)) = (Site::new(), silent_source());
    let service = site.service(&source, |heard| good(&Orders { cancel: true, ..orders(heard) }));
    let session = begin(&site.options(&service.url)).await.unwrap();
    let ended = tokio::time::timeout(Duration::from_secs(8), run(&session, &site.files(), 10)).await.unwrap();
    assert_eq!(failure(&ended).exit_code, 8);
    ended.told.unwrap();
}

#[tokio::test]
async fn an_end_that_is_not_accepted_is_waited_for_no_longer_than_that() {
    let site = Site::new();
    let service = site.service("/no/such/image", |_| problem(Code::Unavailable));
    let session = begin(&site.options(&service.url)).await.unwrap();
    let error = run(&session, &site.files(), 2).await.told.unwrap_err();
    assert!(error.to_string().contains("has not accepted the end of the run within 2 s: "), "{error}");
    assert!(error.to_string().contains("(unavailable)") && error.retry() == Retry::Temporary, "{error}");
}

#[tokio::test]
async fn keys_that_this_agent_does_not_know_are_not_trusted_for_it() {
    let (site, other) = (Site::new(), Site::new());
    let service = site.service("/no/such/image", as_it_should);
    let session = begin(&site.options(&service.url)).await.unwrap();
    let ended = run(&session, &other.files(), 10).await;
    let id = site.anchor.public().id().to_string();
    assert!(failure(&ended).exit_code == 2 && failure(&ended).message.contains(&id), "{ended:?}");
    let error = begin(&Options { ticket_keys: other.options("").ticket_keys, ..site.options(&service.url) }).await;
    let error = error.err().unwrap();
    assert!(error.kind() == Kind::Target && error.hint().unwrap().contains("--ticket-key"), "{error}");
}

#[tokio::test]
async fn a_token_is_read_as_one_line_and_never_shown() {
    let site = Site::new();
    for text in ["e".repeat(43) + "\r\n", "e".repeat(43)] {
        assert_eq!(read_token(&site.write("t", &text), "--token").unwrap().reveal(), "e".repeat(43));
    }
    for text in ["s3cret".to_owned(), "s3cret".repeat(99), "e".repeat(43) + "\n\n", String::new()] {
        let error = read_token(&site.write("t", &text), "--token").unwrap_err();
        assert!(error.kind() == Kind::Usage && !error.to_string().contains("s3cret"), "{error}");
    }
}

/// A server with this certificate, that answers one request.
fn tls_server(config: tokio_rustls::rustls::ServerConfig, body: String) -> u16 {
    use std::io::{Read, Write};
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = tokio_rustls::rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = tokio_rustls::rustls::StreamOwned::new(connection, stream.unwrap());
            let mut bytes = [0; 4096];
            if stream.read(&mut bytes).is_ok_and(|read| read > 0) {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes());
            }
        }
    });
    port
}

#[tokio::test]
async fn only_the_given_authority_and_the_right_name_count() {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    use tokio_rustls::rustls::ServerConfig;
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    let authority = || {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        (Issuer::new(params, key), pem)
    };
    let ((issuer, pem), (_, stranger)) = (authority(), authority());
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap().signed_by(&key, &issuer).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key).unwrap();
    let port = tls_server(config, json!({"next": 7}).to_string());

    let ask = async |host: &str, ca: Option<&str>| {
        let address = Address::of_service(&format!("https://{host}:{port}")).unwrap();
        let client = Client::new(address, ca.map(str::as_bytes), dial())?;
        let answer = client.post::<Orders>("/x", &token("s"), &json!({}), 1000).await;
        answer.map(|orders| orders.next).map_err(super::super::trouble::Trouble::into_error)
    };
    assert_eq!(ask("127.0.0.1", Some(&pem)).await.unwrap(), 7);
    for (host, ca) in [("127.0.0.1", &stranger), ("localhost", &pem)] {
        let error = ask(host, Some(ca)).await.unwrap_err();
        assert!(error.retry() != Retry::Temporary && error.hint().unwrap().contains("--orchestrator-ca"), "{error}");
    }
    assert_eq!(ask("127.0.0.1", None).await.unwrap_err().kind(), Kind::Usage);
    assert_eq!(ask("127.0.0.1", Some("no PEM")).await.unwrap_err().kind(), Kind::Usage);
}
