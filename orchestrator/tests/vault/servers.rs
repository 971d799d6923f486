//! Servers that are none, or do not do what one does: whatever they answer is bounded, and no key and no token is in what is said of it.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use e2e::{Lab, Vault as Server};
use orchestrator::engine::Keeper;
use orchestrator::keys::Vault;
use serde_json::json;

use crate::bed::{SERVICE, config, run};

const TOKEN: &str = "s.a-token-that-nobody-may-read";

/// Answers each request with this, and says what it was asked first.
fn answering(answer: impl Fn() -> Vec<u8> + Send + 'static) -> (u16, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, asked) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut head = [0; 4096];
            let len = stream.read(&mut head).unwrap_or(0);
            let _ = told.send(String::from_utf8_lossy(&head[..len]).to_ascii_lowercase());
            let bytes = answer();
            if bytes.is_empty() {
                // It holds its tongue for longer than anybody waits.
                std::thread::sleep(Duration::from_secs(3));
            }
            let _ = stream.write_all(&bytes);
        }
    });
    (port, asked)
}

fn answer(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn answers_are_bounded_and_never_shown_where_a_secret_may_be_in_them() {
    let lab = Lab::new();
    let token_file = lab.path("token");
    Server::write_token(&token_file, TOKEN);
    let settings = |port: u16| {
        config(
            &json!({"address": format!("http://127.0.0.1:{port}"), "token_file": token_file, "timeout": 1, "namespace": "team/z"}),
        )
    };
    let secret = "aaaa-bbbb";
    let cases: Vec<(Vec<u8>, bool, &str)> = vec![
        (Vec::new(), true, "has not answered within 1 s"),
        (answer("307 Temporary Redirect", ""), true, "307"),
        (answer("302 Found", ""), false, "another server"),
        (answer("200 OK", &format!(r#"{{"data": "{secret}"}}"#)), false, "is not understood"),
        (answer("200 OK", &" ".repeat(70_000)), false, "more than 65536 bytes"),
        (answer("400 Bad Request", r#"{"errors": ["line\nbreak \u001b[2J"]}"#), false, "400: line break"),
        (answer("429 Too Many Requests", ""), true, "429"),
        (answer("503 Service Unavailable", r#"{"errors": ["Vault is sealed"]}"#), true, "Vault is sealed"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{".to_vec(), true, "has not answered to the end"),
        (b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(), true, "has not answered to the end"),
    ];
    for (bytes, is_away, what) in cases {
        let (port, asked) = answering(move || bytes.clone());
        let began = Instant::now();
        let said = match Vault::open(&settings(port), SERVICE.into()).await {
            Ok(vault) => {
                assert!(is_away, "{what}: it was taken for one");
                let error = vault.place(&run("r-1")).await.unwrap_err();
                assert!(error.may_pass);
                format!("{error:?}")
            }
            Err(error) => {
                assert!(!is_away && error.hint().is_some(), "{error}");
                error.lines()
            }
        };
        assert!(said.contains(what) && began.elapsed() < Duration::from_secs(5), "{what}: {said}");
        assert!(!said.contains(TOKEN) && !said.contains(secret) && !said.contains('\u{1b}'), "{said}");
        let asked = asked.recv().unwrap();
        for header in [&format!("x-vault-token: {TOKEN}"), "x-vault-request: true", "x-vault-namespace: team/z"] {
            assert!(asked.contains(header), "{asked}");
        }
    }
}
