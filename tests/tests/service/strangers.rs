//! Whoever is not who he says, over real TLS against the real service: each is refused, and told why.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::tls::{Client, Said};
use e2e::{Lab, Run, Service};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    PublicKeyData, SanType,
};
use serde_json::{Value, json};

type Authority = Issuer<'static, KeyPair>;

/// An authority that the service does not know, and its certificate.
fn stranger() -> (Authority, String) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "somebody else");
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (Issuer::new(params, key), pem)
}

/// The service's own authority, in hands that issue what it never would.
fn own(service: &Service) -> Authority {
    let pem = std::fs::read_to_string(service.dir().join("ca.key")).unwrap();
    let name = Run::tool("openssl").words("x509 -noout -subject -nameopt multiline -in");
    let name = name.arg(service.dir().join("ca.pem")).text();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name.split("= ").last().unwrap().trim());
    Issuer::new(params, KeyPair::from_pem(&pem).unwrap())
}

/// A client certificate with these names, and its key.
fn client(lab: &Lab, name: &str, by: &Authority, dns: &[&str], uri: &str, days: i64) -> (PathBuf, PathBuf) {
    let mut params = CertificateParams::new(dns.iter().map(|&name| name.to_owned()).collect::<Vec<_>>()).unwrap();
    params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap()));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let until = std::time::SystemTime::now();
    let day = std::time::Duration::from_secs(86_400);
    let until = if days < 0 { until - day } else { until + day };
    params.not_after = until.into();
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, by).unwrap().pem();
    let files = (lab.path(&format!("{name}.pem")), lab.path(&format!("{name}.key")));
    std::fs::write(&files.0, certificate).unwrap();
    std::fs::write(&files.1, key.serialize_pem()).unwrap();
    files
}

/// What `z-orchestrator certificate` issues, and its fingerprint.
pub(super) fn issued(lab: &Lab, service: &Service, name: &str, role: &str) -> ((PathBuf, PathBuf), String) {
    let prefix = lab.path(name);
    let issuing = Run::orchestrator().arg("certificate").arg(name).arg("--role").arg(role);
    let fingerprint = issuing.arg("--out").arg(&prefix).arg("--data").arg(service.dir()).text();
    ((prefix.with_extension("pem"), prefix.with_extension("key")), fingerprint.trim().to_owned())
}

pub(super) fn shown(service: &Service, (certificate, key): &(PathBuf, PathBuf)) -> Client {
    Client::new(service.url(), &service.dir().join("ca.pem")).showing(certificate, key)
}

pub(super) fn nobody(service: &Service) -> Client {
    Client::new(service.url(), &service.dir().join("ca.pem"))
}

pub(super) fn token(service: &Service, file: &str) -> String {
    std::fs::read_to_string(service.dir().join(file)).unwrap().trim().to_owned()
}

#[track_caller]
fn refused(said: &Said, status: u16, code: &str, says: &str) {
    let problem = said.json();
    assert_eq!((said.status, problem["code"].as_str()), (status, Some(code)), "{said:?}");
    assert!(problem.to_string().contains(says), "{problem} does not say {says:?}");
}

#[test]
fn a_certificate_that_is_not_good_ends_the_handshake() {
    let lab = Lab::new();
    let service = Service::new(&lab, json!({}));
    let role = "urn:z-orchestrator:role:operator:eve";
    let (other, own) = (stranger().0, own(&service));
    let server = (service.dir().join("server.pem"), service.dir().join("server.key"));
    for (what, files) in [
        ("another authority's", client(&lab, "other", &other, &[], role, 1)),
        ("an expired one", client(&lab, "old", &own, &[], role, -1)),
        ("a server's", server),
    ] {
        let error = shown(&service, &files).get("/v1/runs").err().unwrap_or_else(|| panic!("{what} was taken"));
        assert!(error.contains("alert"), "{what}: {error}");
    }
    // Who shows none may speak, and must bring something else.
    refused(&nobody(&service).get("/v1/runs").unwrap(), 401, "unauthorized", "Authorization");
    let good = client(&lab, "good", &own, &[], role, 1);
    assert_eq!(shown(&service, &good).get("/v1/runs").unwrap().status, 200);
}

#[test]
fn a_person_is_who_the_certificate_says_until_it_is_revoked() {
    let lab = Lab::new();
    let service = Service::new(&lab, json!({}));
    let ((pem, key), fingerprint) = issued(&lab, &service, "ada", "operator");
    assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    let again = Run::orchestrator().words("certificate ada --role viewer --out").arg(lab.path("ada"));
    again.arg("--data").arg(service.dir()).done().exits(6).says("nothing is overwritten");
    let ada = shown(&service, &(pem.clone(), key.clone()));
    assert_eq!(ada.get("/v1/session").unwrap().json(), json!({"role": "operator", "name": "ada"}));
    let list = || {
        let list = Run::orchestrator().words("run list --url").arg(service.url()).arg("--ca");
        let list = list.arg(service.dir().join("ca.pem"));
        list.arg("--certificate").arg(&pem).arg("--certificate-key").arg(&key).done()
    };
    list().ok();
    let begun = ada.post("/v1/session", None, &[], "{}").unwrap();
    let cookie = begun.cookie();
    let seen = || nobody(&service).send("GET", "/v1/session", &[("cookie", &cookie)], "").unwrap();
    assert_eq!(seen().json()["name"], "ada");
    // A page of another site makes browsers show certificates too.
    let cross = ada.post("/v1/runs/r-1/cancel", None, &[("origin", "https://evil.example")], "").unwrap();
    refused(&cross, 403, "forbidden", "not for a page of this service");
    refused(&ada.post("/v1/runs/r-1/cancel", None, &[], "").unwrap(), 404, "not-found", "r-1");

    // A stream of events that she has opened.
    let run = service.create(&lab, &order("s1"));
    let mut stream = ada.begin("GET", &format!("/v1/runs/{run}/events"), &[], "").unwrap();
    let mut heard = String::new();
    while !heard.contains("event: state") {
        let mut piece = [0; 1024];
        let read = stream.read(&mut piece).unwrap();
        assert!(read > 0, "{heard}");
        heard += &String::from_utf8_lossy(&piece[..read]);
    }

    std::fs::write(service.dir().join("revoked"), format!("{fingerprint} # ada has left\n")).unwrap();
    refused(&ada.get("/v1/runs").unwrap(), 401, "unauthorized", "the certificate of ada was revoked");
    list().exits(4).says("was revoked");
    // It ends with the next thing that happens, which she is not told.
    service.client("cancel --reason secret").arg(&run).done().ok();
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("secret"), "{rest}");
    refused(&seen(), 401, "unauthorized", "the session is over");
    // What was revoked cannot be known: nobody comes in by certificate.
    std::fs::write(service.dir().join("revoked"), "ada\n").unwrap();
    refused(&ada.get("/v1/runs").unwrap(), 503, "unavailable", "revoked");
    std::fs::remove_file(service.dir().join("revoked")).unwrap();
    assert_eq!(ada.get("/v1/runs").unwrap().status, 200);
}

#[test]
fn what_another_authority_writes_into_a_certificate_gives_no_role() {
    let lab = Lab::new();
    let (other, pem) = stranger();
    let file = lab.file("other-ca.pem", pem.as_bytes());
    let clients = json!({"authority": file, "operators": ["ci.example.com"], "viewers": ["spiffe://example.com/wall"]});
    let service = Service::new(&lab, json!({"clients": clients}));
    let role = "urn:z-orchestrator:role:operator:eve";
    for (dns, uri, who) in [
        (&["ci.example.com"][..], role, Some(("operator", "ci.example.com"))),
        (&[], "spiffe://example.com/wall", Some(("viewer", "spiffe://example.com/wall"))),
        (&["www.ci.example.com"], role, None),
    ] {
        let known = shown(&service, &client(&lab, "theirs", &other, dns, uri, 1)).get("/v1/session").unwrap();
        match who {
            Some((role, name)) => assert_eq!(known.json(), json!({"role": role, "name": name})),
            None => refused(&known, 401, "unauthorized", "Authorization"),
        }
    }
}

#[test]
fn a_viewer_cancels_nothing_whatever_it_shows() {
    let lab = Lab::new();
    let service = Service::new(&lab, json!({}));
    let run = service.create(&lab, &order("s1"));
    let cancel = format!("/v1/runs/{run}/cancel");
    let (viewer, ours) = (token(&service, "viewer.token"), ("sec-fetch-site", "same-origin"));
    let (files, _) = issued(&lab, &service, "wall", "viewer");
    let wall = shown(&service, &files);
    assert_eq!(wall.get("/v1/runs").unwrap().status, 200);
    refused(&wall.post(&cancel, None, &[], "").unwrap(), 403, "forbidden", "wall is a viewer's");
    let nobody = nobody(&service);
    refused(&nobody.post(&cancel, Some(&viewer), &[], "").unwrap(), 403, "forbidden", "viewer token is a viewer's");
    let cookie = nobody.post("/v1/session", Some(&viewer), &[], "").unwrap().cookie();
    refused(&nobody.post(&cancel, None, &[("cookie", &cookie), ours], "").unwrap(), 403, "forbidden", "a viewer's");
    // An operator's cookie from another site does nothing either; from here it does.
    let operator = token(&service, "operator.token");
    let cookie = nobody.post("/v1/session", Some(&operator), &[], "").unwrap().cookie();
    let theirs = [("cookie", cookie.as_str()), ("sec-fetch-site", "cross-site"), ("origin", "https://evil.example")];
    refused(&nobody.post(&cancel, None, &theirs, "").unwrap(), 403, "forbidden", "not for a page of this service");
    assert_eq!(service.show(&run)["state"], "launching");
    let here = nobody.post(&cancel, None, &[("cookie", &cookie), ("origin", service.url())], "").unwrap();
    assert_eq!((here.status, here.json()["state"].as_str()), (200, Some("cancelled")), "{here:?}");
}

/// A run whose agent this test plays.
pub(super) fn order(server: &str) -> Value {
    json!({
        "server": server,
        "launcher": "external",
        "image": {"name": "sample", "sources": ["/nowhere"], "trust": ["a".repeat(64)]},
        "target": {"device": format!("/dev/{server}")},
    })
}

/// An agent that has enrolled: what it said and was answered, and what it shows.
pub(super) struct Agent {
    pub(super) run: String,
    pub(super) token: String,
    enrol: String,
    pub(super) answer: Value,
    pub(super) client: Client,
}

impl Agent {
    fn enrol(lab: &Lab, service: &Service, server: &str) -> Agent {
        Self::enrol_for(lab, service, server, &order(server))
    }

    /// With this order, which must be an external one. Its files are named by the server.
    pub(super) fn enrol_for(lab: &Lab, service: &Service, server: &str, order: &Value) -> Agent {
        let (run, file, key) =
            (service.create(lab, order), lab.path(&format!("{server}.token")), KeyPair::generate().unwrap());
        service.until(&run, &["launching"], 10);
        service.client("token --out").arg(&file).arg(&run).done().ok();
        let token = std::fs::read_to_string(&file).unwrap().trim().to_owned();
        let spki = URL_SAFE_NO_PAD.encode(key.subject_public_key_info());
        let enrol = json!({"nonce": "n".repeat(43), "client_key": spki, "agent": "a test"}).to_string();
        let enrolled = nobody(service).post("/v1/agent/enrol", Some(&token), &[], &enrol).unwrap();
        assert_eq!(enrolled.status, 201, "{enrolled:?}");
        let answer = enrolled.json();
        let files = (lab.path(&format!("{server}.pem")), lab.path(&format!("{server}.key")));
        std::fs::write(&files.0, answer["certificate"].as_str().unwrap()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        Agent { run, token, enrol, answer, client: shown(service, &files) }
    }

    pub(super) fn path(&self, what: &str) -> String {
        format!("/v1/agent/runs/{}/attempts/1/{what}", self.run)
    }

    /// All that it may say, shown with what `client` has.
    fn speaks(&self, client: &Client) -> Vec<Said> {
        let session = self.answer["session"].as_str();
        let said = [("lease", "{}"), ("events", r#"{"events": []}"#)];
        said.iter().map(|(what, body)| client.post(&self.path(what), session, &[], body).unwrap()).collect()
    }
}

#[test]
fn an_agent_is_nobody_without_its_own_key_and_nobody_else_is_one() {
    let lab = Lab::new();
    let service = Service::new(&lab, json!({}));
    let (one, other) = (Agent::enrol(&lab, &service, "s1"), Agent::enrol(&lab, &service, "s2"));
    assert!(one.speaks(&one.client).iter().all(|said| said.status == 200));
    // Its session is worth nothing without its key, with another run's, or a person's.
    for said in one.speaks(&nobody(&service)) {
        refused(&said, 401, "unauthorized", "without its client certificate");
    }
    let (files, _) = issued(&lab, &service, "ada", "operator");
    let ada = shown(&service, &files);
    for said in one.speaks(&other.client).iter().chain(&one.speaks(&ada)) {
        refused(said, 403, "forbidden", "the client certificate is not that of attempt 1");
    }
    let bare = ada.post(&one.path("lease"), None, &[], "{}").unwrap();
    refused(&bare, 401, "unauthorized", "Authorization");
    let operator = token(&service, "operator.token");
    let as_person = ada.post(&one.path("lease"), Some(&operator), &[], "{}").unwrap();
    refused(&as_person, 401, "unauthorized", "the session token is not of attempt 1");
    // An agent is no person.
    for path in ["/v1/runs", "/v1/events", "/v1/session"] {
        refused(&one.client.get(path).unwrap(), 401, "unauthorized", "Authorization");
        let session = one.answer["session"].as_str().map(|session| format!("Bearer {session}")).unwrap();
        let said = one.client.send("GET", path, &[("authorization", &session)], "").unwrap();
        refused(&said, 401, "unauthorized", "no operator's token");
    }
    // The token was used: by this very process it may be used again, and by no other.
    let again = nobody(&service).post("/v1/agent/enrol", Some(&one.token), &[], &one.enrol).unwrap();
    assert_eq!((again.status, &again.json()["session"]), (201, &one.answer["session"]));
    for (from, to) in [("nnnn", "mmmm"), (&key_of(&one.enrol), &key_of(&other.enrol))] {
        let stranger = one.enrol.replace(from, to);
        let said = nobody(&service).post("/v1/agent/enrol", Some(&one.token), &[], &stranger).unwrap();
        refused(&said, 409, "already-enrolled", "by another process");
    }
}

fn key_of(enrol: &str) -> String {
    serde_json::from_str::<Value>(enrol).unwrap()["client_key"].as_str().unwrap().to_owned()
}

#[test]
fn an_agents_certificate_that_has_ended_counts_on_no_connection() {
    let lab = Lab::new();
    let service = Service::new(&lab, json!({}));
    let agent = Agent::enrol(&lab, &service, "s1");
    let (path, session) = (agent.path("lease"), agent.answer["session"].as_str().unwrap());
    let key = lab.path("s1.key");
    let ends = |seconds: i64| {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let uri = format!("urn:z-orchestrator:attempt:{}:1", agent.run);
        params.subject_alt_names.push(SanType::URI(uri.as_str().try_into().unwrap()));
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs().cast_signed();
        // What it says are whole seconds.
        params.not_after = (std::time::UNIX_EPOCH + Duration::from_secs((now + seconds).cast_unsigned())).into();
        let pair = KeyPair::from_pem(&std::fs::read_to_string(&key).unwrap()).unwrap();
        let certificate = params.signed_by(&pair, &own(&service)).unwrap().pem();
        shown(&service, &(lab.file("certificate.pem", certificate.as_bytes()), key.clone()))
    };
    let refused_by_tls = |client: &Client| {
        let error = client.post(&path, Some(session), &[], "{}").expect_err("it was taken");
        assert!(error.contains("CertificateExpired"), "{error}");
    };
    refused_by_tls(&ends(-1));
    let short = ends(3);
    let mut kept = short.keep().unwrap();
    assert_eq!(kept.post(&path, session, "{}").unwrap().status, 200);
    // From here on a session can be resumed.
    assert_eq!(short.post(&path, Some(session), &[], "{}").unwrap().status, 200);
    std::thread::sleep(Duration::from_secs(3));
    let ended = "came without its client certificate";
    refused(&kept.post(&path, session, "{}").unwrap(), 401, "unauthorized", ended);
    refused(&short.post(&path, Some(session), &[], "{}").unwrap(), 401, "unauthorized", ended);
    // It was nothing else.
    assert_eq!(agent.client.post(&path, Some(session), &[], "{}").unwrap().status, 200);
}

#[test]
fn a_revoked_attempt_is_heard_no_more() {
    let lab = Lab::new();
    let service = Service::new(&lab, json!({}));
    let (one, other) = (Agent::enrol(&lab, &service, "s1"), Agent::enrol(&lab, &service, "s2"));
    let revoke = service.client("revoke --attempt 1 --reason stolen").arg(&one.run).done().ok();
    let _ = revoke.says("is lost: attempt 1 was revoked by operator token: stolen");
    for said in one.speaks(&one.client) {
        refused(&said, 403, "revoked", "attempt 1 of run");
    }
    let again = nobody(&service).post("/v1/agent/enrol", Some(&one.token), &[], &one.enrol).unwrap();
    refused(&again, 403, "revoked", "attempt 1 of run");
    assert!(other.speaks(&other.client).iter().all(|said| said.status == 200), "another's was none of it");
    service.client("revoke --attempt 2").arg(&one.run).done().exits(4).says("none is 2");
}
