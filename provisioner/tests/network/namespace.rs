//! Two network namespaces with a cable between them: this machine's, and that of whoever else is on the network.
//!
//! A test starts itself again below `unshare`, in a user, a network and a mount namespace of its own, so that it is root there
//! whoever started it, and nothing that it does to the network outlives it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use provisioner::network::Places;
use tempfile::TempDir;

const INSIDE: &str = "Z_TEST_NAMESPACE";
/// The tools, and the Debian packages that have them.
const TOOLS: [(&str, &str); 5] = [
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("ip", "iproute2"),
    ("busybox", "busybox"),
    ("python3", "python3-minimal"),
];

/// Runs `body` in namespaces of its own. `name` is the test's.
pub fn inside<F: Future<Output = ()>>(name: &str, body: impl FnOnce(Lab) -> F) {
    if std::env::var_os(INSIDE).is_some() {
        call("mount", "-t sysfs sysfs /sys");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        return runtime.block_on(async { body(Lab::new()).await });
    }
    for (tool, package) in TOOLS {
        let found = Command::new(tool).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status();
        assert!(found.is_ok(), "{tool} is missing: run `apt-get install --no-install-recommends {package}` as root");
    }
    let mut again = Command::new("unshare");
    again.args(["--map-root-user", "--net", "--mount", "--kill-child", "--fork"]).arg(std::env::current_exe().unwrap());
    let ended = again.args(["--exact", name, "--nocapture"]).env(INSIDE, "1").output().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "in a namespace (the kernel must have user namespaces, and veth): {said}");
    assert!(said.contains("1 passed"), "{name} is not this test's name: {said}");
}

/// Runs a command, which works. Returns what it says.
#[track_caller]
pub fn call(program: &str, words: &str) -> String {
    let ended = Command::new(program).args(words.split_whitespace()).output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{program} {words}: {said}");
    String::from_utf8(ended.stdout).unwrap()
}

/// A process that ends with its owner.
pub struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// This machine, with the ends of cables.
pub struct Lab {
    dir: TempDir,
    peer: Running,
}

impl Lab {
    fn new() -> Self {
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        // It becomes what it starts, so that ending it ends that; and it holds none of our pipes, should we end first.
        let mut sleep = Command::new("unshare");
        sleep.args(["--net", "sleep", "600"]).stdout(Stdio::null()).stderr(Stdio::null());
        let peer = Running(sleep.spawn().unwrap());
        let theirs = format!("/proc/{}/ns/net", peer.0.id());
        let start = Instant::now();
        while std::fs::read_link(&theirs).is_ok_and(|theirs| theirs == own) {
            assert!(start.elapsed() < Duration::from_secs(10), "no second network namespace");
            std::thread::sleep(Duration::from_millis(10));
        }
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_z-provisioner"), dir.path().join("lease")).unwrap();
        Lab { dir, peer }
    }

    /// A cable: its end here is called `name` and has this address, its end there is called `far-NAME` and is up.
    pub fn cable(&self, name: &str, mac: &str) {
        let pid = self.peer.0.id();
        call("ip", &format!("link add {name} address {mac} type veth peer name far-{name} netns {pid}"));
        self.there("ip", &format!("link set dev far-{name} up"));
    }

    /// Runs a command at the other end.
    #[track_caller]
    pub fn there(&self, program: &str, words: &str) -> String {
        call("nsenter", &format!("--net=/proc/{}/ns/net {program} {words}", self.peer.0.id()))
    }

    /// Starts a command at the other end.
    pub fn start_there(&self, words: &[&str]) -> Running {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.peer.0.id())).args(words);
        Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// A DHCP server at the other end of `name`, which has 10.9.0.1 there and one address to give.
    pub fn dhcp_server(&self, name: &str, options: &str) -> Running {
        self.there("ip", &format!("address replace 10.9.0.1/24 dev far-{name}"));
        let (config, leases) = (self.path("udhcpd.conf"), self.path("udhcpd.leases"));
        std::fs::write(&leases, "").unwrap();
        let text = format!(
            "start 10.9.0.100\nend 10.9.0.100\nmax_leases 1\ninterface far-{name}\nlease_file {}\npidfile {}\n\
             min_lease 4\noption subnet 255.255.255.0\n{options}",
            leases.display(),
            self.path("udhcpd.pid").display()
        );
        std::fs::write(&config, text).unwrap();
        self.start_there(&["busybox", "udhcpd", "-f", config.to_str().unwrap()])
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where the code under test finds its things.
    pub fn places(&self) -> Places {
        Places {
            leases: self.path("leases"),
            script: self.path("lease"),
            resolv_conf: self.path("resolv.conf"),
            ..Places::default()
        }
    }

    pub fn resolv_conf(&self) -> String {
        read(&self.path("resolv.conf"))
    }
}

pub fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
