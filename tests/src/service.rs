//! `z-orchestrator serve`, with a data folder of its own, and its client.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::command::{Done, Run, Running};
use crate::lab::Lab;
use crate::server::free_port;

/// A service's time is the test's time.
const LIMIT: u64 = 1200;

/// A service. Killed when dropped; the agents that it has started with it.
pub struct Service {
    dir: PathBuf,
    config: PathBuf,
    url: String,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    running: Option<Running>,
}

impl Service {
    /// With a configuration; `listen` and `data` are set here.
    ///
    /// # Panics
    /// When it does not start.
    pub fn new(lab: &Lab, config: Value) -> Self {
        let mut service = Self::unstarted(lab, config);
        service.go();
        service
    }

    /// The same, not started yet.
    ///
    /// # Panics
    /// When its files cannot be written.
    pub fn unstarted(lab: &Lab, mut config: Value) -> Self {
        let dir = lab.fresh("service");
        let address = format!("127.0.0.1:{}", free_port());
        config["listen"] = json!([address]);
        config["data"] = json!(dir);
        let config = lab.file("service.json", config.to_string().as_bytes());
        Service {
            dir,
            config,
            url: format!("https://{address}"),
            arguments: Vec::new(),
            environment: Vec::new(),
            running: None,
        }
    }

    /// With its data folder in another place, where it is to be started first.
    ///
    /// # Panics
    /// When its configuration cannot be written.
    #[must_use]
    pub fn within(mut self, folder: &Path) -> Self {
        self.dir = folder.join("service");
        let config = std::fs::read(&self.config).expect("the configuration");
        let mut config: Value = serde_json::from_slice(&config).expect("the configuration");
        config["data"] = json!(self.dir);
        std::fs::write(&self.config, config.to_string()).expect("writing the configuration");
        self
    }

    /// With another value of a key of the configuration, from the next start on.
    ///
    /// # Panics
    /// When its configuration cannot be written.
    pub fn configure(&self, key: &str, value: Value) {
        let config = std::fs::read(&self.config).expect("the configuration");
        let mut config: Value = serde_json::from_slice(&config).expect("the configuration");
        config[key] = value;
        std::fs::write(&self.config, config.to_string()).expect("writing the configuration");
    }

    /// With another argument, from the next start on.
    #[must_use]
    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.to_owned());
        self
    }

    /// With an environment variable, from the next start on.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.push((name.to_owned(), value.into()));
        self
    }

    /// Starts it, again where it had been.
    ///
    /// # Panics
    /// When it does not start.
    #[track_caller]
    pub fn go(&mut self) {
        let mut running = self.serve().start();
        let marker = format!("listening on {}", self.url);
        running.until("the service", |service| service.stderr().contains(&marker));
        self.running = Some(running);
    }

    /// Its command line.
    pub fn serve(&self) -> Run {
        let serve =
            Run::orchestrator().arg("serve").arg("--config").arg(&self.config).args(&self.arguments).limit(LIMIT);
        self.environment.iter().fold(serve, |serve, (name, value)| serve.env(name, value))
    }

    /// Kills it as a power switch would. Its agents go on.
    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            running.kill();
        }
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Panics
    /// When it runs no more.
    #[track_caller]
    pub fn stop(&mut self) -> Done {
        let mut running = self.running.take().expect("a running service");
        running.signal(Signal::SIGTERM);
        running.finish()
    }

    /// The process.
    ///
    /// # Panics
    /// When it does not run.
    pub fn running(&mut self) -> &mut Running {
        self.running.as_mut().expect("a running service")
    }

    /// Its URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its data folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// `z-orchestrator run …`, as its operator.
    pub fn client(&self, words: &str) -> Run {
        let (command, options) = words.split_once(' ').unwrap_or((words, ""));
        let run = Run::orchestrator().arg("run").arg(command);
        run.arg("--url").arg(&self.url).arg("--data").arg(&self.dir).words(options)
    }

    /// Creates a run; its name.
    ///
    /// # Panics
    /// When it is not created.
    #[track_caller]
    pub fn create(&self, lab: &Lab, new: &Value) -> String {
        let file = lab.file("run.json", new.to_string().as_bytes());
        self.client("create").arg(file).text().trim().to_owned()
    }

    /// A run, as JSON.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn show(&self, run: &str) -> Value {
        self.client("show --json").arg(run).done().ok().json().remove(0)
    }

    /// All runs, as JSON.
    ///
    /// # Panics
    /// When there is no answer.
    #[track_caller]
    pub fn list(&self) -> Vec<Value> {
        self.client("list --all --json").done().ok().json()
    }

    /// Waits until a run is in one of these states.
    ///
    /// # Panics
    /// When it takes longer than that.
    #[track_caller]
    pub fn until(&self, run: &str, states: &[&str], seconds: u64) -> Value {
        let began = Instant::now();
        loop {
            let shown = self.show(run);
            if states.iter().any(|state| shown["state"] == *state) {
                return shown;
            }
            assert!(began.elapsed() < Duration::from_secs(seconds), "run {run} is not {states:?}: {shown:#}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.kill();
        // Agents live in process groups of their own; what names our folder on its command line is ours.
        let ours = self.dir.display().to_string();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|pid| pid.parse::<i32>().ok()) else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if pid != std::process::id().cast_signed() && String::from_utf8_lossy(&line).contains(&ours) {
                let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
    }
}
