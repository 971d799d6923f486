//! Examples in the OpenAPI document: of each type that is sent or answered, one.

use protocol::control::problem::{Code, Problem};
use serde_json::{Value, json};
use utoipa::openapi::{Content, OpenApi, RefOr};

use super::operations;

/// Puts an example beside every schema that has one.
pub(super) fn add(document: &mut OpenApi) {
    let all = all();
    for operation in operations(document) {
        if let Some(RefOr::T(body)) = &mut operation.request_body {
            body.content.values_mut().for_each(|content| show(content, &all));
        }
        for response in operation.responses.responses.values_mut() {
            if let RefOr::T(response) = response {
                response.content.values_mut().for_each(|content| show(content, &all));
            }
        }
    }
}

fn show(content: &mut RefOr<Content>, all: &[(&str, Value)]) {
    let RefOr::T(content) = content else { return };
    if content.example.is_some() {
        return;
    }
    let schema = serde_json::to_string(&content.schema).unwrap_or_default();
    let named = |name: &str| schema.contains(&format!("\"#/components/schemas/{name}\""));
    content.example = all.iter().find(|(name, _)| named(name)).map(|(_, example)| example.clone());
}

/// A problem of this kind.
pub(super) fn problem(code: Option<&Code>) -> Problem {
    let code = code.cloned().unwrap_or(Code::Internal);
    let retry_after = matches!(code, Code::Timeout | Code::TooMany | Code::Unavailable).then_some(1);
    let mut problem = match code {
        Code::BadRequest => Problem::new(code, "the request for a run: `priority` must be -100 to 100"),
        Code::Unauthorized => Problem::new(code, "the request has no header `Authorization`")
            .with_hint("send the header `Authorization: Bearer` with the token"),
        Code::NotFound => Problem::new(code, "there is no run r-7f3k2m"),
        Code::Conflict => Problem::new(code, "run r-7f3k2m has succeeded, and cannot be called off"),
        _ => {
            let title = code.title().to_owned();
            Problem::new(code, title)
        }
    };
    problem.retry_after = retry_after;
    problem
}

const CLIENT_KEY: &str = "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEaxfR8uEsQkf4vOblY6RA8ncDfYEt6zOg9KE5RdiYwpZP40Li_hp_m47n60p8D54WK84zV2sxXs7LtkBoN79R9Q";
const KEY: &str = "AAAQ-EAYE-AUDA-OCAJ-BIFQ-YDIO-B4IB-CEQT-CQKR-MFYY-DENB-WHA5-DYPQ";
const TOKEN: &str = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I";

fn order() -> Value {
    json!({
        "server": "lpar-17",
        "launcher": "external",
        "image": {
            "name": "debian-13",
            "min_version": 7,
            "sources": ["https://images.example/debian-13"],
            "trust": ["2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"],
        },
        "target": {
            "lun": {"wwid": "36005076303ffd3270000000000001017", "min_paths": 2},
            "layout": "split",
        },
        "hand_over": "re-ipl",
        "fabric": "san-a",
        "deadline": 7200,
    })
}

fn run() -> Value {
    json!({
        "run": "r-7f3k2m",
        "state": "running",
        "server": "lpar-17",
        "launcher": "external",
        "image": "debian-13",
        "target": "LUN 36005076303ffd3270000000000001017",
        "fabric": "san-a",
        "priority": 0,
        "created": "2027-03-01T09:00:00Z",
        "deadline": "2027-03-01T11:00:00Z",
        "cancel": false,
        "max_attempts": 3,
        "attempts": [
            {"attempt": 1, "started": "2027-03-01T09:00:02Z", "agent": "z-provisioner 0.1.0"},
        ],
        "phase": "stream",
        "step": "write",
        "progress": {
            "phase": "stream",
            "step": "write",
            "bytes": 1_073_741_824u64,
            "total_bytes": 4_294_967_296u64,
            "chunks": 256,
            "total_chunks": 1024,
            "rates": {"source": 90_000_000, "decode": 310_000_000, "write": 310_000_000, "read_back": 0},
            "limited_by": "source",
            "eta_seconds": 11,
        },
    })
}

fn orders() -> Value {
    json!({"next": 12, "cancel": false, "progress_every": 1000})
}

/// Each type's, those first that others' schemas name.
fn all() -> Vec<(&'static str, Value)> {
    let terms = json!({"seconds": 60, "renew_after": 20});
    vec![
        ("NewRun", order()),
        ("RunPage", json!({"runs": [run()], "next": "41"})),
        ("Run", run()),
        ("Who", json!({"role": "operator", "name": "operator token"})),
        ("Cancel", json!({"reason": "the wrong image"})),
        ("Nothing", json!({})),
        ("ConfirmDeath", json!({"attempt": 2})),
        ("Revoke", json!({"attempt": 1, "reason": "the medium was lost"})),
        ("ShownKey", json!({"run": "r-7f3k2m", "key": KEY})),
        ("ReleasedKey", json!({"key": KEY})),
        ("EnrolmentToken", json!({"run": "r-7f3k2m", "attempt": 1, "token": TOKEN})),
        (
            "Enrolled",
            json!({
                "run": "r-7f3k2m",
                "attempt": 1,
                "session": TOKEN,
                "lease": terms,
                "spec": "{\"run\":\"r-7f3k2m\",\"epoch\":1,…}",
                "certificate": "-----BEGIN CERTIFICATE-----\n…\n-----END CERTIFICATE-----\n",
                "ticket": "{\"payload\":\"…\",\"payloadType\":\"application/vnd.z-provisioner.ticket.v1+json\",\"signatures\":[…]}",
            }),
        ),
        (
            "Enrol",
            json!({"nonce": TOKEN, "client_key": CLIENT_KEY, "agent": "z-provisioner 0.1.0", "server": "lpar-17"}),
        ),
        (
            "Report",
            json!({"events": [{
                "run": "r-7f3k2m",
                "attempt": 1,
                "index": 11,
                "at": 4.2,
                "time": "2027-03-01T09:00:09Z",
                "event": {"kind": "phase-started", "phase": "stream"},
            }]}),
        ),
        ("Orders", orders()),
        ("Lease", json!({"lease": terms, "orders": orders()})),
    ]
}
