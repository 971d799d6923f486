//! Each sentence that says why a device stands still, made to be said.

use imgstream::error::{Kind, Retry};
use nix::errno::Errno;
use tokio::time::Instant;

use crate::kernel::{Fault, Kernel};
use crate::*;

const DEVICES: &str = "sys/bus/ccw/devices";
const LOG: &str = "look at the kernel log";

#[track_caller]
fn assert_says(ended: Result<String>, sentence: &str, retry: Retry) {
    let error = ended.unwrap_err();
    assert_eq!(error.to_string(), sentence);
    assert_eq!((error.kind(), error.retry()), (Kind::Source, retry));
    assert!(error.hint().is_some_and(|hint| !hint.is_empty()), "no hint");
}

/// Where a device stands still on whose adapter this is wrong.
async fn with_fault(attribute: &'static str, fault: Fault) -> Result<String> {
    let kernel = Kernel::osa();
    kernel.fault(attribute, fault);
    online(&kernel, 1).await
}

#[tokio::test(start_paused = true)]
async fn a_machine_without_channels() {
    let kernel = Kernel::osa();
    kernel.remove("sys/bus/ccw");
    let sentence = "0.0.0600: this machine has no channels: qeth is on IBM Z and LinuxONE alone";
    assert_says(online(&kernel, 0).await, sentence, Retry::Permanent);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_is_not_there() {
    let kernel = Kernel::osa();
    kernel.remove("sys/devices/css0/0.0.0001");
    kernel.remove(&format!("{DEVICES}/{WRITE}"));
    let start = Instant::now();
    let sentence = "0.0.0601: no such device: look in the IOCDS, on the HMC, or in the z/VM directory, whether this \
                    system has it";
    assert_says(online(&kernel, 0).await, sentence, Retry::Permanent);
    // The kernel was asked whether it had looked at everything: there is nothing to wait for.
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_stays_ignored() {
    let kernel = Kernel::osa();
    kernel.ignore();
    kernel.fault("cio_ignore", Fault::Deaf);
    let sentence = "0.0.0600: ignored by the kernel (cio_ignore), also after it was freed: look at the kernel log";
    assert_says(online(&kernel, 0).await, sentence, Retry::Temporary);
}

#[tokio::test(start_paused = true)]
async fn a_device_without_a_channel_path() {
    let kernel = Kernel::osa();
    kernel.set(&format!("{DEVICES}/{DATA}/availability"), "no path");
    let sentence = "0.0.0602: it is `no path`: look at its channel path (CHPID) on the HMC";
    assert_says(online(&kernel, 0).await, sentence, Retry::Temporary);
}

#[tokio::test(start_paused = true)]
async fn a_device_without_the_driver() {
    let kernel = Kernel::osa();
    kernel.remove(&format!("{DEVICES}/{READ}/driver"));
    let sentence = "0.0.0600: no driver has it after 30 s: load the module qeth";
    assert_says(online(&kernel, 0).await, sentence, Retry::Permanent);
    kernel.with(|state| state.tree.link("sys/devices/css0/0.0.0000/0.0.0600/driver", "sys/bus/ccw/drivers/lcs"));
    let sentence = "0.0.0600: the driver lcs has it instead of qeth: correct `device.qeth.channels`, or the type of the \
                    device in the IOCDS";
    assert_says(online(&kernel, 0).await, sentence, Retry::Permanent);
}

#[tokio::test(start_paused = true)]
async fn a_device_of_another_kind() {
    let kernel = Kernel::osa();
    kernel.remove(&format!("{DEVICES}/{READ}/driver"));
    kernel.set(&format!("{DEVICES}/{READ}/cutype"), "3990/e9");
    let start = Instant::now();
    let error = online(&kernel, 0).await.unwrap_err();
    assert!(error.to_string().contains("a device of type 3990/e9, which is neither OSA nor HiperSockets"), "{error}");
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn three_that_do_not_belong_together() {
    let kernel = Kernel::osa();
    kernel.set("sys/devices/css0/0.0.0002/chpids", "f1 00 00 00 00 00 00 00");
    let sentence = "0.0.0600: 0.0.0600, 0.0.0601 and 0.0.0602 are not of one adapter: channel paths \
                    f0 00 00 00 00 00 00 00 and f1 00 00 00 00 00 00 00: correct `device.qeth.channels`";
    assert_says(online(&kernel, 0).await, sentence, Retry::Permanent);
}

#[tokio::test(start_paused = true)]
async fn devices_of_another_group() {
    let kernel = Kernel::osa();
    kernel.with(|state| state.group("0.0.0600,0.0.0602,0.0.0601")).unwrap();
    let sentence = "0.0.0600: 0.0.0601 belongs already to the group 0.0.0600, in another place than is configured: \
                    correct `device.qeth.channels`";
    assert_says(online(&kernel, 0).await, sentence, Retry::Permanent);
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_refused_or_does_not_come() {
    let sentence = "0.0.0600: the kernel does not take 0.0.0600, 0.0.0601 and 0.0.0602 as a group: Invalid argument \
                    (os error 22): look whether they are three devices of one adapter, and of one type";
    assert_says(with_fault("group", Fault::Refuses(Errno::EINVAL)).await, sentence, Retry::Permanent);
    let sentence = format!("0.0.0600: its group does not appear after 30 s: {LOG}");
    assert_says(with_fault("group", Fault::Deaf).await, &sentence, Retry::Temporary);
    let kernel = Kernel::osa();
    kernel.remove("sys/bus/ccwgroup/drivers/qeth");
    let error = online(&kernel, 0).await.unwrap_err();
    assert!(error.to_string().ends_with("load the module qeth"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_port_that_the_adapter_does_not_have() {
    let sentence = "0.0.0600: port 7 was refused: Invalid argument (os error 22): look how many ports the adapter has, \
                    and correct `device.qeth.port`";
    assert_says(online(&Kernel::osa(), 7).await, sentence, Retry::Permanent);
}

#[tokio::test(start_paused = true)]
async fn layer_2_that_is_refused() {
    for (errno, check, retry) in [
        (
            Errno::EOPNOTSUPP,
            "Operation not supported (os error 95): it is fixed to layer 3: under z/VM define the LAN or VSWITCH as ETHERNET",
            Retry::Permanent,
        ),
        (Errno::EPERM, "Operation not permitted (os error 1): it is not offline yet: try again", Retry::Temporary),
        (Errno::EINVAL, "Invalid argument (os error 22): load the module qeth_l2", Retry::Temporary),
    ] {
        let sentence = format!("0.0.0600: layer 2 was refused: {check}");
        assert_says(with_fault("layer2", Fault::Refuses(errno)).await, &sentence, retry);
    }
}

#[tokio::test(start_paused = true)]
async fn a_card_that_cannot_be_set_online() {
    for (errno, check) in [
        (
            Errno::EBUSY,
            "Device or resource busy (os error 16): another system has the adapter for itself: let it go there, or take \
             another one",
        ),
        (
            Errno::EPERM,
            "Operation not permitted (os error 1): this system may not use it: under z/VM grant the guest access to the \
             VSWITCH, else see the HMC",
        ),
        (
            Errno::ENODEV,
            "No such device (os error 19): the adapter is gone or does not answer: look at its CHPID on the HMC",
        ),
        (Errno::EIO, "Input/output error (os error 5): look at the kernel log, and at the adapter's CHPID on the HMC"),
    ] {
        let sentence = format!("0.0.0600: setting it online failed (card_type `OSD_10GIG`, state `DOWN`): {check}");
        assert_says(with_fault("online", Fault::Refuses(errno)).await, &sentence, Retry::Temporary);
    }
    let sentence = format!("0.0.0600: the kernel has not finished setting it online after 30 s: {LOG}");
    assert_says(with_fault("online", Fault::Busy(1000)).await, &sentence, Retry::Temporary);
}

#[tokio::test(start_paused = true)]
async fn an_interface_that_never_comes() {
    let kernel = Kernel::osa();
    kernel.with(|state| state.interface = None);
    let sentence =
        format!("0.0.0600: online, no interface (card_type `OSD_10GIG`, state `SOFTSETUP`) after 30 s: {LOG}");
    assert_says(online(&kernel, 0).await, &sentence, Retry::Temporary);
}
