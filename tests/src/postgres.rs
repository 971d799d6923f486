//! PostgreSQL: a server of a test's own, on a port of its own, gone when dropped.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::User;
use tempfile::TempDir;

use crate::command::{Run, Running};
use crate::server::free_port;

/// A server's time is the test's time.
const LIMIT: u64 = 600;
/// Its user, who may do everything, and that user's password.
const USER: &str = "postgres";
/// See [`USER`].
pub const PASSWORD: &str = "correct-horse";
/// Where Debian puts its versions.
const VERSIONS: &str = "/usr/lib/postgresql";

/// A PostgreSQL server with an empty database.
///
/// The kernel ends it with the thread that has started it: start it from the test's own thread.
pub struct Postgres {
    dir: TempDir,
    port: u16,
    options: &'static [&'static str],
    running: Option<Running>,
}

impl Default for Postgres {
    fn default() -> Self {
        Self::new()
    }
}

impl Postgres {
    /// One that is quick: it survives crashes of its own, but not of the machine.
    pub fn new() -> Self {
        Self::with(&["-c", "fsync=off"])
    }

    /// One that has on disk what it has acknowledged.
    pub fn durable() -> Self {
        Self::with(&[])
    }

    fn with(options: &'static [&'static str]) -> Self {
        let template = template();
        let dir = folder();
        as_server(&crate::command::tool("cp")).arg("-a").arg(data(template.path())).arg(data(dir.path())).done().ok();
        // Somebody may take the port between our look and the server's.
        let mut server = Postgres { dir, port: 0, options, running: None };
        for _ in 0..5 {
            server.port = free_port();
            if server.try_go() {
                return server;
            }
        }
        panic!("PostgreSQL does not start; what it said is above");
    }

    /// Starts it again, where it was.
    ///
    /// # Panics
    /// When it does not start.
    pub fn go(&mut self) {
        assert!(self.try_go(), "PostgreSQL does not start again; what it said is above");
    }

    fn try_go(&mut self) -> bool {
        let port = self.port.to_string();
        let start = as_server(&program("postgres")).arg("-D").arg(data(self.dir.path())).arg("-p").arg(&port);
        let start =
            start.words("-c listen_addresses=127.0.0.1 -c unix_socket_directories= -c log_min_messages=warning");
        let mut running = start.args(self.options).limit(LIMIT).start();
        for _ in 0..3000 {
            if running.exit_status().is_some() {
                eprintln!("PostgreSQL did not start:\n{}", running.finish().stderr);
                return false;
            }
            if self.client().words("-c").arg("SELECT 1").done().status.success() {
                self.running = Some(running);
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("PostgreSQL does not answer on port {port}:\n{}", running.stderr());
    }

    /// Stops it as its administrator would: open transactions are rolled back, clients are told.
    pub fn stop(&mut self) {
        self.end(Signal::SIGINT);
    }

    /// Ends it in the middle of everything; when it goes again, it recovers.
    pub fn crash(&mut self) {
        self.end(Signal::SIGQUIT);
    }

    /// SIGKILL would leave its children and its shared memory behind.
    fn end(&mut self, signal: Signal) {
        let Some(mut running) = self.running.take() else { return };
        if running.exit_status().is_none() {
            running.signal(signal);
        }
        for _ in 0..3000 {
            if running.exit_status().is_some() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        eprintln!("PostgreSQL did not end:\n{}", running.stderr());
    }

    /// Its database, with the password.
    pub fn url(&self) -> String {
        self.url_with(PASSWORD)
    }

    /// Its database, with another password.
    pub fn url_with(&self, password: &str) -> String {
        format!("postgres://{USER}:{password}@127.0.0.1:{}/postgres", self.port)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Executes SQL, and returns what comes of it: lines of columns parted by `|`.
    #[track_caller]
    pub fn sql(&self, sql: &str) -> String {
        self.client().arg("-c").arg(sql).text().trim().to_owned()
    }

    /// All that its database holds, as `pg_dump` writes it.
    ///
    /// # Panics
    /// When that fails.
    #[track_caller]
    pub fn dump(&self) -> String {
        Run::program(&program("pg_dump")).arg("--dbname").arg(self.url()).env("PGCONNECT_TIMEOUT", "10").text()
    }

    /// `psql`, connected to its database.
    pub fn client(&self) -> Run {
        let psql = Run::program(&program("psql")).words("--no-psqlrc --tuples-only --no-align --set ON_ERROR_STOP=1");
        psql.arg(self.url()).env("PGCONNECT_TIMEOUT", "10")
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.crash();
    }
}

/// A data folder as `initdb` makes it, made once for all servers that live at the same time.
fn template() -> Arc<TempDir> {
    static TEMPLATE: Mutex<Weak<TempDir>> = Mutex::new(Weak::new());
    let mut template = TEMPLATE.lock().unwrap_or_else(PoisonError::into_inner);
    template.upgrade().unwrap_or_else(|| {
        let dir = folder();
        let password = dir.path().join("password");
        std::fs::write(&password, PASSWORD).expect("writing a password");
        let make = as_server(&program("initdb")).arg("-D").arg(data(dir.path())).arg("--username").arg(USER);
        let make = make.arg("--pwfile").arg(&password);
        make.words("--no-sync --auth=scram-sha-256 --locale=C.UTF-8 --encoding=UTF8").done().ok();
        let made = Arc::new(dir);
        *template = Arc::downgrade(&made);
        made
    })
}

fn data(dir: &Path) -> PathBuf {
    dir.join("data")
}

/// A folder that the server's user owns.
fn folder() -> TempDir {
    let dir =
        tempfile::Builder::new().prefix("z-provisioner-e2e-postgres-").tempdir_in("/var/tmp").expect("a directory");
    if let Some(user) = server_user() {
        nix::unistd::chown(dir.path(), Some(user.uid), Some(user.gid)).expect("giving a directory away");
    }
    dir
}

/// The server refuses to run as root.
fn server_user() -> Option<User> {
    if !nix::unistd::geteuid().is_root() {
        return None;
    }
    let user = User::from_name("postgres").expect("looking for a user");
    Some(
        user.expect(
            "there is no user postgres: apt-get install --no-install-recommends postgresql, or `cargo xtask test`",
        ),
    )
}

/// A program as the server's user, which the kernel ends with our thread.
fn as_server(program: &Path) -> Run {
    let run = Run::tool("setpriv").words("--pdeathsig QUIT");
    let run = match server_user() {
        Some(user) => {
            run.args([format!("--reuid={}", user.uid), format!("--regid={}", user.gid)]).arg("--clear-groups")
        }
        None => run,
    };
    run.arg("--").arg(program).within(Path::new("/"))
}

/// A program of the latest version installed.
fn program(name: &str) -> PathBuf {
    let versions =
        std::fs::read_dir(VERSIONS).into_iter().flatten().flatten().map(|version| version.path().join("bin"));
    let mut found: Vec<PathBuf> = versions.map(|bin| bin.join(name)).filter(|path| path.is_file()).collect();
    found.sort();
    found.pop().unwrap_or_else(|| {
        panic!("{VERSIONS} has no {name}: apt-get install --no-install-recommends postgresql, or `cargo xtask test`")
    })
}
