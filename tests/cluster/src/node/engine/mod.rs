//! What runs a container: podman, or a program of this machine in the container's place.

mod podman;
mod programs;

use std::path::PathBuf;
use std::time::SystemTime;

use nix::sys::signal::Signal;

pub use podman::Containers;
pub use programs::Programs;

/// A container to start, in the words of no particular runtime.
#[derive(Debug, Clone, Default)]
pub struct Order {
    /// Unique on this machine, the same after a restart of the agent.
    pub name: String,
    /// The image.
    pub image: String,
    /// In place of the image's entrypoint, where it is not empty.
    pub command: Vec<String>,
    /// Arguments.
    pub arguments: Vec<String>,
    /// Environment.
    pub environment: Vec<(String, String)>,
    /// Working folder, where it is not the image's.
    pub folder: Option<String>,
    /// What is mounted.
    pub mounts: Vec<Mount>,
    /// Devices of a device plugin.
    pub devices: Vec<PathBuf>,
    /// Names that are resolved without asking, and their addresses.
    pub hosts: Vec<(String, String)>,
    /// User and group, where they are not the image's.
    pub user: Option<(i64, Option<i64>)>,
    /// Supplementary groups, that of the volumes among them.
    pub groups: Vec<i64>,
    /// All the machine's devices and capabilities.
    pub privileged: bool,
    /// The machine's semaphores and shared memory.
    pub host_ipc: bool,
    /// The root file system cannot be written.
    pub read_only: bool,
    /// No program gains privileges, whatever its file says.
    pub no_new_privileges: bool,
    /// Capabilities taken, and given.
    pub capabilities: [Vec<String>; 2],
    /// The seccomp profile, in podman's words: none for the runtime's own.
    pub seccomp: Option<String>,
    /// Bytes of memory at most.
    pub memory: Option<String>,
}

/// A folder of this machine in the container, or memory.
#[derive(Debug, Clone)]
pub struct Mount {
    /// The folder, or none where it is memory of at most so many bytes.
    pub source: Result<PathBuf, Option<String>>,
    /// Where it is in the container.
    pub target: String,
    /// It cannot be written.
    pub read_only: bool,
}

/// How a container is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// There is none of that name.
    Absent,
    /// It runs.
    Running {
        /// Since when.
        since: SystemTime,
    },
    /// It has ended.
    Ended {
        /// Since when it ran.
        since: SystemTime,
        /// When it ended.
        at: SystemTime,
        /// Its exit code; 128 and the signal's number, where it was one.
        code: i32,
        /// The kernel killed it for want of memory.
        starved: bool,
    },
}

/// What runs containers.
#[derive(Debug, Clone)]
pub enum Engine {
    /// podman.
    Podman(Containers),
    /// Programs in the containers' place.
    Programs(Programs),
}

impl Engine {
    /// Whether the image is here.
    pub async fn has(&self, image: &str) -> bool {
        match self {
            Engine::Podman(podman) => podman.has(image).await,
            Engine::Programs(_) => true,
        }
    }

    /// Starts a container. An earlier one of its name has ended, and goes away.
    ///
    /// # Errors
    /// What the runtime says.
    pub async fn start(&self, order: &Order) -> Result<(), String> {
        match self {
            Engine::Podman(podman) => podman.start(order).await,
            Engine::Programs(programs) => programs.start(order),
        }
    }

    /// How a container is.
    pub async fn state(&self, name: &str) -> State {
        match self {
            Engine::Podman(podman) => podman.state(name).await,
            Engine::Programs(programs) => programs.state(name),
        }
    }

    /// Sends a container a signal; it may have ended.
    pub async fn signal(&self, name: &str, signal: Signal) {
        match self {
            Engine::Podman(podman) => podman.signal(name, signal).await,
            Engine::Programs(programs) => programs.signal(name, signal),
        }
    }

    /// Removes a container that has ended.
    pub async fn remove(&self, name: &str) {
        match self {
            Engine::Podman(podman) => podman.remove(name).await,
            Engine::Programs(programs) => programs.remove(name),
        }
    }

    /// Kills all containers.
    pub fn kill_all(&self) {
        match self {
            Engine::Podman(podman) => podman.kill_all(),
            Engine::Programs(programs) => programs.kill_all(),
        }
    }

    /// What a container has said.
    pub fn said(&self, name: &str) -> String {
        match self {
            Engine::Podman(podman) => podman.said(name),
            Engine::Programs(programs) => programs.said(name),
        }
    }
}
