//! Everything, one after the other: what `cargo xtask bench` does when it is told nothing else.

use std::path::PathBuf;

use clap::Args;

use crate::children::interrupted;
use crate::failure::Result;
use crate::lab::{Options, Scale};
use crate::report::Report;
use crate::units::{GIB, parse_size};
use crate::{memory, pack, resume, scaling, write};

/// Options of `all`.
#[derive(Args, Clone, Debug)]
pub struct All {
    #[command(flatten)]
    pub scale: Scale,
    /// Write what a plot of all ways needs to FILE as JSON
    #[arg(long, value_name = "FILE")]
    pub peers_json: Option<PathBuf>,
    #[command(flatten)]
    pub options: Options,
}

/// The image of the peer comparison. Every way's form of it, and a target, fit into the page cache of a small machine, and
/// seven rounds of all ways into the time somebody waits.
const WRITE: u64 = 4 * GIB;

/// Packing costs CPU, which shows as well on a smaller image.
const PACK: u64 = 2 * GIB;

/// Runs the benchmarks, and hands every report to `publish` as soon as it is there. One that cannot run is named, and the
/// others run all the same.
pub fn run(options: &All, mut publish: impl FnMut(Report) -> Result<()>) -> Result<()> {
    let sized = |size: u64| Scale { size: Some(options.scale.size_or(size)), ..options.scale };
    let write = write::Write {
        scale: sized(WRITE),
        no_limits: false,
        only: Vec::new(),
        ours: Vec::new(),
        peers_json: options.peers_json.clone(),
        options: options.options.clone(),
    };
    let scaling = scaling::Scaling { scale: sized(PACK), options: options.options.clone() };
    let resume = resume::Resume { scale: sized(WRITE), options: options.options.clone() };
    let pack = pack::Pack { scale: sized(PACK), options: options.options.clone() };
    let memory = memory(options)?;
    let parts: [(&'static str, &dyn Fn() -> Result<Report>); 5] = [
        ("write", &|| write::run(&write)),
        ("scaling", &|| scaling::run(&scaling)),
        ("resume", &|| resume::run(&resume)),
        ("pack", &|| pack::run(&pack)),
        ("memory", &|| memory::run(&memory)),
    ];
    for (name, part) in parts {
        eprintln!("== {name}");
        match part() {
            Ok(report) => publish(report)?,
            Err(failure) if interrupted() => return Err(failure),
            Err(failure) => {
                eprintln!("benches: {name}: {failure}");
                publish(Report::not_measured(name, &failure))?;
            }
        }
        if interrupted() {
            break;
        }
    }
    Ok(())
}

fn memory(options: &All) -> Result<memory::Memory> {
    let largest = options.scale.size_or(8 * GIB);
    let mut sizes = vec![GIB.min(largest), largest];
    sizes.dedup();
    let sparse = ["1GiB", "8GiB", "1TiB"].map(parse_size).into_iter().collect::<std::result::Result<Vec<_>, _>>();
    let sparse = sparse.map_err(crate::failure::Failure::new)?;
    let options = options.options.clone();
    Ok(memory::Memory { sizes, sparse, rounds: 3, budget: write::verdict::MOST_MEMORY, options })
}
