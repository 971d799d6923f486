//! A program of this machine in a container's place: for many runs at once, where a container each would cost more than it shows.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Order, State};
use crate::process::{leash, spawn};

/// All of one machine. They end when this process does.
#[derive(Debug, Clone)]
pub struct Programs {
    program: PathBuf,
    logs: PathBuf,
    table: Arc<Mutex<HashMap<String, Entry>>>,
}

#[derive(Debug)]
struct Entry {
    child: Child,
    since: SystemTime,
    ended: Option<(SystemTime, i32)>,
}

impl Programs {
    /// This program in place of every image's; what they say goes into a folder.
    pub fn new(program: &Path, logs: &Path) -> Self {
        Programs { program: program.to_owned(), logs: logs.to_owned(), table: Arc::default() }
    }

    pub(super) fn start(&self, order: &Order) -> Result<(), String> {
        let mut command = leash(&self.program);
        let real = |text: &String| on_this_machine(text, order);
        command.args(order.arguments.iter().map(real)).stdin(std::process::Stdio::null());
        command.envs(order.environment.iter().map(|(name, value)| (name, on_this_machine(value, order))));
        let log = self.log(&order.name);
        let out = File::create(&log).and_then(|file| Ok((file.try_clone()?, file)));
        let (out, errors) = out.map_err(|error| format!("{}: {error}", log.display()))?;
        let child = spawn(command, out, errors).map_err(|error| format!("{}: {error}", self.program.display()))?;
        let entry = Entry { child, since: SystemTime::now(), ended: None };
        self.table().insert(order.name.clone(), entry);
        Ok(())
    }

    pub(super) fn state(&self, name: &str) -> State {
        let mut table = self.table();
        let Some(entry) = table.get_mut(name) else { return State::Absent };
        entry.look();
        let since = entry.since;
        match entry.ended {
            Some((at, code)) => State::Ended { since, at, code, starved: false },
            None => State::Running { since },
        }
    }

    pub(super) fn signal(&self, name: &str, signal: Signal) {
        if let Some(entry) = self.table().get_mut(name) {
            entry.signal(signal);
        }
    }

    pub(super) fn remove(&self, name: &str) {
        self.table().remove(name);
    }

    pub(super) fn kill_all(&self) {
        for entry in self.table().values_mut() {
            entry.signal(Signal::SIGKILL);
            let _ = entry.child.wait();
        }
    }

    pub(super) fn said(&self, name: &str) -> String {
        String::from_utf8_lossy(&std::fs::read(self.log(name)).unwrap_or_default()).into_owned()
    }

    fn log(&self, name: &str) -> PathBuf {
        self.logs.join(format!("{name}.log"))
    }

    fn table(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Entry {
    fn look(&mut self) {
        if let (None, Ok(Some(status))) = (self.ended, self.child.try_wait()) {
            let code = status.code().or(status.signal().map(|signal| 128 + signal)).unwrap_or(255);
            self.ended = Some((SystemTime::now(), code));
        }
    }

    fn signal(&mut self, signal: Signal) {
        self.look();
        if self.ended.is_none() {
            let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// A path in the container as the path that it is here. The folder of the machine itself, such as /dev, is the same in both.
fn on_this_machine(text: &str, order: &Order) -> String {
    for mount in &order.mounts {
        let Ok(source) = &mount.source else { continue };
        if let Some(rest) = text.strip_prefix(&mount.target)
            && (rest.is_empty() || rest.starts_with('/'))
        {
            return format!("{}{rest}", source.display());
        }
    }
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::super::Mount;
    use super::*;

    #[test]
    fn paths_below_a_mount_are_found() {
        let mount = Mount { source: Ok("/var/x".into()), target: "/run/z".into(), read_only: true };
        let order = Order { mounts: vec![mount], ..Order::default() };
        let real = |text| on_this_machine(text, &order);
        assert_eq!(real("/run/z/token"), "/var/x/token");
        assert_eq!(real("/run/z"), "/var/x");
        assert_eq!(real("/run/zebra"), "/run/zebra");
        assert_eq!(real("--token"), "--token");
    }
}
