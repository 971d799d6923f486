//! What attaching set is taken back, and nothing else.

use std::time::Duration;

use nix::errno::Errno;
use protocol::event::TornDown;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::channel::{Channel, Storage};
use crate::kernel::{Fault, Kernel};
use crate::tree::{Entry, Snapshot};
use crate::*;

/// A machine whose adapters have been online before: zFCP keeps directories of host and ports from then on.
pub async fn used(channels: impl IntoIterator<Item = Channel>) -> Kernel {
    let kernel = Kernel::new(channels);
    let count = kernel.with(|state| state.channels.len());
    for number in 0..count {
        kernel.with(|state| state.set_online(number)).unwrap();
    }
    kernel.settle().await;
    for number in 0..count {
        kernel.with(|state| state.set_offline(number)).unwrap();
    }
    kernel.settle().await;
    kernel
}

async fn undo(kernel: &Kernel, attached: Attached) -> TornDown {
    let start = Instant::now();
    let told = kernel.fabric().undo(attached).await;
    assert!(start.elapsed() <= Duration::from_secs(61), "{:?}", start.elapsed());
    told
}

#[track_caller]
pub fn assert_same(now: &Snapshot, before: &Snapshot) {
    let differs: Vec<_> = now
        .iter()
        .filter(|(path, entry)| before.get(*path) != Some(entry))
        .chain(before.iter().filter(|(path, _)| !now.contains_key(*path)))
        .collect();
    assert!(differs.is_empty(), "{differs:#?}");
}

#[tokio::test(start_paused = true)]
async fn undoing_restores_every_byte() {
    for npiv in [false, true] {
        let kernel = used([Channel { npiv, ..channel() }, Channel { npiv, ..other_channel() }]).await;
        let before = kernel.snapshot();
        let attached = attached(&kernel, &[way(ADAPTER, WWPN), way(OTHER_ADAPTER, OTHER_WWPN)]).await;
        assert_ne!(kernel.snapshot(), before);
        let told = undo(&kernel, attached).await;
        assert_eq!(told.left, Vec::<String>::new());
        kernel.settle().await;
        assert_same(&kernel.snapshot(), &before);
    }
}

#[tokio::test(start_paused = true)]
async fn undoing_goes_in_reverse_and_says_what_it_did() {
    let kernel = Kernel::new([channel()]);
    kernel.ignore(0x1900..=0x1900);
    let attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    kernel.writes();
    let told = undo(&kernel, attached).await;
    let done = [
        format!("{ADAPTER} {WWPN} {LUN}: LUN removed"),
        format!("{ADAPTER}: set offline"),
        format!("{ADAPTER}: ignored again"),
    ];
    assert_eq!((told.undone, told.left), (done.to_vec(), Vec::new()));
    let writes = [
        "0:0:0:1077100560/delete 1".to_owned(),
        format!("{ADAPTER}/{WWPN}/unit_remove {LUN}"),
        format!("{ADAPTER}/online 0"),
        format!("proc/cio_ignore add {ADAPTER}"),
        "proc/cio_ignore purge".into(),
    ];
    assert_eq!(kernel.writes(), writes);
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_was_ignored_is_so_again() {
    let kernel = Kernel::new([channel()]);
    kernel.ignore(0x1800..=0x19ff);
    let before = kernel.snapshot();
    let attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    undo(&kernel, attached).await;
    kernel.settle().await;
    assert_same(&kernel.snapshot(), &before);
}

/// Else they would hang about for a minute, until the port is given up.
#[tokio::test(start_paused = true)]
async fn disks_that_were_found_automatically_are_gone_with_their_adapter() {
    let kernel = Kernel::new([npiv()]);
    let attached = attached(&kernel, &[alone(ADAPTER)]).await;
    kernel.settle().await;
    assert!(kernel.tree().exists("sys/block/sda"));
    let told = undo(&kernel, attached).await;
    assert_eq!((told.undone, told.left), (vec![format!("{ADAPTER}: set offline")], Vec::new()));
    assert!(!kernel.tree().exists("sys/block/sda"));
}

/// Of an adapter that was never online before, zFCP keeps host and ports. Nothing else stays.
#[tokio::test(start_paused = true)]
async fn only_what_zfcp_keeps_itself_stays_after_the_first_time() {
    let kernel = Kernel::new([channel()]);
    let before = kernel.snapshot();
    let attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    undo(&kernel, attached).await;
    kernel.settle().await;
    let now = kernel.snapshot();
    assert!(before.iter().all(|(path, entry)| now.get(path) == Some(entry)));
    let kept = now.keys().filter(|path| !before.contains_key(*path)).map(|path| path.to_str().unwrap());
    let attributes = ["failed", "in_recovery", "port_remove", "port_rescan", "status"];
    for path in kept {
        let name = path.rsplit('/').next().unwrap();
        let is_kept =
            path.contains("/host0") || path.contains("/rport-0") || path.contains(WWPN) || attributes.contains(&name);
        assert!(is_kept && !path.contains(LUN) && !path.contains("/target"), "{path} stays");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_there_before_stays() {
    let kernel = Kernel::new([channel()]);
    let _platforms = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    kernel.settle().await;
    kernel.writes();
    let before = kernel.snapshot();
    let attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    let told = undo(&kernel, attached).await;
    assert!(told.is_empty());
    assert_eq!(kernel.writes(), Vec::<String>::new());
    assert_same(&kernel.snapshot(), &before);
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_was_online_stays_so_when_its_lun_is_removed() {
    let kernel = used([channel()]).await;
    kernel.with(|state| state.set_online(0)).unwrap();
    kernel.settle().await;
    let before = kernel.snapshot();
    let attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    let told = undo(&kernel, attached).await;
    assert_eq!(told.undone, [format!("{ADAPTER} {WWPN} {LUN}: LUN removed")]);
    kernel.settle().await;
    assert_same(&kernel.snapshot(), &before);
}

#[tokio::test(start_paused = true)]
async fn what_a_failed_attach_set_is_undone() {
    let kernel = used([Channel { storage: vec![Storage { luns: Vec::new(), ..storage(WWPN) }], ..channel() }]).await;
    let before = kernel.snapshot();
    let (attached, ended, _) = attach(&kernel, &[way(ADAPTER, WWPN)]).await;
    assert!(ended.is_err());
    undo(&kernel, attached).await;
    kernel.settle().await;
    assert_same(&kernel.snapshot(), &before);
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_undone_is_said_and_the_rest_is_undone() {
    let kernel = Kernel::new([channel()]);
    let attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    kernel.fault("unit_remove", Fault::Refuses(Errno::EIO));
    kernel.fault("delete", Fault::Refuses(Errno::EIO));
    let told = undo(&kernel, attached).await;
    assert_eq!(told.undone, [format!("{ADAPTER}: set offline")]);
    let unit = format!("{ADAPTER} {WWPN} {LUN}: LUN not removed: {LUN} to ");
    assert!(told.left.iter().any(|left| left.starts_with(&unit) && left.contains("Input/output error")), "{told:?}");
    let device = format!("{ADAPTER}: SCSI device 0:0:0:1077100560 not deleted: 1 to ");
    assert!(told.left.iter().any(|left| left.starts_with(&device)), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_does_not_go_offline_is_said() {
    for (fault, why) in [
        (Fault::Refuses(Errno::EIO), "Input/output error"),
        (Fault::Refuses(Errno::EAGAIN), "there was no time left for it"),
        (Fault::Deaf, "the kernel took it, and has not done it"),
    ] {
        let kernel = Kernel::new([channel()]);
        let attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
        kernel.fault("online", fault);
        let told = undo(&kernel, attached).await;
        assert_eq!(told.left.len(), 1, "{told:?}");
        assert!(told.left[0].starts_with(&format!("{ADAPTER}: still online: 0 to ")), "{told:?}");
        assert!(told.left[0].contains(why), "{told:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_busy_adapter_is_ordered_offline_again() {
    let kernel = Kernel::new([channel()]);
    let attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    kernel.fault("online", Fault::Busy(5));
    assert!(undo(&kernel, attached).await.left.is_empty());
}

/// To set it offline would make the kernel forget it.
#[tokio::test(start_paused = true)]
async fn an_adapter_that_has_lost_its_path_is_left() {
    let kernel = Kernel::new([channel()]);
    let attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    kernel.tree().set(&format!("sys/bus/ccw/devices/{ADAPTER}/availability"), "no path");
    let told = undo(&kernel, attached).await;
    assert_eq!(told.left, [format!("{ADAPTER}: left online: no path, setting it offline would remove it")]);
}

#[tokio::test(start_paused = true)]
async fn an_adapter_that_has_gone_needs_no_undoing() {
    let kernel = Kernel::new([channel()]);
    let attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    kernel.with(|state| {
        state.delete_device("0:0:0:1077100560");
        state.unregister(0);
    });
    assert!(undo(&kernel, attached).await.is_empty());
}

/// "purge" is for all devices that are ignored and offline.
#[tokio::test(start_paused = true)]
async fn other_ignored_devices_are_not_forgotten_with_ours() {
    let kernel = Kernel::new([channel(), other_channel()]);
    kernel.ignore(0x1900..=0x1900);
    kernel.with(|state| state.ignored.insert(0x1940));
    let attached = attached(&kernel, &[way(ADAPTER, WWPN)]).await;
    let told = undo(&kernel, attached).await;
    assert_eq!(told.undone.last().unwrap(), &format!("{ADAPTER}: ignored again, from when it goes away"));
    assert!(kernel.tree().exists(&format!("sys/bus/ccw/devices/{OTHER_ADAPTER}")));
}

/// In real time, since threads are in writes that hang.
#[tokio::test]
async fn an_order_that_is_answered_late_is_undone_all_the_same() {
    let kernel = Kernel::new([channel()]);
    kernel.fault("online", Fault::Hangs);
    let (ways, wait) = ([way(ADAPTER, WWPN)], Duration::from_millis(300));
    let (attached, ended) = kernel.fabric().attach(&ways, wait, &|_| {}, &CancellationToken::new()).await;
    assert!(ended.is_err());
    let fabric = kernel.fabric();
    let (told, ()) = tokio::join!(fabric.undo(attached), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        kernel.heal();
        kernel.wake();
    });
    assert_eq!((told.undone, told.left), (vec![format!("{ADAPTER}: set offline")], Vec::new()));
    assert_eq!(kernel.tree().read(&format!("sys/bus/ccw/devices/{ADAPTER}/online")), "0");
}

/// Time is let pass by hand: it stands still while a thread is in a write.
#[tokio::test(start_paused = true)]
async fn an_order_that_is_never_answered_is_said() {
    let kernel = Kernel::new([channel()]);
    kernel.fault("online", Fault::Hangs);
    let (ways, cancel, fabric) = ([way(ADAPTER, WWPN)], CancellationToken::new(), kernel.fabric());
    let work = async {
        let (attached, ended) = fabric.attach(&ways, WAIT, &|_| {}, &cancel).await;
        assert!(ended.is_err());
        fabric.undo(attached).await
    };
    let start = Instant::now();
    let told = tokio::select! {
        told = work => told,
        () = async { loop { tokio::time::advance(Duration::from_millis(500)).await } } => unreachable!(),
    };
    assert!(start.elapsed() <= Duration::from_secs(92), "{:?}", start.elapsed());
    let left = format!("{ADAPTER}: setting it online is not finished, and may have its effect later");
    assert_eq!((told.undone, told.left), (Vec::new(), vec![left]));
}

#[tokio::test(start_paused = true)]
async fn the_tree_would_show_a_difference() {
    let kernel = Kernel::new([channel()]);
    let before = kernel.snapshot();
    kernel.tree().set(&format!("sys/bus/ccw/devices/{ADAPTER}/online"), "1");
    let now = kernel.snapshot();
    let differs: Vec<_> = now.iter().filter(|(path, entry)| before.get(*path) != Some(entry)).collect();
    assert!(matches!(differs[..], [(_, Entry::File(text))] if text == b"1\n"));
}
