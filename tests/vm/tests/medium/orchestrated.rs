//! A service that has a machine's run: a process of this machine, which is behind the gateway's tunnel for the other one.

use e2e::{Lab, Run, Service};
use serde_json::{Value, json};

use crate::gateway::INSIDE;
use crate::image::Packed;
use crate::medium::Medium;

/// Where machines reach the service, at [`INSIDE`]: the gateway passes on what comes there.
pub const PORT: u16 = 7443;

/// A service, and what its operator has.
pub struct Orchestrated {
    lab: Lab,
    pub service: Service,
}

impl Orchestrated {
    /// One with these settings besides those that a test needs.
    pub fn new(mut config: Value) -> Self {
        let lab = Lab::new();
        config["names"] = json!([INSIDE]);
        let service = Service::new(&lab, config);
        Self { lab, service }
    }

    /// Where machines find it.
    pub fn url() -> String {
        format!("https://{INSIDE}:{PORT}")
    }

    /// Makes the run of a configuration the service's, as an operator would: it is created there, and the medium gets its token
    /// instead. Returns the run's name as well.
    pub fn take_over(&self, packed: &Packed, mut medium: Medium) -> (Medium, String) {
        let mut new = medium.config.as_object_mut().unwrap().remove("run").unwrap();
        ["run", "epoch"].iter().for_each(|key| drop(new.as_object_mut().unwrap().remove(*key)));
        new["image"]["trust"] = json!([packed.image.key.id()]);
        new["server"] = medium.config["server"].clone();
        new["launcher"] = json!("external");
        let run = self.service.create(&self.lab, &new);
        let token = self.lab.fresh("token");
        self.service.client("token").arg(&run).arg("--out").arg(&token).done().ok();
        medium.file("token", &std::fs::read(&token).unwrap());
        for name in ["ca.pem", "ticket.pub"] {
            medium.file(name, &std::fs::read(self.service.dir().join(name)).unwrap());
        }
        medium.config["trust"]["tickets"] = json!(["ticket.pub"]);
        medium.config["trust"]["orchestrator_ca"] = json!("ca.pem");
        medium.config["orchestrator"] = json!({"url": Self::url(), "token": "token", "run": run});
        (medium, run)
    }

    /// Enrols with the token of a medium from here, as somebody would who has got hold of it.
    pub fn steal(&self, packed: &Packed, medium: &Medium) -> Run {
        Run::provisioner()
            .words("run --orchestrator")
            .arg(self.service.url())
            .arg("--orchestrator-ca")
            .arg(medium.path("ca.pem"))
            .arg("--ticket-key")
            .arg(medium.path("ticket.pub"))
            .arg("--trust")
            .arg(&packed.image.key.public)
            .arg("--token")
            .arg(medium.path("token"))
    }

    /// Enrols with the token of a medium, as a process does that then says nothing more.
    pub fn enrol_as_another(&self, medium: &Medium) {
        let token = std::fs::read_to_string(medium.path("token")).unwrap();
        let header = self.lab.file("header", format!("Authorization: Bearer {}\n", token.trim()).as_bytes());
        // A key on P-256, whose secret half nobody needs here.
        let key = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li_hp_m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q";
        let body = json!({"nonce": "n".repeat(43), "agent": "another", "client_key": key});
        Run::tool("curl")
            .words("--silent --show-error --fail --header Content-Type:application/json --header")
            .arg(format!("@{}", header.display()))
            .arg("--cacert")
            .arg(medium.path("ca.pem"))
            .arg("--data")
            .arg(body.to_string())
            .arg(format!("{}/v1/agent/enrol", self.service.url()))
            .done()
            .ok();
    }

    /// The key that the service has made, as the owner of the disk is shown it, once.
    pub fn shows_the_owner_his_key(&self, run: &str) -> String {
        let key = self.service.client("key").arg(run).text().trim().to_owned();
        self.service.client("key").arg(run).done().exits(4).says("was shown to operator token");
        let shown = self.service.show(run);
        assert_eq!((&shown["key"]["source"], &shown["key"]["released"]), (&json!("service"), &json!([1])), "{shown:#}");
        assert!(!shown.to_string().contains(&key), "the key is in what is shown of the run");
        key
    }

    /// That the service knows all of a run that has ended well at its first attempt.
    pub fn knows_all_of(&self, run: &str, packed: &Packed) {
        let shown = self.service.until(run, &["succeeded", "failed", "lost"], 30);
        assert_eq!(shown["state"], "succeeded", "{shown:#}");
        let attempts = shown["attempts"].as_array().unwrap();
        assert!(attempts.len() == 1 && attempts[0]["outcome"] == "succeeded", "{shown:#}");
        assert!(attempts[0]["agent"].as_str().unwrap().starts_with("z-provisioner "), "{shown:#}");
        assert_eq!(shown["summary"]["proof"]["read-back"]["bytes"], packed.size, "{shown:#}");
        assert!(shown["summary"]["ipl"].is_object(), "{shown:#}");
        let told = self.service.client("watch --json").arg(run).done().ok().json();
        let of = |kind: &str| -> Vec<&str> {
            let events = told.iter().filter_map(|told| told["agent"]["event"].as_object());
            let events = events.filter(|event| event["kind"] == kind);
            events.filter_map(|event| event.get("phase")?.as_str()).collect()
        };
        let phases = ["spec", "network", "image", "target", "stream", "hand-over"];
        assert_eq!((of("phase-started"), of("phase-finished")), (phases.to_vec(), phases.to_vec()), "{told:#?}");
    }
}
