//! The block stack that a server's disk lies behind, in an emulated guest: dm-crypt beside the plain device, two paths beside one.
//!
//! Only the ratios within a round mean something: an emulator's processor is not a processor. What a machine's real one does, `cryptsetup
//! benchmark` and `imgstream bench` say there.

mod stack;
mod ways;

use clap::Args;
use serde_json::Value;

use crate::failure::{Context, Result};
use crate::lab::{Options, Scale};
use crate::machine;
use crate::report::{Report, Table};
use crate::stats::Spread;
use crate::units::{MIB, size_name};
use crate::write::ratios;
use stack::Stack;
use ways::{PLAIN, WAYS, Way};

/// Options of `guest`.
#[derive(Args, Clone, Debug)]
pub struct OfGuest {
    #[command(flatten)]
    pub scale: Scale,
    /// Processors of the guest
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub processors: u8,
    /// Let the guest's dm-crypt cut no writes, as before Linux 6.11
    #[arg(long)]
    pub uncut: bool,
    #[command(flatten)]
    pub options: Options,
}

/// Seconds that each stage alone may take.
const SECONDS: &str = "2";

/// What is looked at in `imgstream bench`'s findings: a name, and where its median stands.
const FIGURES: [(&str, Figure); 3] = [
    ("write alone", Figure::Stage("write")),
    ("read alone", Figure::Stage("read")),
    ("write and read back, the whole", Figure::Whole),
];

#[derive(Clone, Copy)]
enum Figure {
    Stage(&'static str),
    Whole,
}

impl Figure {
    /// Bytes of the raw image per second.
    fn of(self, findings: &Value) -> Option<f64> {
        match self {
            Self::Stage(part) => {
                let stages = findings["stages"].as_array()?;
                stages.iter().find(|stage| stage["part"] == part)?.pointer("/rate/median")?.as_f64()
            }
            Self::Whole => findings.pointer("/whole/rate/median")?.as_f64(),
        }
    }
}

/// The rates of one way: round by round, a series for each of [`FIGURES`].
type Samples = [Vec<f64>; FIGURES.len()];

/// Runs the benchmark.
pub fn run(options: &OfGuest) -> Result<Report> {
    let size = options.scale.size_or(128 * MIB);
    let rounds = options.scale.rounds();
    let stack = Stack::boot(size, options.processors, options.uncut);
    let mut report = Report::new("guest", machine::facts(std::path::Path::new("/var/tmp")));
    for (name, value) in stack.facts() {
        report.fact(name, value);
    }
    report.fact("image", format!("synthetic, {}, held in the guest's memory", size_name(size)));
    report.fact("rounds", format!("{rounds} interleaved after one warm-up"));
    let mut samples: Vec<Samples> = WAYS.iter().map(|_| Samples::default()).collect();
    let mut cipher: [Vec<f64>; 2] = Default::default();
    let mut first_bytes = Vec::new();
    for round in 0..=rounds {
        eprintln!("{}", if round > 0 { format!("round {round}/{rounds}") } else { "warm-up".into() });
        for turn in 0..WAYS.len() {
            let number = (turn + round) % WAYS.len();
            let (figures, first_byte) = measure(&stack, &WAYS[number], size)?;
            first_bytes.extend((WAYS[number].name == PLAIN).then_some(first_byte));
            if round > 0 {
                samples[number].iter_mut().zip(figures).for_each(|(series, figure)| series.push(figure));
            }
        }
        let both = stack.cipher_alone().context("cryptsetup benchmark said no rates")?;
        if round > 0 {
            cipher.iter_mut().zip(both).for_each(|(series, rate)| series.push(rate));
        }
    }
    report.fact("cipher", stack.cipher());
    tabulate(&mut report, &samples, &cipher)?;
    tell_the_start(&mut report, &stack, &first_bytes)?;
    Ok(report)
}

/// The rates, and the seconds from the image's verification to the first byte on its way to the device.
fn measure(stack: &Stack, way: &Way, size: u64) -> Result<([f64; FIGURES.len()], f64)> {
    let device = stack.open(way);
    let size = size.to_string();
    let mut arguments = vec!["imgstream", "bench", "--sink", &device, "--yes-destroy", &device, "--size", &size];
    arguments.extend(["--runs", "1", "--seconds", SECONDS, "--read-back", "--json"]);
    arguments.extend(way.largest_write.into_iter().flat_map(|bytes| ["--largest-write", bytes]));
    let told = stack.run(&arguments);
    stack.close(way);
    let findings: Value = serde_json::from_str(told.trim()).context("imgstream bench told no findings")?;
    let mut rates = [0.0; FIGURES.len()];
    for (rate, (name, figure)) in rates.iter_mut().zip(FIGURES) {
        *rate = figure.of(&findings).context(format!("imgstream bench told nothing of: {name}"))?;
    }
    eprintln!("  {}: {}", way.name, rates.map(|rate| format!("{:.1}", rate / MIB as f64)).join(", "));
    let first_byte = findings.pointer("/whole/first_write_seconds").and_then(Value::as_f64);
    Ok((rates, first_byte.context("imgstream bench told nothing of its first write")?))
}

/// From power-on to the first byte, once.
fn tell_the_start(report: &mut Report, stack: &Stack, first_bytes: &[f64]) -> Result<()> {
    let [boot, ready] = stack.start();
    let first = Spread::of(first_bytes.iter().copied()).context("no samples")?;
    let mut table = Table::new("From power-on to the first byte, seconds", &["until", "s"]);
    table.row(["the guest's first answer".into(), format!("{boot:.2}")]);
    table.row(["a multipath map with two live paths".into(), format!("{ready:.2}")]);
    table.row(["from the image's verification to the first byte".into(), first.show()]);
    report.tables.push(table);
    Ok(())
}

fn tabulate(report: &mut Report, samples: &[Samples], cipher: &[Vec<f64>; 2]) -> Result<()> {
    let mib = |values: &[f64]| {
        let spread = Spread::of(values.iter().map(|rate| rate / MIB as f64)).context("no samples")?;
        Ok(format!("{:.1} ({:.1}–{:.1})", spread.median, spread.min, spread.max))
    };
    for (place, (figure, _)) in FIGURES.iter().enumerate() {
        let mut table =
            Table::new(format!("{figure}, median (min–max)"), &["way", "MiB/s", "× what", "of the same round"]);
        for (way, of_way) in WAYS.iter().zip(samples) {
            let base = WAYS.iter().position(|base| Some(base.name) == way.beside).map(|base| &samples[base][place]);
            let ratio = base.and_then(|base| ratios::pairs(&of_way[place], base)).map(|ratio| ratio.show());
            let beside = way.beside.unwrap_or_default().to_owned();
            table.row([way.name.to_owned(), mib(&of_way[place])?, ratio.unwrap_or_default(), beside]);
        }
        report.tables.push(table);
    }
    let mut table = Table::new("The cipher alone, one core, median (min–max)", &["cryptsetup benchmark", "MiB/s"]);
    for (name, rates) in ["encryption", "decryption"].into_iter().zip(cipher) {
        table.row([format!("aes-xts, 512 bits, {name}"), mib(rates)?]);
    }
    report.tables.push(table);
    let of_ways: serde_json::Map<String, Value> = WAYS
        .iter()
        .zip(samples)
        .map(|(way, of_way)| {
            let figures =
                FIGURES.iter().zip(of_way).map(|((name, _), rates)| ((*name).to_owned(), rates.clone().into()));
            (way.name.to_owned(), Value::Object(figures.collect()))
        })
        .collect();
    report.keep("bytes_per_second", of_ways)?;
    report.keep("cipher_bytes_per_second", cipher)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_is_held_against_one_that_is_there() {
        for way in WAYS {
            assert!(way.beside.is_none_or(|base| WAYS.iter().any(|other| other.name == base)), "{}", way.name);
        }
    }

    #[test]
    fn figures_are_found_where_imgstream_puts_them() {
        let findings = serde_json::json!({
            "stages": [{"part": "source", "rate": {"median": 1.0}}, {"part": "write", "rate": {"median": 2.0}}],
            "whole": {"rate": {"median": 3.0}},
        });
        assert_eq!(Figure::Stage("write").of(&findings), Some(2.0));
        assert_eq!(Figure::Stage("read").of(&findings), None);
        assert_eq!(Figure::Whole.of(&findings), Some(3.0));
    }
}
