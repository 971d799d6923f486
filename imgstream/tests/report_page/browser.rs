//! A real browser without a window, told what to do over a pipe: Chromium's DevTools protocol, one JSON object after
//! another, each ended by a zero byte.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Its names on various systems; Debian's package is the first.
const NAMES: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "chromium-headless-shell"];
/// How long one command may take. A loaded machine starts a browser in ten seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// How long it may take to end.
const GOODBYE: Duration = Duration::from_secs(10);

/// A browser with one page. Gone when dropped.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    next: u64,
    session: Option<String>,
    /// What it told without having been asked.
    pub events: Vec<Value>,
    /// Its profile goes with it.
    _profile: tempfile::TempDir,
}

/// Where the browser is.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let found = NAMES.iter().flat_map(|name| places.iter().map(move |dir| dir.join(name))).find(|path| path.is_file());
    found.expect("chromium is missing: apt-get install --no-install-recommends chromium, or `cargo xtask test`")
}

impl Browser {
    /// Starts it with an empty page.
    pub fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // It reads commands from descriptor 3 and answers on 4; a shell moves our two pipes there.
        let mut command = Command::new("sh");
        command.args(["-c", r#"exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null"#, "sh"]).arg(program());
        command.args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-pipe",
        ]);
        command.args([
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--hide-scrollbars",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display())).arg("about:blank");
        // Whatever it keeps for a user and for itself goes away as well.
        command.env("TMPDIR", profile.path());
        command
            .env("HOME", profile.path())
            .env("XDG_CONFIG_HOME", profile.path())
            .env("XDG_CACHE_HOME", profile.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("starting the browser");
        let (to, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, from) = channel();
        std::thread::spawn(move || {
            let mut answers = BufReader::new(answers);
            let mut message = Vec::new();
            while answers.read_until(0, &mut message).is_ok_and(|len| len > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { break };
                if sender.send(value).is_err() {
                    break;
                }
                message.clear();
            }
        });
        let mut browser = Browser { child, to, from, next: 0, session: None, events: Vec::new(), _profile: profile };
        browser.attach();
        browser
    }

    fn attach(&mut self) {
        let target = self.ask("Target.createTarget", &json!({"url": "about:blank"}));
        let session = self.ask("Target.attachToTarget", &json!({"targetId": target["targetId"], "flatten": true}));
        self.session = Some(session["sessionId"].as_str().expect("a session").to_owned());
        for domain in ["Page.enable", "Network.enable", "Log.enable", "Runtime.enable"] {
            self.ask(domain, &json!({}));
        }
    }

    /// Sends a command and waits for its answer.
    #[track_caller]
    pub fn ask(&mut self, method: &str, parameters: &Value) -> Value {
        self.next += 1;
        let mut command = json!({"id": self.next, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            command["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{command}\0").as_bytes()).expect("telling the browser");
        let until = Instant::now() + LIMIT;
        loop {
            let message = self.message(until, method);
            if message["id"] == json!(self.next) {
                assert!(message.get("error").is_none(), "{method}: {}", message["error"]);
                return message["result"].clone();
            }
            self.events.push(message);
        }
    }

    #[track_caller]
    fn message(&mut self, until: Instant, what: &str) -> Value {
        match self.from.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => panic!("the browser did not answer {what} within {LIMIT:?}"),
            Err(RecvTimeoutError::Disconnected) => panic!("the browser ended at {what}: {:?}", self.child.try_wait()),
        }
    }

    /// Opens a file in a window of this width and waits until it is loaded.
    #[track_caller]
    pub fn open(&mut self, page: &Path, width: u32) {
        self.resize(width);
        self.events.clear();
        self.ask("Page.navigate", &json!({"url": format!("file://{}", page.display())}));
        let until = Instant::now() + LIMIT;
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            let message = self.message(until, "that the page is loaded");
            self.events.push(message);
        }
    }

    /// Gives the window a width.
    pub fn resize(&mut self, width: u32) {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        self.ask("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Evaluates an expression in the page, past its policy, as a person with developer tools would.
    #[track_caller]
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self.ask("Runtime.evaluate", &json!({"expression": expression, "returnByValue": true}));
        assert!(answer.get("exceptionDetails").is_none(), "{}", answer["exceptionDetails"]);
        answer["result"]["value"].clone()
    }

    /// The names of what it told since the page was opened.
    pub fn told(&self, method: &str) -> Vec<&Value> {
        self.events.iter().filter(|event| event["method"] == method).map(|event| &event["params"]).collect()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Asked to, it ends its helpers and clears up; killed, it leaves both.
        let close = json!({"id": self.next + 1, "method": "Browser.close"});
        let _ = self.to.write_all(format!("{close}\0").as_bytes());
        let until = Instant::now() + GOODBYE;
        while self.child.try_wait().is_ok_and(|ended| ended.is_none()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
