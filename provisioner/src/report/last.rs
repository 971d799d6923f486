//! The last event, told to whom it concerns before the machine starts what was written: by a POST, again and again until it is accepted
//! or the time is over.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use imgstream::error::{Error, Result, Retry};
use imgstream::source::Dial;
use protocol::event::{Body, Event};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Output;
use crate::control::{Address, Client};

/// How long is waited before the next try.
const PAUSE: Duration = Duration::from_secs(2);
/// After how long it is said that nobody accepts it, and then each time that has doubled.
const TELL: Duration = Duration::from_secs(5);

/// Keeps the last event. Clones share it.
#[derive(Clone, Default)]
pub struct Last(Arc<Mutex<Option<Event>>>);

impl Output for Last {
    fn tell(&mut self, event: &Event) {
        if matches!(event.event, Body::RunFinished(_) | Body::RunFailed(_)) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(event.clone());
        }
    }
}

impl Last {
    /// What it says, once there is one.
    pub fn body(&self) -> Option<Body> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|event| event.event.clone())
    }

    /// Posts it to `url` (`http://HOST[:PORT]/PATH`) within `within`. Any 2xx accepts it. Connections are made by `dial`;
    /// `say` hears what is waited for.
    ///
    /// # Errors
    /// `Source` with what the last try met; `Usage` for another kind of URL.
    pub async fn deliver(
        &self,
        url: &str,
        within: Duration,
        dial: Dial,
        say: &dyn Fn(&str),
        cancel: &CancellationToken,
    ) -> Result<()> {
        let event = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let event = event.ok_or_else(|| Error::source_failed("there is no last event"))?;
        let body =
            serde_json::to_vec(&event).map_err(|error| Error::usage(format!("writing the last event: {error}")))?;
        let (body, client) = (Bytes::from(body), client(url, dial)?);
        let deadline = Instant::now() + within;
        let (since, mut next) = (Instant::now(), TELL);
        loop {
            let why = match timeout_at(deadline, client.tell(body.clone())).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(trouble)) => trouble.to_string(),
                Err(_) => format!("no answer within {} s", within.as_secs()),
            };
            if Instant::now() + PAUSE >= deadline {
                return Err(Error::source_failed(format!("the end of the run was not accepted by {url} within {} s: {why}", within.as_secs()))
                    .with_retry(Retry::Temporary)
                    .with_hint("the target holds the image, proven. See that whoever is to be told listens, then IPL the disk by hand or run again with `options.resume`"));
            }
            if since.elapsed() >= next {
                say(&format!("warning: the end of the run is not accepted yet by {url}: {why}"));
                next *= 2;
            }
            if cancel.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return Err(Error::cancelled("telling the end of the run"));
            }
        }
    }
}

/// Host and port, and the path of an `http` URL.
///
/// # Errors
/// `Usage` for anything else.
pub fn parts(url: &str) -> Result<(&str, &str)> {
    let wrong = || Error::usage(format!("{url:?} is no http:// URL")).with_hint("such as http://10.20.0.1:8080/runs");
    let rest = url.strip_prefix("http://").ok_or_else(wrong)?;
    let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    let printable = url.bytes().all(|byte| byte.is_ascii_graphic());
    if host.is_empty() || host.contains('@') || !printable { Err(wrong()) } else { Ok((host, path)) }
}

fn client(url: &str, dial: Dial) -> Result<Client> {
    parts(url)?;
    Client::new(Address::parse(url)?, None, dial)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;

    use imgstream::source::SourceOptions;

    use super::*;

    fn dial() -> Dial {
        Dial::new(&SourceOptions::default())
    }

    fn ended() -> Last {
        let mut last = Last::default();
        let failure = serde_json::json!({
            "kind": "run-failed", "phase": "image", "error": "image", "exit_code": 3, "message": "m", "causes": [],
            "retryable": false, "target": "untouched",
        });
        let event = serde_json::json!({"run": "r", "attempt": 1, "index": 0, "at": 0.5, "time": "t", "event": failure});
        last.tell(&serde_json::from_value(event).unwrap());
        last
    }

    /// Answers each connection with the next of these, and hands back what it was sent.
    fn server(answers: &'static [&'static str]) -> (String, std::thread::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/runs", listener.local_addr().unwrap());
        let served = std::thread::spawn(move || {
            let answer = |status: &&str| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut bytes = vec![0; 4096];
                let length = stream.read(&mut bytes).unwrap();
                write!(stream, "HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").unwrap();
                String::from_utf8_lossy(&bytes[..length]).into_owned()
            };
            answers.iter().map(answer).collect()
        });
        (url, served)
    }

    #[tokio::test]
    async fn it_is_told_until_it_is_accepted() {
        let (url, served) = server(&["503 Later", "201 Created"]);
        ended().deliver(&url, Duration::from_secs(30), dial(), &|_| (), &CancellationToken::new()).await.unwrap();
        let heard = served.join().unwrap();
        assert!(
            heard[1].starts_with("POST /runs HTTP/1.1\r\n") && heard[1].contains(r#""kind":"run-failed""#),
            "{heard:?}"
        );
    }

    #[tokio::test]
    async fn without_an_answer_it_ends_and_says_why() {
        let error = ended()
            .deliver("http://127.0.0.1:1/", Duration::from_secs(1), dial(), &|_| (), &CancellationToken::new())
            .await
            .unwrap_err();
        assert!(error.to_string().contains("was not accepted by http://127.0.0.1:1/ within 1 s: "), "{error}");
    }

    #[test]
    fn only_http_urls_are_taken() {
        assert_eq!(parts("http://h:1/a/b?c").unwrap(), ("h:1", "/a/b?c"));
        assert_eq!(parts("http://h").unwrap(), ("h", "/"));
        for wrong in ["https://h/", "http://", "http://u@h/", "http://h/a b", "h/x"] {
            assert!(parts(wrong).is_err(), "{wrong}");
        }
    }
}
