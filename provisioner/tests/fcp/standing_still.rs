//! Each sentence that says why a way stands still, made to be said, and found in docs/operating.md.

use imgstream::error::{Error, Kind, Retry};
use nix::errno::Errno;

use crate::channel::{Channel, Storage, When};
use crate::kernel::{Fault, Kernel};
use crate::*;

const OPERATING: &str = include_str!("../../../docs/operating.md");

/// A sentence as the manual has it: names of ports and LUNs cut short.
fn as_in_the_manual(sentence: &str) -> String {
    sentence.replace(WWPN, "0x5005…").replace(LUN, "0x4010…")
}

#[track_caller]
fn assert_says(error: &Error, sentence: &str, retry: Retry) {
    assert_eq!(as_in_the_manual(&error.to_string()), format!("{ADAPTER}: {sentence}"));
    assert_eq!((error.kind(), error.retry()), (Kind::Target, retry));
    assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "no hint");
    let (open, close) = if sentence.contains('`') { ("`` ", " ``") } else { ("`", "`") };
    let row = format!("| {open}{ADAPTER}: {sentence}{close} |");
    assert!(OPERATING.contains(&row), "not in docs/operating.md: {row}");
}

/// Where `ways` stand still on this machine.
async fn why(kernel: &Kernel, ways: &[FcpSpec]) -> Error {
    attach(kernel, ways).await.1.unwrap_err()
}

async fn why_of(channel: Channel) -> Error {
    why(&Kernel::new([channel]), &[way(ADAPTER, WWPN)]).await
}

async fn why_alone(channel: Channel) -> Error {
    why(&Kernel::new([channel]), &[alone(ADAPTER)]).await
}

/// Where a way stands still that was up, before these attributes got these values.
async fn why_with(attributes: &[(&str, &str)]) -> Error {
    let kernel = Kernel::new([channel()]);
    let _attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    kernel.fault("failed", Fault::Deaf);
    attributes.iter().for_each(|(path, value)| kernel.tree().set(&located(&kernel, path), value));
    why(&kernel, &[way(ADAPTER, WWPN)]).await
}

/// Paths by what they belong to: `adapter/failed`, `port/failed`, `unit/failed`, `scsi/state`, `rport/port_state`.
fn located(kernel: &Kernel, path: &str) -> String {
    let (whose, attribute) = path.split_once('/').unwrap();
    let adapter = format!("sys/bus/ccw/devices/{ADAPTER}");
    let dir = match whose {
        "adapter" => adapter,
        "port" => format!("{adapter}/{WWPN}"),
        "unit" => format!("{adapter}/{WWPN}/{LUN}"),
        "host" => "sys/class/fc_host/host0".into(),
        "rport" => "sys/class/fc_remote_ports/rport-0:0-0".into(),
        "scsi" => format!("sys/bus/scsi/devices/{}", kernel.tree().names("sys/bus/scsi/devices", "0:")[0]),
        _ => panic!("{path}"),
    };
    format!("{dir}/{attribute}")
}

#[tokio::test(start_paused = true)]
async fn a_machine_without_channels() {
    let error = why(&Kernel::without_channels(), &[way(ADAPTER, WWPN)]).await;
    assert_says(&error, "this machine has no channels: zFCP is on IBM Z and LinuxONE alone", Retry::Permanent);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_not_there() {
    let kernel = Kernel::new([other_channel()]);
    let start = tokio::time::Instant::now();
    let error = why(&kernel, &[way(ADAPTER, WWPN)]).await;
    let sentence = "no such device: look on the HMC, or in the IOCDS, whether this LPAR has it";
    assert_says(&error, sentence, Retry::Permanent);
    // The kernel was asked whether it had dealt with everything; then there is nothing to wait for.
    assert_eq!(kernel.writes(), ["proc/cio_settle 1"]);
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_nobody_may_look_for() {
    let kernel = Kernel::new([other_channel()]);
    kernel.fault("cio_settle", Fault::Refuses(Errno::EACCES));
    let error = why(&kernel, &[way(ADAPTER, WWPN)]).await;
    let sentence = "no such device, looking for it failed: Permission denied (os error 13): run as root";
    assert_says(&error, sentence, Retry::Permanent);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_was_ignored_and_is_not_there_either() {
    let kernel = Kernel::new([other_channel()]);
    kernel.ignore(0x1900..=0x1900);
    let error = why(&kernel, &[way(ADAPTER, WWPN)]).await;
    let sentence = "no such device: look on the HMC, or in the IOCDS, whether this LPAR has it";
    assert_says(&error, sentence, Retry::Permanent);
}

#[tokio::test(start_paused = true)]
async fn an_ignored_device_that_stays_so() {
    let kernel = Kernel::new([channel()]);
    kernel.ignore(0..=0xffff);
    kernel.fault("cio_ignore", Fault::Deaf);
    let error = why(&kernel, &[way(ADAPTER, WWPN)]).await;
    assert_says(&error, "ignored by the kernel (cio_ignore) after 30 s: free it", Retry::Temporary);
    kernel.fault("cio_ignore", Fault::Refuses(Errno::EINVAL));
    let error = why(&kernel, &[way(ADAPTER, WWPN)]).await;
    let sentence =
        "ignored by the kernel (cio_ignore), freeing it failed: Invalid argument (os error 22): look at the kernel log";
    assert_says(&error, sentence, Retry::Temporary);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_no_fcp_channel() {
    let error = why_of(Channel { control_unit: "3990/e9", driver: Some("dasd-eckd"), ..channel() }).await;
    let sentence = "a device of type 3990/e9, not an FCP channel (1731/03): correct `target.lun.fcp`";
    assert_says(&error, sentence, Retry::Permanent);
}

#[tokio::test(start_paused = true)]
async fn a_device_without_its_driver() {
    let error = why_of(Channel { driver: None, ..channel() }).await;
    assert_says(&error, "no driver has it after 30 s: load the module zfcp", Retry::Permanent);
    let error = why_of(Channel { driver: Some("vfio_ccw"), ..channel() }).await;
    let sentence = "the driver vfio_ccw has it instead of zfcp after 30 s: free 0.0.1900 from vfio_ccw";
    assert_says(&error, sentence, Retry::Permanent);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_not_available() {
    let error = why_of(Channel { availability: "boxed", ..channel() }).await;
    let sentence = "boxed (it does not answer) after 30 s: look at the FCP channel on the HMC";
    assert_says(&error, sentence, Retry::Temporary);
    let error = why_of(Channel { availability: "no path", ..channel() }).await;
    let sentence = "no path (its channel path is offline) after 30 s: look at the CHPID here and on the HMC";
    assert_says(&error, sentence, Retry::Temporary);
    let error = why_of(Channel { availability: "no device", ..channel() }).await;
    let sentence = "gone (the machine has taken it away) after 30 s: look at the FCP channel on the HMC";
    assert_says(&error, sentence, Retry::Temporary);
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_does_not_come_online() {
    let kernel = Kernel::new([channel()]);
    kernel.fault("online", Fault::Deaf);
    let error = why(&kernel, &[way(ADAPTER, WWPN)]).await;
    assert_says(&error, "still offline after 30 s: look at the kernel log", Retry::Temporary);
    kernel.fault("online", Fault::Refuses(Errno::EIO));
    let start = tokio::time::Instant::now();
    let error = why(&kernel, &[way(ADAPTER, WWPN)]).await;
    let sentence = "still offline, setting it online failed: Input/output error (os error 5): look at the kernel log";
    assert_says(&error, sentence, Retry::Temporary);
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn an_order_that_may_not_be_given() {
    let kernel = Kernel::new([channel()]);
    kernel.fault("online", Fault::Refuses(Errno::EACCES));
    let error = why(&kernel, &[way(ADAPTER, WWPN)]).await;
    let sentence = "still offline, setting it online failed: Permission denied (os error 13): run as root";
    assert_says(&error, sentence, Retry::Permanent);
    kernel.fault("online", Fault::Refuses(Errno::EROFS));
    let error = why(&kernel, &[way(ADAPTER, WWPN)]).await;
    let sentence =
        "still offline, setting it online failed: Read-only file system (os error 30): sysfs is read-only here";
    assert_says(&error, sentence, Retry::Permanent);
}

/// A write that never returns cannot be waited for by letting time pass: a thread is in it. So this one is in real
/// time.
#[tokio::test]
async fn an_order_that_the_kernel_does_not_answer() {
    let kernel = Kernel::new([channel()]);
    kernel.fault("online", Fault::Hangs);
    let (ways, cancel) = ([way(ADAPTER, WWPN)], CancellationToken::new());
    let (_attached, ended) = kernel.fabric().attach(&ways, Duration::from_secs(1), &|_| {}, &cancel).await;
    let sentence = "still offline, the kernel has not finished setting it online after 1 s: look at the kernel log";
    assert_says(&ended.unwrap_err(), sentence, Retry::Temporary);
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_does_not_recover() {
    let log = "look at the kernel log, and at the FCP channel on the HMC";
    let error = why_of(Channel { recovers: false, ..channel() }).await;
    assert_says(&error, &format!("online, its recovery failed after 30 s: {log}"), Retry::Temporary);
    let error = why_with(&[("adapter/in_recovery", "1")]).await;
    assert_says(&error, &format!("online, still in recovery after 30 s: {log}"), Retry::Temporary);
    let error = why_with(&[("host/port_state", "Unknown")]).await;
    assert_says(&error, &format!("online, its fc_host is `Unknown` after 30 s: {log}"), Retry::Temporary);
    let kernel = Kernel::new([channel()]);
    kernel.tree().set(&located(&kernel, "adapter/online"), "1");
    let error = why(&kernel, &[way(ADAPTER, WWPN)]).await;
    assert_says(&error, &format!("online, not registered with SCSI after 30 s: {log}"), Retry::Temporary);
}

#[tokio::test(start_paused = true)]
async fn an_adapter_without_light() {
    let error = why_of(Channel { link: false, ..channel() }).await;
    assert_says(&error, "online, link down after 30 s: check the cable and the switch's port", Retry::Temporary);
}

#[tokio::test(start_paused = true)]
async fn a_port_that_is_not_in_the_fabric() {
    let error = why_of(Channel { storage: vec![storage(OTHER_WWPN)], ..channel() }).await;
    let sentence = "online, port 0x5005… not in the fabric after 30 s: check the WWPN and zoning";
    assert_says(&error, sentence, Retry::Temporary);
    assert!(error.hint().is_some_and(|hint| hint.contains("itself is 0xc05076ffe5001900")), "{:?}", error.hint());
}

#[tokio::test(start_paused = true)]
async fn a_port_that_lets_nobody_in() {
    let storage_port = "check zoning, and the storage's port";
    let closed = Storage { lets_in: false, ..storage(WWPN) };
    let error = why_of(Channel { storage: vec![closed], ..channel() }).await;
    let sentence = format!("online, port 0x5005… present, its recovery failed after 30 s: {storage_port}");
    assert_says(&error, &sentence, Retry::Temporary);
    let error = why_with(&[("port/in_recovery", "1")]).await;
    let sentence = format!("online, port 0x5005… present, still in recovery after 30 s: {storage_port}");
    assert_says(&error, &sentence, Retry::Temporary);
    let error = why_with(&[("rport/port_state", "Blocked")]).await;
    let sentence = format!("online, port 0x5005… present, not logged in (Blocked) after 30 s: {storage_port}");
    assert_says(&error, &sentence, Retry::Temporary);
    let error = why_with(&[("rport/port_name", "0x0000000000000000")]).await;
    let sentence = format!("online, port 0x5005… present, not logged in after 30 s: {storage_port}");
    assert_says(&error, &sentence, Retry::Temporary);
    let error = why_with(&[("port/access_denied", "1")]).await;
    let sentence =
        "online, port 0x5005… present, access denied after 30 s: check the access control of the FCP channel";
    assert_says(&error, sentence, Retry::Temporary);
}

#[tokio::test(start_paused = true)]
async fn a_lun_that_is_not_there() {
    let masked = Storage { luns: Vec::new(), ..storage(WWPN) };
    let sentence = "online, port 0x5005… present, LUN 0x4010… not reported after 30 s: check zoning and LUN masking";
    for npiv in [false, true] {
        let error = why_of(Channel { npiv, storage: vec![masked.clone()], ..channel() }).await;
        assert_says(&error, sentence, Retry::Temporary);
        assert!(error.hint().is_some_and(|hint| hint.contains("itself is 0xc05076ffe5001900")), "{:?}", error.hint());
    }
}

#[tokio::test(start_paused = true)]
async fn a_lun_that_cannot_be_added() {
    let kernel = Kernel::new([channel()]);
    kernel.fault("unit_add", Fault::Refuses(Errno::ENODEV));
    let error = why(&kernel, &[way(ADAPTER, WWPN)]).await;
    let sentence = "online, port 0x5005… present, LUN 0x4010… not reported, adding LUN 0x4010… failed: \
                    No such device (os error 19): look at the kernel log";
    assert_says(&error, sentence, Retry::Temporary);
}

#[tokio::test(start_paused = true)]
async fn a_lun_that_is_there_and_does_not_work() {
    let log = "look at the kernel log";
    let present = "online, port 0x5005… present,";
    let denied = format!("{present} LUN 0x4010… denied after 30 s: the kernel log says which LPAR has it");
    assert_says(&why_with(&[("scsi/zfcp_access_denied", "1")]).await, &denied, Retry::Temporary);
    let failed = format!("{present} LUN 0x4010… failed after 30 s: check zoning and LUN masking");
    assert_says(&why_with(&[("scsi/zfcp_failed", "1")]).await, &failed, Retry::Temporary);
    let recovering = format!("{present} LUN 0x4010… still in recovery after 30 s: {log}");
    assert_says(&why_with(&[("scsi/zfcp_in_recovery", "1")]).await, &recovering, Retry::Temporary);
    let offline =
        format!("{present} LUN 0x4010… is SCSI device 0:0:0:1077100560 and `transport-offline` after 30 s: {log}");
    assert_says(&why_with(&[("scsi/state", "transport-offline")]).await, &offline, Retry::Temporary);
}

/// The same, said by the unit, while the SCSI device is not to be seen.
#[tokio::test(start_paused = true)]
async fn a_lun_without_its_scsi_device() {
    let present = "online, port 0x5005… present,";
    let hidden = ("scsi/fcp_lun", "0x0000000000000000");
    let open = format!("{present} LUN 0x4010… open, no SCSI device after 30 s: look at the kernel log");
    assert_says(&why_with(&[hidden]).await, &open, Retry::Temporary);
    let denied = format!("{present} LUN 0x4010… denied after 30 s: the kernel log says which LPAR has it");
    assert_says(&why_with(&[hidden, ("unit/access_denied", "1")]).await, &denied, Retry::Temporary);
    let recovering = format!("{present} LUN 0x4010… still in recovery after 30 s: look at the kernel log");
    assert_says(&why_with(&[hidden, ("unit/in_recovery", "1")]).await, &recovering, Retry::Temporary);
}

#[tokio::test(start_paused = true)]
async fn a_scsi_device_that_is_no_disk() {
    for (kind, check, retry) in [
        ("0", "load the module sd_mod", Retry::Temporary),
        ("13", "correct the LUN: this one is no disk", Retry::Permanent),
    ] {
        let kernel = Kernel::new([channel()]);
        let _attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
        kernel.tree().set(&located(&kernel, "scsi/type"), kind);
        kernel.tree().remove(&located(&kernel, "scsi/block"));
        let sentence = format!(
            "online, port 0x5005… present, LUN 0x4010… is SCSI device 0:0:0:1077100560 of type {kind}, no disk \
             after 30 s: {check}"
        );
        assert_says(&why(&kernel, &[way(ADAPTER, WWPN)]).await, &sentence, retry);
    }
}

#[tokio::test(start_paused = true)]
async fn an_adapter_alone_that_sees_nothing() {
    let error = why_alone(Channel { storage: Vec::new(), ..npiv() }).await;
    assert_says(&error, "online, no storage port in the fabric after 30 s: check zoning", Retry::Temporary);
    let closed = Storage { lets_in: false, ..storage(WWPN) };
    let error = why_alone(Channel { storage: vec![closed], ..npiv() }).await;
    let sentence = "online, logged in at none of 1 storage ports after 30 s: check zoning, and the storage's ports";
    assert_says(&error, sentence, Retry::Temporary);
}

#[tokio::test(start_paused = true)]
async fn an_adapter_alone_where_luns_do_not_appear_by_themselves() {
    let check = "name `wwpn` and `lun`, or give this LPAR NPIV";
    let error = why_alone(channel()).await;
    let why_not = "NPort (fabric via point-to-point)";
    let sentence = format!("online, LUNs do not appear by themselves ({why_not}) after 30 s: {check}");
    assert_says(&error, &sentence, Retry::Permanent);
    let kernel = Kernel::new([npiv()]);
    kernel.tree().set("sys/module/zfcp/parameters/allow_lun_scan", "N");
    let error = why(&kernel, &[alone(ADAPTER)]).await;
    let sentence = format!("online, LUNs do not appear by themselves (zfcp.allow_lun_scan is off) after 30 s: {check}");
    assert_says(&error, &sentence, Retry::Permanent);
}

#[tokio::test(start_paused = true)]
async fn every_way_that_is_down_is_told_and_the_worst_decides_whether_it_can_pass() {
    let late = Storage { zoned: When::Never, ..storage(OTHER_WWPN) };
    let kernel = Kernel::new([Channel { storage: vec![late], ..other_channel() }]);
    let error = why(&kernel, &[way(ADAPTER, WWPN), way(OTHER_ADAPTER, OTHER_WWPN)]).await;
    let expected = format!(
        "{ADAPTER}: no such device: look on the HMC, or in the IOCDS, whether this LPAR has it; \
         {OTHER_ADAPTER}: online, port {OTHER_WWPN} not in the fabric after 30 s: check the WWPN and zoning"
    );
    assert_eq!((error.to_string(), error.retry()), (expected, Retry::Permanent));
}

#[tokio::test(start_paused = true)]
async fn what_is_so_for_several_ways_is_said_once() {
    let kernel = Kernel::new([Channel { link: false, ..channel() }]);
    let error = why(&kernel, &[way(ADAPTER, WWPN), way(ADAPTER, OTHER_WWPN)]).await;
    assert_says(&error, "online, link down after 30 s: check the cable and the switch's port", Retry::Temporary);
}
