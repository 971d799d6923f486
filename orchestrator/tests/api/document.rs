//! The OpenAPI document: complete, true, and valid in the eyes of others.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use hyper::{Method, StatusCode};
use orchestrator::api::Limits;
use serde_json::{Value, json};

use crate::house::{DOCUMENT, House, request};
use crate::instances::instances;

#[tokio::test]
async fn it_is_served_and_says_what_is_served() {
    let house = House::plain(Limits::default()).await;
    let answer = house.ask(request(Method::GET, "/openapi.json", None, None)).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/json"));
    assert_eq!(answer.json(), *DOCUMENT);
    // Of each path, the methods that it has are those of the document, and no others.
    for (path, operations) in DOCUMENT["paths"].as_object().unwrap() {
        let path = path.replace("{run}", "r-1").replace("{attempt}", "1");
        let known: Vec<String> = operations.as_object().unwrap().keys().map(|method| method.to_uppercase()).collect();
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let answer = house.ask(request(method.parse().unwrap(), &path, None, None)).await;
            assert_ne!(answer.status, StatusCode::NOT_FOUND, "{path}");
            let refused = answer.status == StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(refused, !known.contains(&method.to_owned()), "{method} {path}");
        }
    }
}

/// Every value with this key, however deep.
fn all<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get(key));
            fields.values().for_each(|value| all(value, key, found));
        }
        Value::Array(values) => values.iter().for_each(|value| all(value, key, found)),
        _ => {}
    }
}

#[test]
fn every_operation_says_who_may_ask_and_how_it_refuses() {
    assert_eq!(DOCUMENT["openapi"], "3.1.0");
    let schemes = DOCUMENT["components"]["securitySchemes"].as_object().unwrap();
    for (path, operations) in DOCUMENT["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let of = format!("{method} {path}");
            assert!(operation["operationId"].is_string() && operation["summary"].is_string(), "{of}");
            let who = operation["security"][0].as_object().unwrap();
            assert!(who.keys().all(|scheme| schemes.contains_key(scheme)), "{of}");
            let responses = operation["responses"].as_object().unwrap();
            let mut expected = vec!["429", "500", "503"];
            if !who.is_empty() {
                expected.extend(["400", "401"]);
            }
            if path.contains("{run}") {
                expected.push("404");
            }
            if method == "post" {
                expected.extend(["408", "413", "415"]);
                if path != "/v1/session" {
                    expected.push("409");
                }
                let body = &operation["requestBody"];
                assert!(body["required"].is_boolean(), "{of}");
                assert!(!body["content"]["application/json"]["example"].is_null(), "{of}");
            }
            if path.starts_with("/v1/agent/") {
                expected.extend(["403", "410"]);
            }
            if who.contains_key("operator") {
                expected.push("403");
            }
            // What one run's show and its events do not need is the body's.
            for status in expected {
                if status == "400" && path == "/v1/runs/{run}" {
                    continue;
                }
                let problem = &responses[status]["content"]["application/problem+json"];
                assert_eq!(problem["schema"]["$ref"], "#/components/schemas/Problem", "{of}: {status}");
                assert_eq!(problem["example"]["status"].to_string(), status, "{of}");
            }
        }
    }
}

#[test]
fn every_schema_is_described_and_every_reference_leads_somewhere() {
    let schemas = DOCUMENT["components"]["schemas"].as_object().unwrap();
    for (name, schema) in schemas {
        let description = schema["description"].as_str().unwrap_or_default();
        assert!(!description.is_empty(), "{name}");
    }
    let mut descriptions = Vec::new();
    all(&DOCUMENT, "description", &mut descriptions);
    for description in descriptions.iter().filter_map(|description| description.as_str()) {
        assert!(!description.contains("[`"), "a link of Rust's documentation: {description}");
    }
    let mut references = Vec::new();
    all(&DOCUMENT, "$ref", &mut references);
    for reference in references {
        let name = reference.as_str().unwrap().strip_prefix("#/components/schemas/").unwrap();
        assert!(schemas.contains_key(name), "{name}");
    }
}

/// The Python of `cargo xtask test`, which has the validators.
fn python() -> PathBuf {
    let python = std::env::var_os("Z_PYTHON").map(PathBuf::from);
    python.expect("Z_PYTHON is not set: run `cargo xtask test`, or set it to what `cargo xtask python` prints")
}

/// What `check.py` finds in each.
fn check(input: &Value) -> Vec<Vec<String>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/api/check.py");
    let mut child = Command::new(python())
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the Python of Z_PYTHON starts");
    child.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "check.py failed; what it says is above");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn other_programs_find_it_valid_and_what_is_sent_to_be_what_it_says() {
    let instances: Vec<Value> = instances()
        .into_iter()
        .map(|(schema, value, valid)| json!({"schema": schema, "value": value, "valid": valid}))
        .collect();
    assert!(instances.len() > 50);
    // The validators would notice.
    let mut broken = DOCUMENT.clone();
    broken["paths"]["/v1/runs"]["get"]["responses"] = json!([]);
    let wrong =
        json!([{"schema": "RunId", "value": 7, "valid": true}, {"schema": "RunId", "value": "r", "valid": false}]);
    let found = check(&json!([
        {"document": *DOCUMENT, "instances": instances},
        {"document": broken, "instances": []},
        {"document": *DOCUMENT, "instances": wrong},
    ]));
    assert!(found[0].is_empty(), "{:#?}", found[0]);
    assert_eq!((found[1].len(), found[2].len()), (1, 2), "{found:#?}");
}
