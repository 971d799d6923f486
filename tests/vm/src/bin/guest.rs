//! A guest to try things in: boots, then runs each line of standard input in the guest's shell, until there are no more.
//! `cargo xtask guest` starts it.

use std::io::BufRead;
use std::process::ExitCode;

use vm::{Disk, End, Guest, MIB};

const USAGE: &str = "usage: guest [MIB[xPATHS]]…   a disk of so many mebibytes, with so many paths, for each argument";

fn main() -> ExitCode {
    let disks: Option<Vec<Disk>> = std::env::args().skip(1).map(|argument| disk(&argument)).collect();
    let Some(disks) = disks else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let guest = disks.iter().fold(Guest::builder().network(), vm::Builder::disk).boot();
    println!("QEMU is process {}; first answer after {:.1?}", guest.pid(), guest.booted_in());
    for disk in &disks {
        println!("disk {} is {}", disk.wwid(), disk.path().display());
    }
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let done = guest.run(&line).limit(600).done();
        print!("{}", done.stdout);
        eprint!("{}", done.stderr);
        if done.end != End::Exit(0) {
            println!("[{:?}]", done.end);
        }
    }
    ExitCode::SUCCESS
}

fn disk(argument: &str) -> Option<Disk> {
    let (mib, paths) = argument.split_once('x').unwrap_or((argument, "1"));
    Some(Disk::new(mib.parse::<u64>().ok()? * MIB).paths(paths.parse().ok()?))
}
