//! A disk that is full, for real: a small file system in a mount namespace of the test's thread, which ends with it.

use std::path::{Path, PathBuf};

use e2e::Lab;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use orchestrator::model::State;
use orchestrator::store::{self, Location, StoreError};
use sqlx::{Connection as _, Row as _};

use crate::sample::{change, next, record, run};

/// The mount, which would keep its directory from being removed.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// The threads of the store are made by this one, and so have its namespace.
    fn at(at: PathBuf) -> Self {
        e2e::loopdev::demand_root();
        let nothing: Option<&str> = None;
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing).unwrap();
        mount(Some("small"), &at, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).unwrap();
        SmallDisk(at)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).unwrap();
    }
}

/// Takes all the room there is.
fn fill(file: &Path) {
    use std::io::Write as _;
    let mut file = std::fs::File::create(file).unwrap();
    for size in [1 << 16, 1 << 12, 1] {
        while file.write_all(&vec![7; size]).is_ok() {}
    }
}

#[test]
fn a_full_disk_refuses_commits_and_room_lets_them_go_on() {
    let lab = Lab::new();
    let disk = SmallDisk::at(lab.fresh_dir("disk"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let file = disk.0.join("runs.sqlite");
        let filler = disk.0.join("filler");
        let store = store::open(&Location::File(file.clone())).await.unwrap();
        let by = store.take_over().await.unwrap();
        let mut current = record(1);
        store.commit(by, &[change(&current)]).await.unwrap();
        for round in 0..5 {
            fill(&filler);
            let mut refused = 0;
            // The log's file may have room left from before.
            for _ in 0..200 {
                let changed = next(&current, State::Queued);
                match store.commit(by, &[change(&changed), change(&record(round * 1000 + changed.version))]).await {
                    Ok(()) => current = changed,
                    Err(StoreError::Unavailable(text)) => {
                        assert!(text.contains("full") && text.contains("make room on its file system"), "{text}");
                        refused += 1;
                    }
                    Err(error) => panic!("{error}"),
                }
                assert_eq!(store.run(&run(1)).await, Ok(Some(current.clone())), "reading goes on, and is true");
                if refused == 3 {
                    break;
                }
            }
            assert_eq!(refused, 3, "the disk was full");
            std::fs::remove_file(&filler).unwrap();
            current = next(&current, State::Queued);
            store.commit(by, &[change(&current)]).await.unwrap();
        }
        let told = store.told(0, Some(&run(1)), 10_000).await.unwrap();
        assert_eq!(told.len() as i64, current.version, "each version was told once");
        assert_eq!(store.told(0, None, 10_000).await.unwrap().len() as i64, store.last_told().await.unwrap());
        drop(store);
        let mut connection = sqlx::AnyConnection::connect(&format!("sqlite:{}", file.display())).await.unwrap();
        let row = sqlx::query("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap();
        assert_eq!(row.get::<String, _>(0), "ok");
    });
}
