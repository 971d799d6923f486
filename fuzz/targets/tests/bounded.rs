//! A bounded run of every fuzzing target in the ordinary tests: its corpus, and damaged inputs made from it, the same
//! ones every time. A soak run (`Z_SOAK=1`) makes a million of them. Coverage-guided fuzzing is `cargo xtask fuzz`.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

use std::io::Write as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use fuzz_targets::{Mutator, corpus, target};

/// Where the damage starts; another number gives other inputs.
const SEED: u64 = 0x5a50_494e_4445_5801;
/// Longer than any input takes by orders of magnitude, on any machine.
const HANGS: Duration = Duration::from_secs(180);

/// Runs a target over its corpus and `damaged` inputs made from it, or over the one input in `Z_FUZZ_INPUT`.
fn bounded(name: &str, damaged: u64) {
    let target = target(name);
    if let Ok(hex) = std::env::var("Z_FUZZ_INPUT") {
        (target.run)(&from_hex(&hex));
        return;
    }
    let inputs = corpus::inputs(name);
    let watch = Watch::start(name);
    let started = Instant::now();
    let mut accepted = inputs.iter().filter(|input| watch.run(target.run, input)).count();
    assert!(accepted > 0, "no input of the corpus is accepted: what is being tried here?");
    let damaged = if std::env::var_os("Z_SOAK").is_some() { 1_000_000 } else { damaged };
    let mut mutator = Mutator::new(SEED, target.words);
    for _ in 0..damaged {
        accepted += usize::from(watch.run(target.run, &mutator.next(&inputs)));
    }
    let (count, took) = (inputs.len() as u64 + damaged, started.elapsed().as_secs_f64());
    // Not by println!, which libtest keeps to itself when a test passes.
    let said = format!("fuzz {name}: {count} executions in {took:.1} s, {accepted} inputs accepted, none wrongly");
    let _ = writeln!(std::io::stderr(), "{said}");
}

/// Knows which input is being tried, so that one that fails or hangs can be named.
struct Watch {
    name: String,
    tried: Arc<Mutex<(Instant, Vec<u8>)>>,
}

impl Watch {
    fn start(name: &str) -> Self {
        let tried = Arc::new(Mutex::new((Instant::now(), Vec::new())));
        let watch = Watch { name: name.to_owned(), tried };
        let (name, tried) = (watch.name.clone(), Arc::downgrade(&watch.tried));
        std::thread::spawn(move || wait_for_a_hang(&name, &tried));
        watch
    }

    fn run(&self, run: fn(&[u8]) -> bool, input: &[u8]) -> bool {
        *self.tried.lock().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), input.to_vec());
        catch_unwind(AssertUnwindSafe(|| run(input)))
            .unwrap_or_else(|_| panic!("{}", broken(&self.name, "breaks its promise", input)))
    }
}

fn wait_for_a_hang(name: &str, tried: &Weak<Mutex<(Instant, Vec<u8>)>>) {
    while let Some(tried) = tried.upgrade() {
        let (since, input) = tried.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if since.elapsed() > HANGS {
            let _ = writeln!(std::io::stderr(), "{}", broken(name, "hangs", &input));
            std::process::abort();
        }
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn broken(name: &str, how: &str, input: &[u8]) -> String {
    let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "{name} {how} for the {} bytes {hex}\nagain: Z_FUZZ_INPUT={hex} cargo test -p fuzz-targets --test bounded {name}",
        input.len()
    )
}

fn from_hex(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().map(|digit| digit.to_digit(16).expect("hexadecimal digits")).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

#[test]
fn envelope() {
    bounded("envelope", 20_000);
}

#[test]
fn descriptor() {
    bounded("descriptor", 20_000);
}

#[test]
fn index() {
    bounded("index", 20_000);
}

#[test]
fn oci() {
    bounded("oci", 20_000);
}

#[test]
fn http() {
    bounded("http", 10_000);
}

#[test]
fn chunk() {
    bounded("chunk", 20_000);
}

#[test]
fn enrol() {
    bounded("enrol", 10_000);
}

#[test]
fn report() {
    bounded("report", 10_000);
}

#[test]
fn lease() {
    bounded("lease", 5_000);
}
