//! Our programs, in a guest: the whole way once, on the machine and the block stack they are made for.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

use e2e::lab::cmp;
use e2e::server::Server;
use e2e::{Lab, sample};
use vm::{Disk, Guest};

#[test]
fn an_image_is_written_to_a_multipath_map_by_io_uring_and_is_what_was_packed() {
    let (lab, raw) = (Lab::new(), sample::disk(512));
    let image = lab.pack(&raw, "--chunk-size 1MiB");
    let server = Server::imgstream(&image.dir);
    let size = std::fs::metadata(&raw).unwrap().len();
    let disk = Disk::new(size).paths(2);
    let guest = Guest::builder().disk(&disk).network().boot();
    guest.put("/etc/maker.pub", 0o644, std::fs::read(&image.key.public).unwrap());
    let map = guest.start_multipath().map(&disk.wwid(), 2);
    let source = guest.url(&server.url());
    let arguments = ["imgstream", "write", &source, &map, "--trust", "/etc/maker.pub", "--engine", "uring"];
    let done = guest.program(arguments).limit(180).done().ok().says("io_uring").says("proven");
    println!("{} MiB written and read back in {:.1?}\n{}", size >> 20, done.took, done.stderr);
    guest.power_off();
    cmp(&raw, disk.path(), size).ok();
}
