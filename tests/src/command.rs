//! Commands with a time limit, their exit code and what they said.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// How long a command may take unless told otherwise.
const LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(4);

/// The Debian package that has a tool.
const PACKAGES: &[(&str, &str)] = &[
    ("addpart", "util-linux"),
    ("base64", "coreutils"),
    ("bash", "bash"),
    ("blockdev", "util-linux"),
    ("buildah", "buildah"),
    ("busybox", "busybox"),
    ("chroot", "coreutils"),
    ("cmp", "diffutils"),
    ("cp", "coreutils"),
    ("curl", "curl"),
    ("date", "coreutils"),
    ("dd", "coreutils"),
    ("diff", "diffutils"),
    ("cryptsetup", "cryptsetup-bin"),
    ("docker-registry", "docker-registry"),
    ("e2fsck", "e2fsprogs"),
    ("fsfreeze", "util-linux"),
    ("kill", "procps"),
    ("ldd", "libc-bin"),
    ("losetup", "mount"),
    ("mke2fs", "e2fsprogs"),
    ("mkfs.btrfs", "btrfs-progs"),
    ("mkfs.xfs", "xfsprogs"),
    ("mkswap", "util-linux"),
    ("mount", "mount"),
    ("nginx", "nginx-light"),
    ("openssl", "openssl"),
    ("podman", "podman"),
    ("prometheus", "prometheus"),
    ("promtool", "prometheus"),
    ("python3", "python3"),
    ("prlimit", "util-linux"),
    ("qemu-s390x-static", "qemu-user-static"),
    ("setpriv", "util-linux"),
    ("sfdisk", "fdisk"),
    ("sh", "dash"),
    ("sha256sum", "coreutils"),
    ("skopeo", "skopeo"),
    ("swapoff", "mount"),
    ("swapon", "mount"),
    ("sync", "coreutils"),
    ("tar", "tar"),
    ("umount", "mount"),
    ("unshare", "util-linux"),
    ("zstd", "zstd"),
];

/// The path of a tool; where there is none, the test fails and names the package.
///
/// # Panics
/// When it is not installed.
pub fn tool(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let package = PACKAGES.iter().find(|(tool, _)| *tool == name).map_or("(unknown)", |(_, package)| package);
    places.map(|dir| dir.join(name)).find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("{name} is missing: apt-get install --no-install-recommends {package}, or `cargo xtask test`")
    })
}

/// A binary of this workspace: named by `variable`, else built beside this test.
///
/// # Panics
/// When it has not been built.
pub fn binary(name: &str, variable: &str) -> PathBuf {
    if let Some(path) = std::env::var_os(variable).map(PathBuf::from) {
        assert!(path.is_file(), "{variable} names {}, which is not there", path.display());
        return path;
    }
    let target = target_dir();
    let found = ["release", "debug"].map(|profile| target.join(profile).join(name)).into_iter().find(|p| p.is_file());
    found.unwrap_or_else(|| {
        panic!("{name} is not built: run `cargo build --release -p imgstream -p provisioner -p orchestrator`, or name it in {variable}")
    })
}

/// Cargo's target directory: this executable lies in `target/PROFILE/deps`.
pub fn target_dir() -> PathBuf {
    let here = std::env::current_exe().expect("the test's own path");
    here.ancestors().nth(3).expect("a test lies in target/PROFILE/deps").to_owned()
}

/// A command to run.
pub struct Run {
    command: Command,
    line: String,
    limit: Duration,
    measured: bool,
}

impl Run {
    /// A tool found in the PATH.
    pub fn tool(name: &str) -> Self {
        Self::program(&tool(name))
    }

    /// `imgstream`.
    pub fn imgstream() -> Self {
        Self::program(&binary("imgstream", "IMGSTREAM_BIN"))
    }

    /// `z-provisioner`.
    pub fn provisioner() -> Self {
        Self::program(&binary("z-provisioner", "Z_PROVISIONER_BIN"))
    }

    /// `z-orchestrator`.
    pub fn orchestrator() -> Self {
        Self::program(&binary("z-orchestrator", "Z_ORCHESTRATOR_BIN"))
    }

    /// A program that is not in the PATH.
    pub fn program(path: &Path) -> Self {
        let mut command = Command::new(path);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.env_remove("RUST_LOG").env("LC_ALL", "C");
        Run { command, line: path.display().to_string(), limit: LIMIT, measured: false }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        let _ = write!(self.line, " {}", argument.as_ref().to_string_lossy());
        self.command.arg(argument);
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(self, arguments: impl IntoIterator<Item = A>) -> Self {
        arguments.into_iter().fold(self, Run::arg)
    }

    /// Adds arguments that stand in one string, parted by spaces.
    #[must_use]
    pub fn words(self, words: &str) -> Self {
        self.args(words.split_whitespace())
    }

    /// Sets the working directory.
    #[must_use]
    pub fn within(mut self, dir: &Path) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// Gives it a file as standard input.
    #[must_use]
    pub fn stdin(mut self, file: std::fs::File) -> Self {
        self.command.stdin(file);
        self
    }

    /// Sends its standard output into a file.
    #[must_use]
    pub fn stdout(mut self, file: std::fs::File) -> Self {
        self.command.stdout(file);
        self
    }

    /// Sets the time limit in seconds.
    #[must_use]
    pub fn limit(mut self, seconds: u64) -> Self {
        self.limit = Duration::from_secs(seconds);
        self
    }

    /// Watches the process's peak of memory.
    #[must_use]
    pub fn measured(mut self) -> Self {
        self.measured = true;
        self
    }

    /// Starts it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn start(mut self) -> Running {
        let mut child = self.command.spawn().unwrap_or_else(|error| panic!("starting {}: {error}", self.line));
        let stderr = Text::read(child.stderr.take());
        let stdout = Text::read(child.stdout.take());
        Running {
            child,
            line: self.line,
            started: Instant::now(),
            limit: self.limit,
            measured: self.measured,
            peak: 0,
            stdout,
            stderr,
        }
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it cannot be started or exceeds its time.
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

/// What comes out of a pipe, collected as it comes.
struct Text {
    so_far: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Text {
    fn read(pipe: Option<impl Read + Send + 'static>) -> Self {
        let so_far = Arc::<Mutex<Vec<u8>>>::default();
        let reader = pipe.map(|pipe| {
            let so_far = Arc::clone(&so_far);
            std::thread::spawn(move || {
                let mut pipe = BufReader::new(pipe);
                let mut line = Vec::new();
                while pipe.read_until(b'\n', &mut line).is_ok_and(|len| len > 0) {
                    so_far.lock().unwrap().append(&mut line);
                }
            })
        });
        Text { so_far, reader }
    }

    fn now(&self) -> String {
        String::from_utf8_lossy(&self.so_far.lock().unwrap()).into_owned()
    }

    fn all(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.now()
    }
}

/// A command that runs. Killed when dropped.
pub struct Running {
    child: Child,
    line: String,
    started: Instant,
    limit: Duration,
    measured: bool,
    peak: u64,
    stdout: Text,
    stderr: Text,
}

impl Running {
    /// Its process number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn signal(&mut self, signal: Signal) {
        assert!(self.exit_status().is_none(), "{} has ended too early:\n{}", self.line, self.stderr.all());
        kill(Pid::from_raw(self.pid().cast_signed()), signal).expect("sending a signal");
    }

    /// Kills it as a power switch would; it may have ended already.
    pub fn kill(mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether it has ended, and how.
    ///
    /// # Panics
    /// When the kernel does not say.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("asking for a process")
    }

    /// What it has written to standard error so far.
    pub fn stderr(&self) -> String {
        self.stderr.now()
    }

    /// What it has written to standard output so far.
    pub fn stdout(&self) -> String {
        self.stdout.now()
    }

    /// Waits until something is so while the command runs.
    ///
    /// # Panics
    /// When the command ends first, or its time does.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut so: impl FnMut(&Self) -> bool) {
        while !so(self) {
            let ended = self.exit_status();
            if (ended.is_some() && !so(self)) || self.started.elapsed() > self.limit {
                let _ = self.child.kill();
                panic!("{what} never came; {} {ended:?}\n{}{}", self.line, self.stdout.all(), self.stderr.all());
            }
            std::thread::sleep(LOOK);
        }
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it exceeds its time.
    #[track_caller]
    pub fn finish(mut self) -> Done {
        let status = loop {
            if self.measured {
                self.peak = self.peak.max(high_water(self.pid()));
            }
            if let Some(status) = self.exit_status() {
                break status;
            }
            if self.started.elapsed() > self.limit {
                let _ = self.child.kill();
                let (out, err) = (self.stdout.all(), self.stderr.all());
                panic!("{} took more than {:?}\n{out}{err}", self.line, self.limit);
            }
            std::thread::sleep(LOOK);
        };
        Done {
            status,
            took: self.started.elapsed(),
            peak: self.peak,
            line: self.line.clone(),
            stdout: self.stdout.all(),
            stderr: self.stderr.all(),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `VmHWM` of a process, in bytes. It only grows, so the last look before the end is what counts.
fn high_water(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|text| text.split_whitespace().next())
        .and_then(|kib| kib.parse().ok())
        .map_or(0, |kib: u64| kib << 10)
}

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Done {
    /// How it ended.
    pub status: ExitStatus,
    /// How long it took.
    pub took: Duration,
    /// The peak of its memory in bytes, where it was measured.
    pub peak: u64,
    /// The command.
    pub line: String,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
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
        let Done { status, line, stdout, stderr, .. } = &self;
        assert_eq!(status.code(), Some(code), "{line}\nended with {status}\n{stdout}{stderr}");
        self
    }

    /// Demands that it said something on standard error, letters' case aside.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        let said = self.stderr.to_lowercase().contains(&text.to_lowercase());
        assert!(said, "{}\ndoes not say {text:?}:\n{}", self.line, self.stderr);
        self
    }

    /// The objects of `--json`, one per line.
    ///
    /// # Panics
    /// When a line is not one object.
    #[track_caller]
    pub fn json(&self) -> Vec<serde_json::Value> {
        let parse = |line: &str| {
            let object: serde_json::Value =
                serde_json::from_str(line).unwrap_or_else(|error| panic!("{line:?} is not JSON: {error}"));
            assert!(object.is_object(), "{line:?} is not an object");
            object
        };
        self.stdout.lines().map(parse).collect()
    }
}
