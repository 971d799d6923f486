//! TLS that must not be trusted, or is none.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use e2e::hostile::Part::{Data, Index};
use e2e::hostile::{Answer, Hostile, Request, Script, Setting, Step, readable};
use e2e::server::Server;
use e2e::{Done, Lab, Run, exit, lab};

/// A certificate authority of our own.
struct Authority {
    certificate: PathBuf,
    key: PathBuf,
}

impl Authority {
    fn new(lab: &Lab) -> Self {
        let (certificate, key) = (lab.fresh("authority"), lab.fresh("authority-key"));
        Run::tool("openssl")
            .words("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority")
            .words("-addext basicConstraints=critical,CA:TRUE -keyout")
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .done()
            .ok();
        Authority { certificate, key }
    }

    /// A server's certificate for `name` (`IP:…` or `DNS:…`), valid between two times; and its key.
    fn issues(&self, lab: &Lab, name: &str, (from, until): (&str, &str)) -> (PathBuf, PathBuf) {
        let dir = lab.fresh_dir("issued");
        let file = |name: &str, text: &str| {
            std::fs::write(dir.join(name), text).unwrap();
            dir.join(name)
        };
        // `openssl ca` is the one that takes both times in all versions.
        file("database", "");
        let config = file(
            "config",
            &format!(
                "[ca]\ndefault_ca=us\n[us]\ndatabase={0}/database\nnew_certs_dir={0}\nrand_serial=yes\ndefault_md=sha256\n\
                 policy=any\nx509_extensions=server\n[any]\ncommonName=supplied\n\
                 [server]\nsubjectAltName={name}\nbasicConstraints=critical,CA:FALSE\n",
                dir.display()
            ),
        );
        let (request, key, certificate) = (dir.join("request"), dir.join("key"), dir.join("certificate"));
        let req = Run::tool("openssl").words("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=server");
        req.arg("-keyout").arg(&key).arg("-out").arg(&request).done().ok();
        let ca = Run::tool("openssl").words("ca -batch -notext -config").arg(&config);
        ca.arg("-cert")
            .arg(&self.certificate)
            .arg("-keyfile")
            .arg(&self.key)
            .args(["-startdate", from, "-enddate", until, "-in"])
            .arg(&request)
            .arg("-out")
            .arg(&certificate)
            .done()
            .ok();
        (certificate, key)
    }
}

const NOW: (&str, &str) = ("20200101000000Z", "20900101000000Z");
const US: &str = "IP:127.0.0.1";

fn honest() -> Script {
    Arc::new(|_: &Request, honest: Answer| honest.into())
}

/// Writes over TLS, trusting an authority.
fn write(setting: &Setting, from: &str, ca: &Path) -> (Done, e2e::Target) {
    let target = setting.target();
    let done = setting.write(from, &target).words("--timeout 1").arg("--ca").arg(ca).done();
    readable(&done);
    (done, target)
}

/// A server with this certificate is refused, once and by name, with something to do about it.
#[track_caller]
fn refused(setting: &Setting, pair: &(PathBuf, PathBuf), ca: &Path, why: &str, hint: &str) {
    let server = Hostile::with_tls(&setting.image.dir, honest(), &pair.0, &pair.1);
    let (done, target) = write(setting, &server.url(), ca);
    let done = done.exits(exit::SOURCE).says(&server.authority()).says("agreeing on TLS").says(why).says(hint);
    assert_eq!(server.connections(), 1, "a bad certificate does not become good: {}", done.stderr);
    assert!(server.asked().is_empty(), "nothing may be asked of it");
    target.is_untouched();
}

#[test]
fn a_certificate_of_the_given_authority_is_trusted() {
    let setting = Setting::new();
    let authority = Authority::new(&setting.lab);
    let (certificate, key) = authority.issues(&setting.lab, US, NOW);
    let server = Hostile::with_tls(&setting.image.dir, honest(), &certificate, &key);
    for from in [server.url(), server.reference()] {
        let (done, target) = write(&setting, &from, &authority.certificate);
        done.ok();
        setting.arrived(&target);
    }
}

#[test]
fn self_signed() {
    let setting = Setting::new();
    let authority = Authority::new(&setting.lab);
    let own = lab::certificate(&setting.lab);
    refused(
        &setting,
        &own,
        &authority.certificate,
        "UnknownIssuer",
        "hint: give the certificate of the server's authority",
    );
}

#[test]
fn signed_by_an_authority_nobody_trusts() {
    let setting = Setting::new();
    let (trusted, other) = (Authority::new(&setting.lab), Authority::new(&setting.lab));
    let pair = other.issues(&setting.lab, US, NOW);
    refused(&setting, &pair, &trusted.certificate, "certificate", "hint: give");
    let (done, target) = {
        let server = Hostile::with_tls(&setting.image.dir, honest(), &pair.0, &pair.1);
        let target = setting.target();
        (setting.write(&server.url(), &target).done(), target)
    };
    done.exits(exit::SOURCE).says("certificate").says("--ca FILE");
    target.is_untouched();
}

#[test]
fn expired() {
    let setting = Setting::new();
    let authority = Authority::new(&setting.lab);
    let old = ("20200101000000Z", "20200102000000Z");
    let pair = authority.issues(&setting.lab, US, old);
    refused(&setting, &pair, &authority.certificate, "expired", "hint: renew the server's certificate");
}

#[test]
fn not_yet_valid() {
    let setting = Setting::new();
    let authority = Authority::new(&setting.lab);
    let early = ("20900101000000Z", "20910101000000Z");
    let pair = authority.issues(&setting.lab, US, early);
    refused(&setting, &pair, &authority.certificate, "not valid yet", "correct this machine's clock");
}

#[test]
fn for_another_name() {
    let setting = Setting::new();
    let authority = Authority::new(&setting.lab);
    for name in ["DNS:images.example.com", "IP:127.0.0.2"] {
        let pair = authority.issues(&setting.lab, name, NOW);
        refused(
            &setting,
            &pair,
            &authority.certificate,
            "not valid for",
            "hint: name the server as its certificate does",
        );
    }
}

#[test]
fn plain_http_where_tls_was_expected() {
    let setting = Setting::new();
    let authority = Authority::new(&setting.lab);
    let server = Hostile::start(&setting.image.dir, honest());
    let from = server.url().replace("http://", "https://");
    let (done, target) = write(&setting, &from, &authority.certificate);
    done.exits(exit::SOURCE).says(&server.authority()).says("agreeing on TLS");
    target.is_untouched();
    // A server that answers before it has read anything, so that something comes back.
    let talks = |_| Some(Answer::new("400 Bad Request", "").then([Step::Silence]));
    let server = Hostile::greeting(&setting.image.dir, honest(), Arc::new(talks));
    let from = server.url().replace("http://", "https://");
    let (done, target) = write(&setting, &from, &authority.certificate);
    done.exits(exit::SOURCE).says(&server.authority()).says("hint: is this a TLS server?");
    target.is_untouched();
}

#[test]
fn tls_where_plain_http_was_expected() {
    let setting = Setting::new();
    let (certificate, key) = lab::certificate(&setting.lab);
    let server = Server::imgstream_tls(&setting.image.dir, &certificate, &key);
    let target = setting.target();
    let done = setting.write(&server.url().replace("https://", "http://"), &target).done().exits(exit::SOURCE);
    readable(
        &done
            .says(&server.authority())
            .says("waiting for an answer")
            .says("hint: what answers there is no proper HTTP"),
    );
    target.is_untouched();
}

#[test]
fn a_handshake_that_stalls_or_breaks() {
    let setting = Setting::new();
    let authority = Authority::new(&setting.lab);
    // The head of a TLS record that announces more than ever comes.
    let record = b"\x16\x03\x03\x40\x00\x02".to_vec();
    let ends: [(&str, Vec<Step>); 4] = [
        ("not done in 1 s", vec![Step::Silence]),
        ("not done in 1 s", vec![Step::Send(record.clone()), Step::Silence]),
        ("not done in 1 s", vec![Step::Drip(record.repeat(100), std::time::Duration::from_millis(200))]),
        ("agreeing on TLS", vec![Step::Send(record), Step::Reset]),
    ];
    std::thread::scope(|scope| {
        for (says, act) in ends {
            let (setting, authority) = (&setting, &authority);
            scope.spawn(move || {
                let server = Hostile::greeting(&setting.image.dir, honest(), Arc::new(move |_| Some(act.clone())));
                let from = server.url().replace("http://", "https://");
                let (done, target) = write(setting, &from, &authority.certificate);
                done.exits(exit::SOURCE).says(&server.authority()).says(says);
                target.is_untouched();
            });
        }
    });
}

#[test]
fn a_redirect_from_tls_to_none_is_not_followed() {
    let setting = Setting::new();
    let authority = Authority::new(&setting.lab);
    let (certificate, key) = authority.issues(&setting.lab, US, NOW);
    let plain = Hostile::start(&setting.image.dir, honest());
    for part in [Index, Data] {
        let away = plain.url();
        let script = move |request: &Request, honest: Answer| match request.part == part {
            true => Answer::redirect("301 x", &format!("{away}{}", &request.path[1..])).into(),
            false => honest.into(),
        };
        let server = Hostile::with_tls(&setting.image.dir, Arc::new(script), &certificate, &key);
        let (done, _) = write(&setting, &server.url(), &authority.certificate);
        done.exits(exit::SOURCE).says(&server.authority()).says("redirected from TLS to plain HTTP");
    }
    assert_eq!(plain.connections(), 0, "somebody asked the server without TLS");
}

#[test]
fn a_registry_with_tls_does_not_send_us_to_a_token_server_without() {
    let setting = Setting::new();
    let authority = Authority::new(&setting.lab);
    let (certificate, key) = authority.issues(&setting.lab, US, NOW);
    let tokens = Hostile::start(&setting.image.dir, honest());
    let realm = format!("Bearer realm=\"{}token\"", tokens.url());
    let script = move |_: &Request, _| Answer::new("401 x", "").header("WWW-Authenticate", &realm).into();
    let server = Hostile::with_tls(&setting.image.dir, Arc::new(script), &certificate, &key);
    let (done, target) = write(&setting, &server.reference(), &authority.certificate);
    done.exits(exit::SOURCE).says(&server.authority()).says("a token server without TLS");
    assert_eq!(tokens.connections(), 0, "somebody asked the token server");
    target.is_untouched();
}

#[test]
fn a_connection_with_tls_that_breaks_is_made_again() {
    let setting = Setting::new();
    let authority = Authority::new(&setting.lab);
    let (certificate, key) = authority.issues(&setting.lab, US, NOW);
    for end in [Step::Close, Step::Reset] {
        let script = move |request: &Request, honest: Answer| match (request.part, request.nth) {
            (Index | Data, 0) => honest.up_to(honest.content().len() / 2, [end.clone()]),
            _ => honest.into(),
        };
        let server = Hostile::with_tls(&setting.image.dir, Arc::new(script), &certificate, &key);
        let (done, target) = write(&setting, &server.url(), &authority.certificate);
        done.ok();
        setting.arrived(&target);
    }
}
