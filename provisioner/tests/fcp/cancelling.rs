//! Somebody asks it to stop: it does at once, wherever it waits, and what it had set can be undone.

use std::time::Duration;

use imgstream::error::Kind;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::channel::{Channel, Storage, When};
use crate::kernel::{Fault, Kernel};
use crate::undoing::{assert_same, used};
use crate::*;

/// Between two looks.
const THEN: Duration = Duration::from_millis(8030);

/// Cancels while `kernel` lets `ways` wait, and undoes; then all is as before.
async fn assert_stops(kernel: Kernel, ways: &[FcpSpec], waits_at: &str) {
    let (fabric, cancel, before) = (kernel.fabric(), CancellationToken::new(), kernel.snapshot());
    let told = Mutex::new(Vec::new());
    let start = Instant::now();
    let work = async {
        let tell = |what| told.lock().unwrap().push(what);
        fabric.attach(ways, WAIT, &tell, &cancel).await
    };
    let ((attached, ended), ()) = tokio::join!(work, async {
        sleep(THEN).await;
        cancel.cancel();
    });
    assert!(start.elapsed() - THEN < Duration::from_millis(5), "{waits_at}: {:?}", start.elapsed());
    assert_eq!(ended.unwrap_err().kind(), Kind::Cancelled, "{waits_at}");
    let told = told.into_inner().unwrap();
    assert!(told.iter().any(|told| told.contains(waits_at)), "{waits_at} is not what was waited at: {told:?}");
    kernel.heal();
    let torn_down = fabric.undo(attached).await;
    assert!(torn_down.left.is_empty(), "{waits_at}: {torn_down:?}");
    kernel.settle().await;
    assert_same(&kernel.snapshot(), &before);
}

#[tokio::test(start_paused = true)]
async fn while_an_adapter_is_waited_for() {
    let way = [way(ADAPTER, WWPN)];
    let ignored = Kernel::new([channel()]);
    ignored.ignore(0x1900..=0x1900);
    ignored.fault("cio_ignore", Fault::Deaf);
    assert_stops(ignored, &way, "ignored by the kernel").await;
    let boxed = Kernel::new([Channel { availability: "boxed", ..channel() }]);
    assert_stops(boxed, &way, "boxed").await;
    let without_driver = Kernel::new([Channel { driver: None, ..channel() }]);
    assert_stops(without_driver, &way, "no driver has it").await;
    let offline = used([channel()]).await;
    offline.fault("online", Fault::Deaf);
    assert_stops(offline, &way, "still offline").await;
    let dark = used([Channel { link: false, ..channel() }]).await;
    assert_stops(dark, &way, "link down").await;
    let failed = used([Channel { recovers: false, ..channel() }]).await;
    assert_stops(failed, &way, "its recovery failed").await;
}

#[tokio::test(start_paused = true)]
async fn while_ports_are_waited_for() {
    let nothing_behind = Channel { storage: Vec::new(), ..npiv() };
    assert_stops(used([nothing_behind.clone()]).await, &[alone(ADAPTER)], "no storage port").await;
    assert_stops(used([nothing_behind]).await, &[way(ADAPTER, WWPN)], "not in the fabric").await;
    let closed = Storage { lets_in: false, ..storage(WWPN) };
    let closed = used([Channel { storage: vec![closed], ..channel() }]).await;
    assert_stops(closed, &[way(ADAPTER, WWPN)], "its recovery failed").await;
}

#[tokio::test(start_paused = true)]
async fn while_a_lun_is_waited_for() {
    for npiv in [false, true] {
        let masked = Storage { luns: vec![(LUN, When::Never)], ..storage(WWPN) };
        let masked = used([Channel { npiv, storage: vec![masked], ..channel() }]).await;
        assert_stops(masked, &[way(ADAPTER, WWPN)], "not reported").await;
    }
}

/// What is up already is undone with what is waited for.
#[tokio::test(start_paused = true)]
async fn while_one_of_two_ways_is_up() {
    let kernel = used([channel(), Channel { link: false, ..other_channel() }]).await;
    assert_stops(kernel, &[way(ADAPTER, WWPN), way(OTHER_ADAPTER, OTHER_WWPN)], "link down").await;
}

#[tokio::test(start_paused = true)]
async fn before_it_begins() {
    let kernel = Kernel::new([channel()]);
    let cancel = CancellationToken::new();
    cancel.cancel();
    let (attached, ended) = kernel.fabric().attach(&[way(ADAPTER, WWPN)], WAIT, &|_| {}, &cancel).await;
    assert_eq!(ended.unwrap_err().kind(), Kind::Cancelled);
    assert!(attached.is_empty());
    assert_eq!(kernel.writes(), Vec::<String>::new());
}

/// In real time: time does not pass by itself while a thread is in a write.
#[tokio::test]
async fn while_the_kernel_does_not_answer() {
    for attribute in ["cio_ignore", "cio_settle", "online", "port_rescan", "unit_add"] {
        let storage = if attribute == "port_rescan" { Vec::new() } else { vec![storage(WWPN)] };
        let kernel = Kernel::new([Channel { storage, ..channel() }]);
        if attribute.starts_with("cio") {
            kernel.ignore(0x1900..=0x1900);
        }
        kernel.fault(attribute, Fault::Hangs);
        let (fabric, cancel, ways) = (kernel.fabric(), CancellationToken::new(), [way(ADAPTER, WWPN)]);
        let cancelled = async {
            while !kernel.with(|state| state.writes.iter().any(|write| write.contains(attribute))) {
                sleep(Duration::from_millis(20)).await;
            }
            sleep(Duration::from_millis(200)).await;
            cancel.cancel();
            Instant::now()
        };
        let work = async {
            let ended = fabric.attach(&ways, WAIT, &|_| {}, &cancel).await;
            (ended, Instant::now())
        };
        let (((attached, ended), end), cancelled) = tokio::join!(work, cancelled);
        assert!(end.duration_since(cancelled) < Duration::from_millis(500), "{attribute}");
        assert_eq!(ended.unwrap_err().kind(), Kind::Cancelled);
        kernel.heal();
        kernel.wake();
        let told = fabric.undo(attached).await;
        assert!(told.left.is_empty(), "{attribute}: {told:?}");
        let online = format!("sys/bus/ccw/devices/{ADAPTER}/online");
        assert_ne!(kernel.tree().read(&online), "1", "{attribute}");
        assert_eq!(kernel.tree().read("proc/cio_ignore"), if attribute.starts_with("cio") { "0.0.1900" } else { "" });
    }
}
