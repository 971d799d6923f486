//! What is written to set a device online, and offline again.

use tokio::time::Instant;

use crate::kernel::{Fault, Kernel};
use crate::*;

const GROUP: &str = "group 0.0.0600,0.0.0601,0.0.0602";

#[tokio::test(start_paused = true)]
async fn three_devices_are_grouped_set_to_layer_2_and_online() {
    let kernel = Kernel::osa();
    assert_eq!(online(&kernel, 0).await.unwrap(), "eth0");
    assert_eq!(kernel.writes(), [GROUP, "layer2 1", "online 1"]);
}

#[tokio::test(start_paused = true)]
async fn hiper_sockets_too() {
    let kernel = Kernel::hiper_sockets();
    assert_eq!(online(&kernel, 0).await.unwrap(), "hsi0");
    assert_eq!(kernel.writes(), [GROUP, "layer2 1", "online 1"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_when_it_is_online_already() {
    let kernel = Kernel::osa();
    online(&kernel, 1).await.unwrap();
    kernel.writes();
    let start = Instant::now();
    assert_eq!(online(&kernel, 1).await.unwrap(), "eth0");
    assert_eq!((kernel.writes(), start.elapsed()), (Vec::<String>::new(), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_there_is_taken() {
    let kernel = Kernel::osa();
    kernel.with(|state| state.group("0.0.0600,0.0.0601,0.0.0602")).unwrap();
    assert_eq!(online(&kernel, 0).await.unwrap(), "eth0");
    assert_eq!(kernel.writes(), ["layer2 1", "online 1"]);
}

#[tokio::test(start_paused = true)]
async fn ignored_devices_are_freed_first() {
    let kernel = Kernel::osa();
    kernel.ignore();
    assert_eq!(online(&kernel, 0).await.unwrap(), "eth0");
    let expected = [
        "cio_ignore free 0.0.0600",
        "cio_ignore free 0.0.0601",
        "cio_ignore free 0.0.0602",
        "cio_settle 1",
        GROUP,
        "layer2 1",
        "online 1",
    ];
    // The first write frees one device of a range that covers all; the simulation then lists the rest.
    assert_eq!(kernel.writes(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_second_port_is_set() {
    let kernel = Kernel::osa();
    online(&kernel, 1).await.unwrap();
    assert_eq!(kernel.writes(), [GROUP, "portno 1", "layer2 1", "online 1"]);
    assert_eq!(kernel.read("portno"), "1");
}

/// Layer and port can be changed only while it is offline.
#[tokio::test(start_paused = true)]
async fn one_that_is_online_on_layer_3_or_another_port_is_set_offline_first() {
    let kernel = Kernel::osa();
    kernel.with(|state| {
        state.group("0.0.0600,0.0.0601,0.0.0602").unwrap();
        state.tree.set("sys/bus/ccwgroup/devices/0.0.0600/layer2", "0");
        state.set_online().unwrap();
    });
    assert_eq!(online(&kernel, 0).await.unwrap(), "eth0");
    assert_eq!(kernel.writes(), ["online 0", "layer2 1", "online 1"]);
    online(&kernel, 1).await.unwrap();
    assert_eq!(kernel.writes(), ["online 0", "portno 1", "online 1"]);
}

#[tokio::test(start_paused = true)]
async fn one_that_is_busy_is_ordered_again() {
    let kernel = Kernel::osa();
    kernel.fault("online", Fault::Busy(3));
    online(&kernel, 0).await.unwrap();
    assert_eq!(kernel.writes().iter().filter(|write| *write == "online 1").count(), 4);
}

#[tokio::test(start_paused = true)]
async fn it_is_set_offline_again() {
    let kernel = Kernel::osa();
    assert_eq!(kernel.card(0).set_offline().await, Ok(()));
    online(&kernel, 0).await.unwrap();
    assert_eq!(kernel.card(0).set_offline().await, Ok(()));
    assert_eq!(kernel.read("state"), "DOWN");
    online(&kernel, 0).await.unwrap();
    kernel.fault("online", Fault::Busy(1000));
    let why = kernel.card(0).set_offline().await.unwrap_err();
    let expected = "still online: 0.0.0600: the kernel has not finished setting it offline after 20 s: \
                    look at the kernel log";
    assert_eq!(why, expected);
}
