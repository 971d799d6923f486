//! Peak memory is a budget, not a function of the image: at most 256 MiB at default settings.

use std::path::Path;

use e2e::lab::pack;
use e2e::server::Server;
use e2e::{GIB, Image, Lab, MIB, Run, TIB, sample};

const BUDGET: u64 = 256 * MIB;

#[track_caller]
fn within_budget(run: Run) -> e2e::Done {
    let done = run.measured().done().ok();
    eprintln!("{} MiB at most, {:?}: {}", done.peak / MIB, done.took, done.line);
    assert!(done.peak > MIB, "nothing was measured");
    assert!(done.peak <= BUDGET, "{} MiB: {}", done.peak / MIB, done.line);
    done
}

fn packed(lab: &Lab, raw: &Path) -> (Image, e2e::Done) {
    let (key, dir) = (lab.key(), lab.path("image"));
    let done = within_budget(pack(raw, &dir, &key, ""));
    (Image { dir, key }, done)
}

#[test]
fn a_sparse_terabyte() {
    let lab = Lab::new();
    let raw = lab.path("raw");
    drop(sample::sparse(&raw, TIB));
    let (image, done) = packed(&lab, &raw);
    assert!(done.took.as_secs() < 60, "{:?}", done.took);
    within_budget(image.verify());
    within_budget(image.write(&image.dir, &lab.path("target")));
}

#[test]
fn half_a_gigabyte_of_data_in_a_gigabyte() {
    let lab = Lab::new();
    let raw = lab.path("raw");
    sample::noise_file(&raw, 51, 512 * MIB);
    std::fs::File::options().write(true).open(&raw).unwrap().set_len(GIB).unwrap();
    let (image, _) = packed(&lab, &raw);
    let server = Server::imgstream(&image.dir);
    within_budget(image.write(server.url(), &lab.path("target")));
}
