//! End-to-end tests, all in one program: those that wait, for servers that stall or leases that end, fill the time of those that compute.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

mod agent;
mod bench;
mod corruption;
mod crashes;
mod docs;
mod encrypted_regions;
mod erase;
mod format;
mod hostile_answers;
mod hostile_descriptors;
mod hostile_devices;
mod hostile_frames;
mod hostile_http;
mod hostile_images;
mod hostile_indexes;
mod hostile_registry;
mod hostile_runs;
mod hostile_tls;
mod interruptions;
mod larger_devices;
mod media;
mod memory;
mod packing;
mod page;
mod resume;
mod round_trip;
mod second_reader;
mod servers;
mod service;
mod sources;
mod split_targets;
mod stalls;
mod targets;
mod trust;

/// A file that nobody has named above would not even be compiled.
#[test]
fn every_file_of_tests_is_part_of_this() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let text = include_str!("main.rs");
    for entry in std::fs::read_dir(here).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(name == "main" || text.contains(&format!("\nmod {name};\n")), "{}", path.display());
    }
}
