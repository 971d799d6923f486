//! What keeps a machine from being provisioned: each is told on the console, in time, and no disk is touched.

use std::io::Read;

use serde_json::json;
use vm::{Boot, Disk, Link, Lpar, LparBuilder, MIB};

use crate::fixture;
use crate::gateway::{Gateway, Knows, NOW, OUTSIDE, PSK};
use crate::image::Packed;
use crate::medium::Medium;
use crate::orchestrated::Orchestrated;
use crate::pki::Pki;
use crate::wire;

/// How long a machine may take to say why it will not, in seconds.
const LIMIT: u64 = 240;

/// A machine that is to fail, and what it must say.
struct Case<'a> {
    name: &'a str,
    machine: LparBuilder,
    says: &'a [&'a str],
}

impl Case<'_> {
    /// Boots it, reads its console, and demands that it says so, that no disk was touched, and that nothing left in the clear.
    #[track_caller]
    fn fails(self, disks: &[&Disk]) -> Lpar {
        let machine = self.machine.named(self.name).ipl();
        machine.until("waiting; IPL again to try again\n", LIMIT);
        let console = machine.console();
        fixture::compare(self.name, &console);
        assert!(console.contains("NOT PROVISIONED: "), "{console}");
        for words in self.says {
            assert!(console.contains(words), "{}: {words:?} is not in\n{console}", self.name);
        }
        disks.iter().for_each(|disk| assert!(is_blank(disk), "{}: a disk was touched", self.name));
        machine
    }
}

/// Whether nothing was ever written to a disk that was new.
pub fn is_blank(disk: &Disk) -> bool {
    let mut file = std::fs::File::open(disk.path()).unwrap();
    let mut bytes = vec![0; 1 << 20];
    loop {
        match file.read(&mut bytes).unwrap() {
            0 => return true,
            length if bytes[..length].iter().any(|byte| *byte != 0) => return false,
            _ => {}
        }
    }
}

/// Nothing but what protects itself.
fn nothing_in_the_clear(machine: &Lpar) {
    let kinds = wire::kinds(&machine.capture());
    assert!(kinds.keys().all(|kind| wire::EXPECTED.contains(kind)), "{kinds:?}");
}

/// What most of these begin with: an image, a blank LUN with two paths, and a cable to where a gateway may be.
struct Stage {
    packed: Packed,
    lun: Disk,
    link: Link,
}

impl Stage {
    fn new() -> Self {
        let packed = Packed::sample();
        let lun = Disk::new(packed.size).paths(2);
        Self { packed, lun, link: Link::new() }
    }

    fn gateway(&self, knows: &Knows<'_>) -> Gateway {
        Gateway::new(&self.link, &self.packed, knows)
    }

    fn medium(&self) -> Medium {
        Medium::new(&self.packed, &self.lun.wwid())
    }

    /// A machine that boots this fails so, touches nothing, and sends nothing in the clear.
    #[track_caller]
    fn fails(&self, name: &str, medium: &Medium, says: &[&str]) {
        let machine = medium.machine().disk(&self.lun).link(&self.link, 1);
        nothing_in_the_clear(&Case { name, machine, says }.fails(&[&self.lun]));
    }
}

#[test]
fn a_gateway_that_is_not_the_right_one_gets_nothing() {
    let stage = Stage::new();
    let (ours, theirs) = (Pki::new("vcn"), Pki::new("vcn"));
    let medium = || stage.medium().certificates(&ours);
    {
        // Its certificate says the right name, and is another authority's, which has the same name too.
        let _gateway = stage.gateway(&Knows::Certificates(&theirs, &ours, NOW));
        stage.fails("another-authority", &medium(), &["the gateway's certificate"]);
    }
    {
        // The right authority, another name.
        let _gateway = stage.gateway(&Knows::Certificates(&ours, &ours, NOW));
        let other = medium().with("/ipsec/gateway_id", json!("other.vcn.example"));
        stage.fails("another-gateway", &other, &["other.vcn.example"]);
    }
    let expired = ["20240101000000Z", "20250101000000Z"];
    let _gateway = stage.gateway(&Knows::Certificates(&ours, &ours, expired));
    stage.fails("expired-certificate", &medium(), &["is not valid now", "clock says"]);
}

#[test]
#[ignore = "soak"]
fn a_tunnel_that_does_not_lead_there_is_explained() {
    let stage = Stage::new();
    let _gateway = stage.gateway(&Knows::Psk(PSK));
    let medium = || stage.medium().known();
    stage.fails("another-key", &stage.medium().psk("another-key-than-the-gateway-has"), &["pre-shared key"]);

    let outside = medium()
        .with("/run/image/sources", json!(["http://10.30.0.1/"]))
        .with("/network/interfaces/0/routes", json!([{"to": "10.30.0.0/24", "via": OUTSIDE[0]}]));
    stage.fails("no-policy", &outside, &["policy", "10.30.0.1"]);

    // Nobody listens there.
    let closed = medium().with("/run/image/sources", json!(["http://10.20.0.1:81/"]));
    stage.fails("source-closed", &closed, &["http://10.20.0.1:81/", "refused"]);
}

#[test]
#[ignore = "soak"]
fn what_never_answers_is_given_up_and_named() {
    let stage = Stage::new();
    let _gateway = stage.gateway(&Knows::Psk(PSK));
    let unreachable = stage.medium().known().with("/run/image/sources", json!(["http://10.20.0.99/"]));
    stage.fails("source-unreachable", &unreachable, &["http://10.20.0.99/"]);
}

#[test]
fn a_token_that_somebody_else_has_used_is_told() {
    let stage = Stage::new();
    // The other one keeps the run for as long as this takes.
    let orchestrated = Orchestrated::new(json!({"lease": {"seconds": 3600}}));
    let _gateway = Gateway::before(&orchestrated.service, &stage.link, &stage.packed, &Knows::Psk(PSK));
    let (medium, run) = orchestrated.take_over(&stage.packed, stage.medium().known());
    orchestrated.enrol_as_another(&medium);
    stage.fails("used-token", &medium, &["this process is not enrolled", "already-enrolled"]);
    assert_eq!(orchestrated.service.show(&run)["state"], "running", "the one that was first has it");
}

#[test]
#[ignore = "soak"]
fn names_that_nobody_knows_are_named() {
    let stage = Stage::new();
    let _gateway = stage.gateway(&Knows::Psk(PSK));
    let nameless = stage.medium().known().with("/run/image/sources", json!(["http://images.example/"]));
    let nameless = nameless.with("/network/dns", json!(["10.20.0.98"]));
    stage.fails("names-dead", &nameless, &["images.example", "looking up its name"]);
}

#[test]
#[ignore = "soak"]
fn a_machine_that_is_not_as_described_says_what_is_missing() {
    let packed = Packed::sample();
    let (lun, other) = (Disk::new(packed.size + MIB).paths(1), Disk::new(packed.size + MIB).paths(2));
    let link = Link::new();
    let medium = Medium::new(&packed, &lun.wwid()).known();
    let machine = |medium: &Medium| medium.machine().link(&link, 1);

    let case = Case {
        name: "clock-ahead",
        machine: machine(&medium).clock("2036-11-25T00:00:00").disk(&lun),
        says: &["this machine's clock says 2036-11-25", "set the clock"],
    };
    nothing_in_the_clear(&case.fails(&[&lun]));
    let case = Case {
        name: "clock-behind",
        machine: machine(&medium).clock("2016-11-25T00:00:00").disk(&lun),
        says: &["this machine's clock says 2016-11-25", "which is later"],
    };
    case.fails(&[&lun]);
    // The gateway is switched off.
    let soon = Medium::new(&packed, &lun.wwid()).known().with("/ipsec/wait", json!(15));
    let case = Case { name: "no-gateway", machine: machine(&soon).disk(&lun), says: &["10.9.0.1", "has not answered"] };
    nothing_in_the_clear(&case.fails(&[&lun]));

    let _gateway = Gateway::new(&link, &packed, &Knows::Psk(PSK));
    let impatient = Medium::new(&packed, &lun.wwid()).known().with("/run/target/lun/wait", json!(5));
    let case = Case {
        name: "another-disk",
        machine: machine(&impatient).disk(&other),
        says: &[&lun.wwid(), "no SCSI disk of this machine says it is this LUN"],
    };
    case.fails(&[&other]);
    let two = impatient.with("/run/target/lun/min_paths", json!(2));
    let case = Case {
        name: "a-path-is-missing",
        machine: machine(&two).disk(&lun).disk(&other),
        says: &["1 of 2 live paths"],
    };
    case.fails(&[&lun, &other]);
}

#[test]
fn a_shell_is_there_where_it_is_allowed_and_is_left_again() {
    let stage = Stage::new();
    let medium = stage.medium().known().with("/rescue_shell", json!(true));
    let machine = medium.machine().clock("2016-11-25T00:00:00").disk(&stage.lun).ipl();
    machine.until("rescue_shell", LIMIT);
    machine.until("# ", 30);
    machine.type_line("echo $((6 * 7)) processes: $(ps | grep -c multipathd)");
    machine.until("42 processes: ", 30);
    machine.type_line("exit");
    machine.until("the shell has ended; waiting; IPL again to try again\n", 30);
    assert!(is_blank(&stage.lun));
}

#[test]
fn a_damaged_medium_is_not_used() {
    let packed = Packed::sample();
    let lun = Disk::new(packed.size).paths(2);
    let link = Link::new();
    let medium = Medium::new(&packed, &lun.wwid()).known();
    let Boot::Iso(iso) = medium.iso() else { unreachable!() };
    let mut bytes = std::fs::read(&iso).unwrap();
    // In the last third lies the file system's archive, and before its end (slot and CD's own) is what was changed here.
    let at = bytes.len() - (4 << 20);
    bytes[at] ^= 1;
    std::fs::write(&iso, &bytes).unwrap();
    let damaged = LparBuilder::new(Boot::Iso(iso.clone())).disk(&lun).link(&link, 1);
    let case = Case {
        name: "damaged-medium",
        machine: damaged,
        says: &["could not unpack all of the medium", "upload or burn it again"],
    };
    nothing_in_the_clear(&case.fails(&[&lun]));
    bytes[at] ^= 1;

    // The configuration in it.
    let key = bytes.windows(PSK.len()).position(|window| window == PSK.as_bytes()).unwrap();
    bytes[key] ^= 1;
    std::fs::write(&iso, &bytes).unwrap();
    let damaged = LparBuilder::new(Boot::Iso(iso)).disk(&lun).link(&link, 1);
    let case = Case {
        name: "damaged-configuration",
        machine: damaged,
        says: &["the configuration is damaged", "psk is not what was put in"],
    };
    nothing_in_the_clear(&case.fails(&[&lun]));

    let none = LparBuilder::new(Boot::Iso(vm::lane::medium().join("z-provisioner.iso"))).disk(&lun).link(&link, 1);
    let case = Case { name: "no-configuration", machine: none, says: &["this medium has no configuration"] };
    nothing_in_the_clear(&case.fails(&[&lun]));
}
