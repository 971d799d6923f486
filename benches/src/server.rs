//! nginx on a free loopback port, with a configuration of its own, gone when dropped.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::unistd::Uid;
use tempfile::TempDir;

use crate::children::Running;
use crate::failure::{Context, Failure, Result};
use crate::tools;

/// Ticks per second of the times in /proc/PID/stat; part of Linux's interface on every architecture we know.
const TICKS: f64 = 100.0;

/// A running nginx.
pub struct Server {
    running: Running,
    port: u16,
    _folder: TempDir,
}

impl Server {
    /// Serves `root`.
    pub fn start(root: &Path) -> Result<Self> {
        let folder = TempDir::with_prefix("bench-nginx-").context("could not make a folder for nginx")?;
        let port = free_port()?;
        let config = folder.path().join("nginx.conf");
        fs::write(&config, configuration(root, folder.path(), port)).context("could not write nginx.conf")?;
        let program = tools::find("nginx").context("nginx is not installed")?;
        let log = folder.path().join("start.log");
        let errors = File::create(&log).context("could not create nginx's log")?;
        let mut nginx = Command::new(program);
        nginx.arg("-p").arg(folder.path()).arg("-c").arg(&config);
        nginx.stdin(Stdio::null()).stdout(Stdio::null()).stderr(errors);
        let mut server = Self { running: Running::start(&mut nginx)?, port, _folder: folder };
        server.wait_until_up(&log)?;
        Ok(server)
    }

    fn wait_until_up(&mut self, log: &Path) -> Result<()> {
        let begin = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            if self.running.has_ended() || begin.elapsed() > Duration::from_secs(10) {
                let said = fs::read_to_string(log).unwrap_or_default();
                return Err(Failure::new(format!("nginx did not start:\n{said}")));
            }
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// The address of `path` below the root.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// CPU seconds its workers have used so far.
    pub fn cpu(&self) -> f64 {
        let parent = self.running.pid().to_string();
        let Ok(processes) = fs::read_dir("/proc") else {
            return 0.0;
        };
        let ticks: u64 = processes
            .flatten()
            .filter_map(|p| fs::read_to_string(p.path().join("stat")).ok())
            .filter_map(|stat| ticks_of_child(&stat, &parent))
            .sum();
        ticks as f64 / TICKS
    }
}

/// User and system ticks in a /proc/PID/stat line, if its process is a child of `parent`.
fn ticks_of_child(stat: &str, parent: &str) -> Option<u64> {
    // The name in brackets may hold anything, so count from the last bracket: state, ppid, …; utime is the 12th, stime the 13th.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    if fields.get(1) != Some(&parent) {
        return None;
    }
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// A port of the loopback interface that nobody listens on.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("could not bind a loopback port")?;
    Ok(listener.local_addr().context("could not read the port")?.port())
}

fn configuration(root: &Path, folder: &Path, port: u16) -> String {
    // Workers of a server started by root would become nobody, who may not read a home directory.
    let user = if Uid::effective().is_root() { "user root root;" } else { "" };
    let temp: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("  {kind}_temp_path {}/{kind};\n", folder.display()))
        .concat();
    format!(
        "daemon off;\n{user}\nworker_processes auto;\npid {folder}/nginx.pid;\nerror_log stderr warn;\n\
         events {{ worker_connections 512; }}\n\
         http {{\n  access_log off;\n  sendfile on;\n  tcp_nopush on;\n  keepalive_requests 1000000;\n\
         {temp}  server {{ listen 127.0.0.1:{port}; root \"{root}\"; }}\n}}\n",
        folder = folder.display(),
        root = root.display(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let stat = "42 (a) b) S 7 1 1 0 -1 4194304 10 0 0 0 150 50 0 0 20 0 1 0 5 6 7";
        assert_eq!(ticks_of_child(stat, "7"), Some(200));
        assert_eq!(ticks_of_child(stat, "8"), None);
    }
}
