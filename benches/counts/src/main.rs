//! The pieces of work whose instructions `cargo xtask counts` counts, one per process, so that callgrind can count a whole process.
//!
//! `counts prepare DIR` makes the inputs, uncounted. `counts set-up NAME DIR` reads them and stops before the work;
//! `counts run NAME DIR` does the work as well. The difference of the two is the work: no symbols, no markers in the code
//! that is measured, and the program is built as `imgstream` is released.
//!
//! Counting, comparing and the baseline's format are `xtask`'s (`xtask/src/counts.rs`); the baselines lie beside this crate.

mod data;
mod prepare;
mod work;

use std::error::Error;
use std::path::Path;
use std::process::ExitCode;

type Outcome<T> = Result<T, Box<dyn Error>>;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["prepare", folder] => prepare::prepare(Path::new(folder)),
        ["list"] => {
            work::NAMES.iter().for_each(|name| println!("{name}"));
            Ok(())
        }
        ["processor"] => {
            println!("{}", processor());
            Ok(())
        }
        // The work that was set up is forgotten, not dropped: what taking it apart costs would be subtracted from the work.
        ["set-up", name, folder] => work::set_up(name, Path::new(folder)).map(std::mem::forget),
        ["run", name, folder] => work::set_up(name, Path::new(folder)).and_then(|work| work()),
        _ => Err("usage: counts prepare DIR | list | processor | set-up NAME DIR | run NAME DIR".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("counts: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The extensions of the processor this process sees, which choose its inner loops. Valgrind shows fewer than there are.
fn processor() -> String {
    #[cfg(target_arch = "x86_64")]
    let seen = [
        ("ssse3", std::arch::is_x86_feature_detected!("ssse3")),
        ("avx", std::arch::is_x86_feature_detected!("avx")),
        ("avx2", std::arch::is_x86_feature_detected!("avx2")),
        ("bmi2", std::arch::is_x86_feature_detected!("bmi2")),
        ("adx", std::arch::is_x86_feature_detected!("adx")),
        ("sha", std::arch::is_x86_feature_detected!("sha")),
        ("avx512f", std::arch::is_x86_feature_detected!("avx512f")),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    let seen: [(&str, bool); 0] = [];
    let names: Vec<&str> = seen.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
    if names.is_empty() { std::env::consts::ARCH.into() } else { names.join(" ") }
}
