//! Commands in a guest.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use guest_init::frames::{Ask, End, Program};
use nix::sys::signal::Signal;

use crate::channel::Channel;

/// How long a command may take unless told otherwise.
const LIMIT: Duration = Duration::from_secs(60);

/// What the guest is asked when a command has exceeded its time: which tasks wait in the kernel, and for which requests of which disk.
const WHAT_HANGS: &str = "echo w >/proc/sysrq-trigger; mount -t debugfs none /sys/kernel/debug; \
    cd /sys/kernel/debug/block && grep -sH . */hctx*/busy */hctx*/dispatch */requeue_list; dmesg | tail -80";
/// How long it may take to say so.
const SAYING: Duration = Duration::from_secs(10);

/// A command to run in a guest.
pub struct Run {
    channel: Arc<Channel>,
    program: Program,
    input: Option<Vec<u8>>,
    limit: Duration,
}

impl Run {
    pub(crate) fn new(channel: &Arc<Channel>, arguments: Vec<String>) -> Self {
        let program = Program { arguments, environment: Vec::new(), directory: "/".into() };
        Self { channel: Arc::clone(channel), program, input: Some(Vec::new()), limit: LIMIT }
    }

    /// Sets an environment variable, besides `PATH`, `HOME`, `LC_ALL` and `TERM`.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.program.environment.push((name.into(), value.into()));
        self
    }

    /// Sets the working directory, which is `/` otherwise.
    #[must_use]
    pub fn within(mut self, directory: &str) -> Self {
        self.program.directory = directory.into();
        self
    }

    /// Gives it these bytes as standard input, which is empty otherwise.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Leaves its standard input open, for [`Process::write`].
    #[must_use]
    pub fn stdin_open(mut self) -> Self {
        self.input = None;
        self
    }

    /// Sets the time limit in seconds, which is 60 otherwise.
    #[must_use]
    pub fn limit(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When the guest cannot be reached.
    #[track_caller]
    pub fn start(self) -> Process {
        let number = self.channel.number();
        let line = self.program.arguments.join(" ");
        let process = Process {
            channel: self.channel,
            number,
            line,
            started: Instant::now(),
            limit: self.limit,
            over: AtomicBool::new(false),
        };
        process.ask(&Ask::Run(self.program));
        if let Some(input) = self.input {
            process.write(&input);
            process.ask(&Ask::Input(Vec::new()));
        }
        process
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it cannot be started or exceeds its time.
    #[track_caller]
    pub fn done(self) -> Done {
        self.start().finish()
    }

    /// Runs it, demands success, and returns what it wrote to standard output.
    ///
    /// # Panics
    /// When it fails.
    #[track_caller]
    pub fn text(self) -> String {
        self.done().ok().stdout
    }
}

/// A command that runs in a guest. Its process group is killed when this is dropped before its end; the guest may be gone by then.
pub struct Process {
    channel: Arc<Channel>,
    number: u32,
    line: String,
    started: Instant,
    limit: Duration,
    over: AtomicBool,
}

impl Process {
    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.heard(|heard| String::from_utf8_lossy(&heard.stdout).into_owned())
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.heard(|heard| String::from_utf8_lossy(&heard.stderr).into_owned())
    }

    /// How it ended, if it has.
    pub fn ended(&self) -> Option<End> {
        self.heard(|heard| heard.end.clone())
    }

    /// Gives it bytes as standard input.
    ///
    /// # Panics
    /// When the guest cannot be reached.
    #[track_caller]
    pub fn write(&self, bytes: &[u8]) {
        for chunk in bytes.chunks(guest_init::frames::CHUNK) {
            self.ask(&Ask::Input(chunk.to_vec()));
        }
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When the guest cannot be reached.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        self.ask(&Ask::Signal { number: signal as i32, group: false });
    }

    /// Sends a signal to it and all it has started.
    ///
    /// # Panics
    /// When the guest cannot be reached.
    #[track_caller]
    pub fn signal_group(&self, signal: Signal) {
        self.ask(&Ask::Signal { number: signal as i32, group: true });
    }

    /// Waits until something is so while it runs.
    ///
    /// # Panics
    /// When it ends first, or its time does.
    #[track_caller]
    pub fn until(&self, what: &str, mut so: impl FnMut(&str, &str) -> bool) {
        let board = self.channel.board();
        let waited = board.wait(&format!("{what} of `{}`", self.line), self.left(), |notes| {
            let heard = notes.commands.entry(self.number).or_default();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let now = so(&text(&heard.stdout), &text(&heard.stderr));
            (now || heard.end.is_some()).then_some(now)
        });
        let why = match waited {
            Ok(true) => return,
            Ok(false) => format!("`{}` ended before {what} came", self.line),
            Err(why) => why,
        };
        self.channel.fail(&format!("{why}\n{}{}", self.stdout(), self.stderr()));
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it exceeds its time.
    #[track_caller]
    pub fn finish(self) -> Done {
        let (end, stdout, stderr) = self.raw();
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        let (stdout, stderr) = (text(stdout), text(stderr));
        Done { end, stdout, stderr, took: self.started.elapsed(), line: self.line.clone() }
    }

    /// Waits for its end, and hands its output on as it came.
    #[track_caller]
    pub(crate) fn raw(&self) -> (End, Vec<u8>, Vec<u8>) {
        let waited = self.channel.board().wait(&format!("the end of `{}`", self.line), self.left(), |notes| {
            notes.commands.get(&self.number)?.end.as_ref()?;
            notes.commands.remove(&self.number)
        });
        self.over.store(true, Ordering::Relaxed);
        match waited {
            Ok(heard) => (heard.end.expect("it has ended"), heard.stdout, heard.stderr),
            Err(why) => {
                let (stdout, stderr) = (self.stdout(), self.stderr());
                let kill = Ask::Signal { number: Signal::SIGKILL as i32, group: true };
                let hangs = self.what_hangs();
                let _ = self.channel.try_ask(self.number, &kill);
                self.channel.fail(&format!("{why}\n{stdout}{stderr}\nthe guest's kernel:\n{hangs}"))
            }
        }
    }

    fn what_hangs(&self) -> String {
        let number = self.channel.number();
        let arguments = ["sh", "-c", WHAT_HANGS].map(str::to_owned).to_vec();
        let asking = Ask::Run(Program { arguments, environment: Vec::new(), directory: "/".into() });
        if let Err(error) = self.channel.try_ask(number, &asking) {
            return error.to_string();
        }
        let said = self.channel.board().wait("the kernel's account", SAYING, |notes| {
            notes.commands.get(&number)?.end.as_ref()?;
            notes.commands.remove(&number)
        });
        said.map_or_else(|why| why, |heard| String::from_utf8_lossy(&heard.stdout).into_owned())
    }

    fn left(&self) -> Duration {
        self.limit.saturating_sub(self.started.elapsed())
    }

    fn heard<T>(&self, look: impl FnOnce(&crate::board::Heard) -> T) -> T {
        self.channel.board().note(|notes| look(notes.commands.entry(self.number).or_default()))
    }

    #[track_caller]
    fn ask(&self, ask: &Ask) {
        self.channel.ask(self.number, ask);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.over.load(Ordering::Relaxed) && self.ended().is_none() {
            let _ = self.channel.try_ask(self.number, &Ask::Signal { number: Signal::SIGKILL as i32, group: true });
        }
    }
}

/// A command that has ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// How it ended.
    pub end: End,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// How long it took, as seen from here.
    pub took: Duration,
    /// The command.
    pub line: String,
}

impl Done {
    /// Demands success.
    ///
    /// # Panics
    /// When it failed.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.exits(0)
    }

    /// Demands an exit code.
    ///
    /// # Panics
    /// When it ended otherwise.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        let Done { end, line, stdout, stderr, .. } = &self;
        assert_eq!(*end, End::Exit(code), "{line}\nended with {end:?}\n{stdout}{stderr}");
        self
    }

    /// Demands failure.
    ///
    /// # Panics
    /// When it succeeded.
    #[track_caller]
    pub fn fails(self) -> Self {
        let Done { end, line, stdout, stderr, .. } = &self;
        assert_ne!(*end, End::Exit(0), "{line}\nshould have failed\n{stdout}{stderr}");
        self
    }

    /// Demands that it said something on either output, letters' case aside.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        let said = format!("{}{}", self.stdout, self.stderr);
        assert!(said.to_lowercase().contains(&text.to_lowercase()), "{}\ndoes not say {text:?}:\n{said}", self.line);
        self
    }
}
