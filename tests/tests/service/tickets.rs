//! Tickets that are another's, changed, too old or too new, from whoever stands in the service's place and has even the key that signs
//! tickets: the agent as it is shipped takes none of them, asks for nothing more, and touches nothing.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use e2e::{Done, Image, Impostor, Lab, MIB, Run, Service, Target, exit, sample};
use envelope::{Role, SecretKey};
use imgstream::digest::Digest;
use rcgen::{CertificateParams, Issuer, KeyPair, PKCS_ECDSA_P256_SHA256, PublicKeyData, SignatureAlgorithm};
use serde_json::{Value, json};

use super::agents;
use super::strangers::Agent;
use super::time::at;

/// What the service has answered an earlier process, and whom.
struct Recorded {
    server: &'static str,
    answer: Value,
    target: Target,
}

/// An answer that is made in the service's place for the process that asks: all is right with it as it stands.
struct Forged {
    recorded: Value,
    answer: Value,
    ticket: Value,
    role: Role,
    key: SecretKey,
}

/// What is made of it before it is sent.
type Twist = Box<dyn Fn(Forged) -> Value + Send + Sync>;

impl Forged {
    fn sealed(mut self) -> Value {
        let ticket = envelope::sign(self.role, self.ticket.to_string().as_bytes(), &self.key);
        self.answer["ticket"] = json!(String::from_utf8(ticket).unwrap());
        self.answer
    }
}

/// The public half of an agent's client key.
struct Half(Vec<u8>);

impl PublicKeyData for Half {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

/// A service whose answers were recorded, and its ticket key, which somebody else has.
struct Scene {
    lab: Lab,
    image: Image,
    raw: Vec<u8>,
    service: Service,
    /// A run in the clear, and one whose agent needs a key.
    recorded: [Arc<Recorded>; 2],
    /// His certificate, which agents believe, and its key.
    tls: (PathBuf, PathBuf),
}

impl Scene {
    fn new() -> Self {
        let lab = Lab::new();
        let raw = sample::noise(75, MIB as usize);
        let image = lab.pack_bytes(&raw, "--chunk-size 64KiB");
        let service = Service::new(&lab, json!({}));
        let recorded = [("s1", "plain", MIB), ("s2", "whole", 40 * MIB)].map(|(server, layout, size)| {
            let target = Target::device(&lab, size, "");
            let mut order = agents::order(&image, server, image.dir.to_str().unwrap(), &target);
            (order["launcher"], order["target"]["layout"]) = (json!("external"), json!(layout));
            let answer = Agent::enrol_for(&lab, &service, server, &order).answer;
            Arc::new(Recorded { server, answer, target })
        });
        // Good from 1975 on: what is wrong with a clock is seen in the ticket.
        let own = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let tls = (
            lab.file("impostor.pem", own.cert.pem().as_bytes()),
            lab.file("impostor.key", own.signing_key.serialize_pem().as_bytes()),
        );
        Scene { lab, image, raw, service, recorded, tls }
    }

    /// He answers the first question as `twist` says, and all others well.
    fn impostor(&self, recorded: &Arc<Recorded>, twist: Twist) -> Impostor {
        let (recorded, next) = (Arc::clone(recorded), AtomicU64::new(0));
        let pem = std::fs::read(self.service.dir().join("ticket.key")).unwrap();
        let terms = recorded.answer["lease"].clone();
        Impostor::start(&self.tls.0, &self.tls.1, move |path, said| {
            if let Some(last) = said["events"].as_array().and_then(|events| events.last()?["index"].as_u64()) {
                next.store(last + 1, Ordering::SeqCst);
            }
            let orders = json!({"next": next.load(Ordering::SeqCst)});
            match path.rsplit('/').next().unwrap() {
                "enrol" => twist(recorded.for_process(said, SecretKey::from_pem(&pem).unwrap())),
                "lease" => json!({"lease": terms, "orders": orders}),
                "key" => json!({"key": (["AAAA"; 13].join("-"))}),
                _ => orders,
            }
        })
    }

    fn agent(&self, recorded: &Recorded, url: &str) -> Run {
        let agent = Run::provisioner().arg("run").args(["--orchestrator", url, "--orchestrator-ca"]).arg(&self.tls.0);
        let agent = agent.arg("--ticket-key").arg(self.service.dir().join("ticket.pub"));
        let agent = agent.arg("--trust").arg(&self.image.key.public).args(["--server", recorded.server]);
        agent.arg("--token").arg(self.lab.path(&format!("{}.token", recorded.server)))
    }

    /// An agent is refused what it is given, says so, and neither asks for anything more nor touches anything.
    #[track_caller]
    fn refuses(&self, recorded: &Arc<Recorded>, twist: Twist, clock: Option<&str>, says: &str) -> Done {
        let impostor = self.impostor(recorded, twist);
        let written = recorded.target.loop_device().sectors_written();
        let agent = self.agent(recorded, &impostor.url());
        let agent = clock.into_iter().fold(agent, |agent, clock| at(clock, agent));
        let done = agent.done().exits(exit::TARGET).says("the ticket from the service permits nothing").says(says);
        assert_eq!(impostor.asked(), ["/v1/agent/enrol"], "{says}");
        assert_eq!(recorded.target.loop_device().sectors_written(), written, "{says}");
        done
    }
}

impl Recorded {
    /// The same for another process, as the service would have answered it.
    fn for_process(&self, said: &Value, key: SecretKey) -> Forged {
        let der = URL_SAFE_NO_PAD.decode(said["client_key"].as_str().unwrap()).unwrap();
        let ticket = self.answer["ticket"].as_str().unwrap();
        let mut ticket = serde_json::from_slice::<Value>(
            envelope::peek(ticket.as_bytes(), Role::Ticket).unwrap().payload_unverified(),
        )
        .unwrap();
        (ticket["nonce"], ticket["client_key"]) = (said["nonce"].clone(), json!(Digest::of(&der).to_string()));
        let issuer = Issuer::new(CertificateParams::new(Vec::new()).unwrap(), KeyPair::generate().unwrap());
        let half = Half(der[der.len() - 65..].to_vec());
        let certificate = CertificateParams::new(Vec::new()).unwrap().signed_by(&half, &issuer).unwrap();
        let mut answer = self.answer.clone();
        answer["certificate"] = json!(certificate.pem());
        Forged { recorded: self.answer.clone(), answer, ticket, role: Role::Ticket, key }
    }
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A ticket of which one thing is another.
fn ticket(field: &'static str, value: Value) -> Twist {
    Box::new(move |mut forged| {
        forged.ticket[field] = value.clone();
        forged.sealed()
    })
}

/// An answer, with a good ticket, of which something is changed.
fn answer(change: impl Fn(&mut Value) + Send + Sync + 'static) -> Twist {
    Box::new(move |forged| {
        let mut answer = forged.sealed();
        change(&mut answer);
        answer
    })
}

/// One thing of the run spec is another, and the ticket covers what it was.
fn spec(from: &'static str, to: &'static str) -> Twist {
    answer(move |answer| replace(answer, from, to))
}

/// One thing of the run spec is another, and the ticket covers that.
fn covered_spec(from: &'static str, to: &'static str) -> Twist {
    Box::new(move |mut forged| {
        replace(&mut forged.answer, from, to);
        forged.ticket["spec"] = json!(Digest::of(forged.answer["spec"].as_str().unwrap().as_bytes()).to_string());
        forged.sealed()
    })
}

fn replace(answer: &mut Value, from: &str, to: &str) {
    let spec = answer["spec"].as_str().unwrap();
    assert!(spec.contains(from), "{spec}");
    answer["spec"] = json!(spec.replacen(from, to, 1));
}

fn forgeries() -> Vec<(Twist, &'static str)> {
    let sha256 = || json!(format!("sha256:{}", "2".repeat(64)));
    vec![
        (ticket("server", json!("s3")), "its server is s3, --server says s"),
        (ticket("run", json!("r-other")), "its run is r-other, the service says "),
        (ticket("epoch", json!(2)), "its attempt (the epoch) is 2, the service says 1"),
        (answer(|answer| answer["attempt"] = json!(2)), "its attempt (the epoch) is 1, the service says 2"),
        (ticket("spec", sha256()), "the run spec that it covers (by SHA-256) is sha256:2222"),
        (
            answer(|answer| answer["spec"] = json!(format!("{} ", answer["spec"].as_str().unwrap()))),
            "the run spec that it covers",
        ),
        (spec("/dev/loop", "/dev/sda"), "the run spec that it covers"),
        (covered_spec(r#""epoch":1"#, r#""epoch":2"#), "its attempt (the epoch) is 1, the run spec says 2"),
        (covered_spec(r#""run":""#, r#""run":"x"#), "the run spec says x"),
        (
            ticket("wwids", json!(["36001405aaaaaaaaaaaaaaaaaaaaaaaaa"])),
            "LUNs that it permits: 36001405aaaaaaaaaaaaaaaaaaaaaaaaa",
        ),
        (ticket("image", sha256()), "its image is sha256:2222"),
        (ticket("client_key", sha256()), "the client key that it is bound to (by SHA-256) is sha256:2222"),
        (ticket("nonce", json!("m".repeat(43))), "its nonce is another process's"),
        (Box::new(|forged| forged.recorded), "its nonce is another process's"),
        (ticket("not_before", json!(now() + 7200)), "it is not good yet, by"),
        (ticket("expires", json!(now() - 7200)), "it has expired, by"),
        (ticket("version", json!(2)), "its version is 2, this agent reads 1"),
        (ticket("may_do", json!("all")), "it makes no sense: unknown field"),
        (Box::new(|forged| Forged { role: Role::Image, ..forged }.sealed()), "nobody who is trusted has signed it"),
        (
            Box::new(|forged| Forged { key: SecretKey::generate().unwrap(), ..forged }.sealed()),
            "nobody who is trusted has signed it",
        ),
        (answer(|answer| answer["ticket"] = json!("")), "nobody who is trusted has signed it"),
    ]
}

#[test]
fn a_ticket_that_is_not_for_this_very_process_permits_nothing() {
    let scene = Scene::new();
    let [plain, whole] = &scene.recorded;
    for (number, (twist, says)) in forgeries().into_iter().enumerate() {
        // Now and then one that would need a key.
        let recorded = if number % 5 == 1 { whole } else { plain };
        let done = scene.refuses(recorded, twist, None, says);
        assert!(!done.stderr.contains(recorded.answer["session"].as_str().unwrap()), "{}", done.stderr);
    }
    plain.target.is_untouched();
    whole.target.is_untouched();
    // What is not twisted is done: the key is asked for, and what is in the clear is written.
    let impostor = scene.impostor(whole, Box::new(Forged::sealed));
    scene.agent(whole, &impostor.url()).done();
    assert!(impostor.asked().iter().any(|path| path.ends_with("/attempts/1/key")), "{:?}", impostor.asked());
    let impostor = scene.impostor(plain, Box::new(Forged::sealed));
    scene.agent(plain, &impostor.url()).done().ok();
    assert!(impostor.asked().iter().any(|path| path.ends_with("/attempts/1/events")), "{:?}", impostor.asked());
    assert!(plain.target.now()[..scene.raw.len()] == scene.raw[..]);
}

#[test]
fn a_machine_whose_clock_is_off_is_told_to_look_at_it() {
    let scene = Scene::new();
    let plain = &scene.recorded[0];
    for (clock, says) in [("+2d", "it has expired, by"), ("-2d", "it is not good yet, by")] {
        scene.refuses(plain, Box::new(Forged::sealed), Some(clock), says).says("look at the clocks of this machine");
    }
    // A service that has begun since has a certificate that is not good yet either, and is not asked again and again.
    let direct = agents::enrol(&scene.service, &scene.image, &scene.lab.path("s1.token"));
    at("-2d", direct).done().exits(exit::SOURCE).says("not valid yet").says("look at this machine's clock");
    plain.target.is_untouched();
    // Some minutes are no matter.
    let impostor = scene.impostor(plain, Box::new(Forged::sealed));
    at("-4m", scene.agent(plain, &impostor.url())).done().ok();
    assert!(plain.target.now()[..scene.raw.len()] == scene.raw[..]);
}
