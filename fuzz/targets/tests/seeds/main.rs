//! The inputs that fuzzing starts from: what `pack` really makes, and broken things a person thought of. They lie in
//! `fuzz/corpus`; `Z_FUZZ_SEEDS=write cargo test -p fuzz-targets --test seeds` writes them anew. Inputs that fuzzing
//! found lie beside them, named by a hash.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

mod agent;
mod binary;
mod http;
mod json;
mod packed;

use std::collections::BTreeMap;
use std::path::PathBuf;

use fuzz_targets::corpus::folder;

/// Inputs by target and name.
#[derive(Default)]
pub struct Seeds(BTreeMap<PathBuf, Vec<u8>>);

impl Seeds {
    fn add(&mut self, target: &str, name: &str, bytes: impl Into<Vec<u8>>) {
        let before = self.0.insert(folder(target).join(name), bytes.into());
        assert!(before.is_none(), "two seeds of {target} are called {name}");
    }
}

fn seeds() -> Seeds {
    let mut seeds = Seeds::default();
    let image = packed::image();
    json::add(&mut seeds, &image);
    binary::add(&mut seeds, &image);
    http::add(&mut seeds, &image);
    agent::add(&mut seeds);
    seeds
}

#[test]
fn the_seeds_in_the_repository_are_what_this_version_makes() {
    let write = std::env::var_os("Z_FUZZ_SEEDS").is_some_and(|value| value == "write");
    for (path, bytes) in seeds().0 {
        if write {
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, bytes).unwrap();
            continue;
        }
        let there = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let again = "Z_FUZZ_SEEDS=write cargo test -p fuzz-targets --test seeds";
        assert!(there == bytes, "{} is not what this version makes; write it anew with `{again}`", path.display());
    }
}

#[test]
fn seeds_are_small_enough_for_a_repository() {
    for target in fuzz_targets::TARGETS {
        let inputs = fuzz_targets::corpus::inputs(target.name);
        let bytes: usize = inputs.iter().map(Vec::len).sum();
        assert!(inputs.iter().all(|input| input.len() <= 8 << 10), "{}", target.name);
        assert!(inputs.len() >= 10 && bytes <= 400 << 10, "{}: {} inputs, {bytes} bytes", target.name, inputs.len());
    }
}
