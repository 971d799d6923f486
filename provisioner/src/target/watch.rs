//! Paths while a run goes on: each one that fails, comes back, appears or goes is an event.

use std::collections::BTreeMap;
use std::time::Duration;

use protocol::event::{Body, PathChanged, PathState};

use super::multipath::{Map, Path, count};
use crate::block::Number;

/// How often the kernel is asked. A failure between two looks still shows in the path's count of failures.
const LOOK: Duration = Duration::from_secs(1);

/// Tells what happens to the paths of `map` from what they were, for as long as it is polled; to begin with, which of them were not live.
pub async fn watch(map: &Map, first: &[Path], way: &dyn Fn(&str) -> String, emit: &dyn Fn(Body)) {
    let mut known = by_number(first);
    tell(changes(&all_live(&known), &known), first, way, emit);
    loop {
        tokio::time::sleep(LOOK).await;
        // A map that does not say is looked at again: what is wrong with it shows where it is written.
        let Ok(paths) = map.paths().await else { continue };
        let now = by_number(&paths);
        tell(changes(&known, &now), &paths, way, emit);
        known = now;
    }
}

/// Tells of changes; `paths`: what they have led to.
fn tell(changes: Vec<(String, PathState)>, paths: &[Path], way: &dyn Fn(&str) -> String, emit: &dyn Fn(Body)) {
    let counted = count(paths);
    for (path, state) in changes {
        let (live, total) = (counted.live, counted.total);
        emit(Body::PathChanged(PathChanged { way: way(&path), path, state, live, total }));
    }
}

type Known = BTreeMap<Number, Path>;

fn by_number(paths: &[Path]) -> Known {
    paths.iter().map(|path| (path.number, path.clone())).collect()
}

/// What nobody would have to be told of.
fn all_live(known: &Known) -> Known {
    known.iter().map(|(number, path)| (*number, Path { live: true, ..path.clone() })).collect()
}

fn changes(before: &Known, now: &Known) -> Vec<(String, PathState)> {
    let mut changes = Vec::new();
    for (number, path) in now {
        let name = || path.kernel_name.clone();
        match before.get(number) {
            None => changes.push((name(), if path.live { PathState::Up } else { PathState::Down })),
            Some(was) => {
                let failed_between = path.failures > was.failures;
                if was.live && (!path.live || failed_between) {
                    changes.push((name(), PathState::Down));
                }
                if path.live && (!was.live || failed_between) {
                    changes.push((name(), PathState::Up));
                }
            }
        }
    }
    let gone = before.iter().filter(|(number, _)| !now.contains_key(number));
    changes.extend(gone.map(|(_, path)| (path.kernel_name.clone(), PathState::Gone)));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(list: &[(u64, bool, u64)]) -> Known {
        let path = |(minor, live, failures): &(u64, bool, u64)| Path {
            number: Number { major: 8, minor: *minor },
            kernel_name: format!("sd{minor}"),
            live: *live,
            failures: *failures,
        };
        by_number(&list.iter().map(path).collect::<Vec<_>>())
    }

    fn told(before: &[(u64, bool, u64)], now: &[(u64, bool, u64)]) -> Vec<(String, PathState)> {
        changes(&paths(before), &paths(now))
    }

    #[test]
    fn each_change_is_told_once() {
        let sd = |minor: u64| format!("sd{minor}");
        assert_eq!(told(&[(0, true, 0), (1, true, 0)], &[(0, true, 0), (1, true, 0)]), []);
        assert_eq!(told(&[(0, true, 0), (1, true, 0)], &[(0, true, 0), (1, false, 1)]), [(sd(1), PathState::Down)]);
        assert_eq!(told(&[(1, false, 1)], &[(1, true, 1)]), [(sd(1), PathState::Up)]);
        assert_eq!(told(&[(1, false, 1)], &[(1, false, 1)]), []);
        assert_eq!(told(&[(0, true, 0), (1, true, 0)], &[(0, true, 0)]), [(sd(1), PathState::Gone)]);
        assert_eq!(told(&[(0, true, 0)], &[(0, true, 0), (2, true, 0)]), [(sd(2), PathState::Up)]);
    }

    #[test]
    fn what_is_not_live_from_the_beginning_is_told() {
        let first = paths(&[(0, true, 3), (1, false, 7), (2, false, 0)]);
        let told = changes(&all_live(&first), &first);
        assert_eq!(told, [("sd1".into(), PathState::Down), ("sd2".into(), PathState::Down)]);
    }

    #[test]
    fn a_flap_between_two_looks_is_told() {
        let flapped = told(&[(0, true, 0)], &[(0, true, 1)]);
        assert_eq!(flapped, [("sd0".into(), PathState::Down), ("sd0".into(), PathState::Up)]);
    }
}
