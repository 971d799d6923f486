//! Which path to a disk works right now: firmware knows one path, not a map of several.

use std::path::Path;
use std::time::Duration;

use imgstream::error::{Error, Result, Retry};

use super::record::{Media, ReadAt};
use crate::thread::apart;

/// A path that works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alive {
    /// Its kernel name, such as `sda`.
    pub path: String,
    /// Why each path that was tried before it does not, in a sentence.
    pub failed: Vec<String>,
}

/// The first of `candidates`, kernel names below `dev` (`/dev`), through which the disk's first bytes are read past every
/// cache, and are those that are `expected`. Each may take `limit`.
///
/// A path that hangs keeps a thread until the kernel gives it up.
///
/// # Errors
/// `Device` when there is none, with what each answered; temporary.
pub async fn proven_alive(dev: &Path, candidates: &[String], expected: &[u8], limit: Duration) -> Result<Alive> {
    let mut failed = Vec::new();
    for name in candidates {
        let (node, len) = (dev.join(name), expected.len());
        let read = move || {
            let mut found = vec![0; len];
            Media::open(&node)?.read_at(&mut found, 0).map(|()| found)
        };
        let why = match tokio::time::timeout(limit, apart(&format!("reads {name}"), read)).await {
            Ok(Ok(found)) if found == expected => return Ok(Alive { path: name.clone(), failed }),
            Ok(Ok(_)) => format!("its first {len} bytes are not what was written to the disk"),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it has not answered within {} s", limit.as_secs_f64()),
        };
        failed.push(format!("{name}: {why}"));
    }
    let why = if failed.is_empty() { "there is none".to_owned() } else { failed.join("; ") };
    let message = format!("no path to the disk works that firmware could start from: {why}");
    Err(Error::device(message).with_retry(Retry::Temporary).with_hint("look at the paths: multipath -ll, dmesg"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn the_first_path_that_gives_the_bytes_is_it_and_the_others_say_why_not() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let written = [b"zIPL".repeat(1024), vec![0; 4096]].concat();
        std::fs::write(dir.path().join("sdb"), vec![0; 8192]).unwrap();
        std::fs::write(dir.path().join("sdc"), &written[..512]).unwrap();
        std::fs::write(dir.path().join("sdd"), &written).unwrap();
        let names = ["sda", "sdb", "sdc", "sdd", "sde"].map(String::from);
        let alive = proven_alive(dir.path(), &names, &written[..4096], LIMIT).await.unwrap();
        assert_eq!(alive.path, "sdd");
        let [a, b, c] = &alive.failed[..] else { panic!("{alive:?}") };
        assert!(a.starts_with("sda: opening ") && a.contains("No such file"), "{a}");
        assert_eq!(b, "sdb: its first 4096 bytes are not what was written to the disk");
        assert!(c.starts_with("sdc: reading ") && c.ends_with("it ends before"), "{c}");
        let error = proven_alive(dir.path(), &names[..2], &written[..4096], LIMIT).await.unwrap_err();
        assert!(error.to_string().contains("sda: opening ") && error.retry() == Retry::Temporary, "{error}");
        let none = proven_alive(dir.path(), &[], &written, LIMIT).await.unwrap_err();
        assert!(none.to_string().ends_with(": there is none"), "{none}");
    }

    #[tokio::test]
    async fn a_path_that_hangs_is_left_behind() {
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        std::fs::write(dir.path().join("sdb"), [5; 4096]).unwrap();
        // Nobody writes to it, so opening it does not return.
        let hangs = dir.path().join("sda");
        nix::unistd::mkfifo(&hangs, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let names = ["sda", "sdb"].map(String::from);
        let alive = proven_alive(dir.path(), &names, &[5; 4096], Duration::from_millis(300)).await.unwrap();
        assert_eq!(
            (alive.path.as_str(), &alive.failed[..]),
            ("sdb", &["sda: it has not answered within 0.3 s".to_owned()][..])
        );
        // Lets the thread go, for which the runtime would wait.
        drop(std::fs::OpenOptions::new().write(true).open(&hangs).unwrap());
    }
}
