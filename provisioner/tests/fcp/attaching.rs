//! What is written to bring ways up, and what is waited for.

use std::time::Duration;

use nix::errno::Errno;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::channel::{Channel, Storage, When};
use crate::kernel::{Fault, Kernel};
use crate::*;

fn online(adapter: &str) -> String {
    format!("{adapter}/online 1")
}

fn unit_add(adapter: &str, wwpn: &str) -> String {
    format!("{adapter}/{wwpn}/unit_add {LUN}")
}

#[tokio::test(start_paused = true)]
async fn an_adapter_is_set_online_and_the_lun_is_added() {
    let kernel = Kernel::new([channel()]);
    let attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    assert!(!attached.is_empty());
    assert_eq!(kernel.writes(), [online(ADAPTER), unit_add(ADAPTER, WWPN)]);
    assert!(kernel.tree().exists("sys/block/sda"));
}

#[tokio::test(start_paused = true)]
async fn with_npiv_the_lun_appears_by_itself_and_is_not_added() {
    let kernel = Kernel::new([npiv()]);
    let _attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    assert_eq!(kernel.writes(), [online(ADAPTER)]);
}

#[tokio::test(start_paused = true)]
async fn with_npiv_and_without_automatic_scanning_the_lun_is_added() {
    let kernel = Kernel::new([npiv()]);
    kernel.tree().set("sys/module/zfcp/parameters/allow_lun_scan", "N");
    let _attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    assert_eq!(kernel.writes(), [online(ADAPTER), unit_add(ADAPTER, WWPN)]);
}

/// zFCP scans when it logs in; what is mapped later it finds only when told.
#[tokio::test(start_paused = true)]
async fn with_npiv_a_lun_that_does_not_appear_is_added_after_a_while() {
    let storage = Storage { luns: vec![(LUN, When::After(3))], ..storage(WWPN) };
    let kernel = Kernel::new([Channel { storage: vec![storage], ..npiv() }]);
    let start = Instant::now();
    let _attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    assert_eq!(kernel.writes(), [online(ADAPTER), unit_add(ADAPTER, WWPN)]);
    assert!((5..8).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_when_everything_is_there_already() {
    let kernel = Kernel::new([channel(), Channel { npiv: true, ..other_channel() }]);
    let ways = [way(ADAPTER, WWPN), way(OTHER_ADAPTER, OTHER_WWPN), alone(OTHER_ADAPTER)];
    let _before = attached(&kernel, &ways).await;
    kernel.settle().await;
    let (_, before) = (kernel.writes(), kernel.snapshot());
    let start = Instant::now();
    let attached = attached(&kernel, &ways).await;
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert!(attached.is_empty());
    assert_eq!(kernel.writes(), Vec::<String>::new());
    assert_eq!(kernel.snapshot(), before);
}

#[tokio::test(start_paused = true)]
async fn an_adapter_alone_is_up_with_its_first_port() {
    let slow = Storage { zoned: When::After(40), ..storage(OTHER_WWPN) };
    let kernel = Kernel::new([Channel { storage: vec![storage(WWPN), slow], ..npiv() }]);
    let start = Instant::now();
    let _attached = attached(&kernel, &[alone(ADAPTER)]).await;
    assert!(start.elapsed() < Duration::from_secs(2));
    assert_eq!(kernel.writes(), [online(ADAPTER)]);
}

#[tokio::test(start_paused = true)]
async fn an_adapter_of_several_ways_is_set_online_once() {
    let kernel = Kernel::new([Channel { storage: vec![storage(WWPN), storage(OTHER_WWPN)], ..channel() }]);
    let _attached = attached(&kernel, &[way(ADAPTER, WWPN), way(ADAPTER, OTHER_WWPN)]).await;
    let expected = [online(ADAPTER), unit_add(ADAPTER, WWPN), unit_add(ADAPTER, OTHER_WWPN)];
    assert_eq!(kernel.writes(), expected);
}

#[tokio::test(start_paused = true)]
async fn adapters_are_brought_up_side_by_side() {
    let kernel = Kernel::new([channel(), other_channel()]);
    let start = Instant::now();
    let _attached = attached(&kernel, &[way(ADAPTER, WWPN), way(OTHER_ADAPTER, OTHER_WWPN)]).await;
    assert!(start.elapsed() < Duration::from_secs(2));
    let writes = kernel.writes();
    assert!([online(ADAPTER), online(OTHER_ADAPTER)].iter().all(|online| writes[..2].contains(online)), "{writes:?}");
}

/// In real time, since a thread is in a write that hangs.
#[tokio::test]
async fn an_adapter_is_given_one_order_at_a_time() {
    let kernel = Kernel::new([Channel { storage: vec![storage(WWPN), storage(OTHER_WWPN)], ..channel() }]);
    kernel.fault("unit_add", Fault::Hangs);
    let (ways, wait) = ([way(ADAPTER, WWPN), way(ADAPTER, OTHER_WWPN)], Duration::from_secs(2));
    let (_attached, ended) = kernel.fabric().attach(&ways, wait, &|_| {}, &CancellationToken::new()).await;
    assert_eq!(kernel.writes(), [online(ADAPTER), unit_add(ADAPTER, WWPN)]);
    let doing = format!("not reported, the kernel has not finished adding LUN {LUN} after 2 s");
    assert_eq!(ended.unwrap_err().to_string().matches(&doing).count(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_ignored_adapter_is_freed_first() {
    let kernel = Kernel::new([channel()]);
    kernel.ignore(0x1800..=0x19ff);
    let _attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    let expected = ["proc/cio_ignore free 0.0.1900", "proc/cio_settle 1", &online(ADAPTER), &unit_add(ADAPTER, WWPN)];
    assert_eq!(kernel.writes(), expected);
    assert_eq!(kernel.tree().read("proc/cio_ignore"), "0.0.1800-0.0.18ff\n0.0.1901-0.0.19ff");
}

#[tokio::test(start_paused = true)]
async fn a_port_that_comes_late_is_waited_for_and_looked_for_once() {
    let storage = Storage { zoned: When::After(12), ..storage(WWPN) };
    let kernel = Kernel::new([Channel { storage: vec![storage], ..channel() }]);
    let _attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    let expected = [online(ADAPTER), format!("{ADAPTER}/port_rescan 1"), unit_add(ADAPTER, WWPN)];
    assert_eq!(kernel.writes(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_lun_that_comes_late_is_looked_for_again() {
    let storage = Storage { luns: vec![(LUN, When::After(12))], ..storage(WWPN) };
    let kernel = Kernel::new([Channel { storage: vec![storage], ..channel() }]);
    let start = Instant::now();
    let _attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    let looked = format!("{ADAPTER}/{WWPN}/{LUN}/failed 0");
    let expected = [online(ADAPTER), unit_add(ADAPTER, WWPN), looked.clone(), looked.clone(), looked];
    assert_eq!(kernel.writes(), expected);
    assert!((12..20).contains(&start.elapsed().as_secs()), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_is_busy_is_ordered_again() {
    let kernel = Kernel::new([channel()]);
    kernel.fault("online", Fault::Busy(3));
    let _attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    let times = kernel.writes().into_iter().filter(|write| *write == online(ADAPTER)).count();
    assert_eq!(times, 4);
}

#[tokio::test(start_paused = true)]
async fn what_somebody_else_adds_at_the_same_time_is_not_ours() {
    let kernel = Kernel::new([channel()]);
    kernel.fault("unit_add", Fault::Refuses(Errno::EEXIST));
    let ways = [way(ADAPTER, WWPN)];
    let (attached, ended, _) = tokio::join!(attach(&kernel, &ways), async {
        // The other one is a moment quicker.
        while !kernel.with(|state| state.writes.contains(&unit_add(ADAPTER, WWPN))) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        kernel.with(|state| state.add_unit(0, WWPN, LUN)).unwrap();
    })
    .0;
    ended.unwrap();
    kernel.heal();
    let told = kernel.fabric().undo(attached).await;
    assert_eq!(told.undone, [format!("{ADAPTER}: set offline")]);
    assert!(kernel.tree().exists(&format!("sys/bus/ccw/devices/{ADAPTER}/{WWPN}/{LUN}")));
}

#[tokio::test(start_paused = true)]
async fn what_has_failed_before_is_recovered_once() {
    let kernel = Kernel::new([channel()]);
    let _before = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    let dir = format!("sys/bus/ccw/devices/{ADAPTER}");
    for path in [format!("{dir}/failed"), format!("{dir}/{WWPN}/failed")] {
        kernel.tree().set(&path, "1");
    }
    kernel.writes();
    // What is wrong above hides what is wrong below, which that cures.
    let _attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    assert_eq!(kernel.writes(), [format!("{ADAPTER}/failed 0")]);
    kernel.tree().set(&format!("{dir}/{WWPN}/failed"), "1");
    let _attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    assert_eq!(kernel.writes(), [format!("{ADAPTER}/{WWPN}/failed 0")]);
}

#[tokio::test(start_paused = true)]
async fn a_boxed_adapter_that_answers_again_is_taken() {
    let kernel = Kernel::new([Channel { availability: "boxed", ..channel() }]);
    let ways = [way(ADAPTER, WWPN)];
    let (_, ended, _) = tokio::join!(attach(&kernel, &ways), async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        // The kernel does not notice before it asks again.
        kernel.with(|state| state.channels[0].availability = "good");
    })
    .0;
    ended.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_is_waited_for_is_told_after_5_seconds_and_each_time_that_has_doubled() {
    let kernel = Kernel::new([Channel { storage: Vec::new(), ..channel() }, other_channel()]);
    let (_attached, _, told) = attach(&kernel, &[way(ADAPTER, WWPN), way(OTHER_ADAPTER, OTHER_WWPN)]).await;
    let state = format!("{ADAPTER}: online, port {WWPN} not in the fabric");
    let expected = [5, 10, 20].map(|seconds| format!("waiting for zFCP for {seconds} s: {state}"));
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn a_way_that_is_dead_costs_the_others_nothing() {
    let dead = Channel { link: false, ..channel() };
    let kernel = Kernel::new([dead, other_channel()]);
    let (attached, ended, _) = attach(&kernel, &[way(ADAPTER, WWPN), way(OTHER_ADAPTER, OTHER_WWPN)]).await;
    assert!(ended.unwrap_err().to_string().starts_with(&format!("{ADAPTER}: online, link down after 30 s")));
    assert_eq!(attached.ways_up(), 1);
    assert!(kernel.tree().exists("sys/block/sda"));
}

#[tokio::test(start_paused = true)]
async fn no_ways_are_up_at_once() {
    let kernel = Kernel::without_channels();
    assert!(attached(&kernel, &[]).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn the_wait_is_bounded_whatever_there_is_to_wait_for() {
    let nothing_behind = Channel { storage: Vec::new(), ..channel() };
    let kernel =
        Kernel::new([Channel { link: false, ..channel() }, Channel { bus_id: OTHER_ADAPTER, ..nothing_behind }]);
    for wait in [Duration::ZERO, Duration::from_millis(1), Duration::from_secs(1), Duration::from_secs(120)] {
        let start = Instant::now();
        let ways = [way(ADAPTER, WWPN), way(OTHER_ADAPTER, OTHER_WWPN), alone(OTHER_ADAPTER)];
        let (_attached, ended) = kernel.fabric().attach(&ways, wait, &|_| {}, &CancellationToken::new()).await;
        assert!(ended.is_err());
        assert!(
            start.elapsed().abs_diff(wait) <= Duration::from_millis(2),
            "{:?} instead of {wait:?}",
            start.elapsed()
        );
    }
}

/// A write that never returns cannot be waited for by letting time pass: a thread is in it. So this one is in real
/// time.
#[tokio::test]
async fn the_wait_is_bounded_when_the_kernel_does_not_answer() {
    let kernel = Kernel::new([channel()]);
    kernel.fault("online", Fault::Hangs);
    let (start, wait) = (Instant::now(), Duration::from_millis(1200));
    let ways = [way(ADAPTER, WWPN)];
    let (_attached, ended) = kernel.fabric().attach(&ways, wait, &|_| {}, &CancellationToken::new()).await;
    assert!(start.elapsed().abs_diff(wait) < Duration::from_millis(500), "{:?}", start.elapsed());
    let expected = format!(
        "{ADAPTER}: still offline, the kernel has not finished setting it online after 1 s: look at the kernel log"
    );
    assert_eq!(ended.unwrap_err().to_string(), expected);
}
