//! What each part of the way costs alone, measured with tools that are not ours, in the same rounds as the ways.

mod alone;
mod formula;
mod frames;

use std::path::PathBuf;

use serde::Serialize;

pub use alone::{Direction, decode, fio, sha256};
pub use formula::{Costs, Limit};
pub use frames::Frames;

use crate::failure::Result;
use crate::lab::{Lab, total_length};
use crate::machine;
use crate::measure::{Job, command};
use crate::report::{Report, Table};
use crate::server::Server;
use crate::stats::Spread;
use crate::subject::Subject;
use crate::target::Target;
use crate::units::rate;

/// Frames that `zstd -b` decodes: 256 MiB of raw data, more than any cache holds.
pub const SAMPLE: usize = 128;

/// What there is to measure with.
pub struct Material {
    /// Bytes of the raw image.
    pub size: u64,
    /// Bytes of it that come from frames with data: what is decoded, and what has to reach the device.
    pub data: u64,
    /// Bytes of the data blobs.
    pub compressed: u64,
    frames: Vec<PathBuf>,
    urls: Vec<String>,
}

impl Material {
    /// The material of the subject's image, which `server` serves.
    pub fn of(lab: &Lab, server: &Server, subject: &Subject) -> Result<Self> {
        let image = lab.image_of(subject)?;
        let blobs = lab.data_blobs(&lab.cache.join(&image))?;
        let frames = Frames::of(&blobs)?;
        let name = |blob: &PathBuf| Some(format!("{image}/blobs/sha256/{}", blob.file_name()?.to_string_lossy()));
        Ok(Self {
            size: subject.size,
            data: frames.raw_bytes(),
            compressed: total_length(&blobs),
            frames: frames.sample(&lab.scratch().join("frames"), SAMPLE)?,
            urls: blobs.iter().filter_map(name).map(|name| server.url(&name)).collect(),
        })
    }
}

/// What one round of measuring every part alone gave.
#[derive(Clone, Copy, Serialize)]
pub struct Round {
    costs: Costs,
    /// Bytes per second of one decoder.
    decode_rate: f64,
    /// Bytes per second of one core's SHA-256.
    hash_rate: f64,
}

impl Round {
    /// What the parts cost in this round.
    pub fn costs(&self) -> &Costs {
        &self.costs
    }
}

/// Measures every part once.
pub fn measure(lab: &Lab, server: &Server, material: &Material) -> Result<Round> {
    let one = decode(lab, &material.frames, 1)?;
    let all = decode(lab, &material.frames, machine::cores())?;
    let hash_rate = sha256(lab, 1)?;
    let mut argv = command(&["curl", "-sf"]);
    argv.extend(material.urls.iter().cloned());
    let before = server.cpu();
    let received = lab.run_quietly(&Job::one(argv))?.usage;
    let served = server.cpu() - before;
    let target = Target::preallocated(lab.scratch(), material.size)?;
    let (device_write, write) = fio(lab, target.path(), material.data, Direction::Write)?;
    let (device_read, read) = fio(lab, target.path(), material.size, Direction::Read)?;
    let costs = Costs {
        decode: material.data as f64 / one,
        hash: material.compressed as f64 / hash_rate,
        receive: received.cpu(),
        server: served,
        write,
        read,
        hash_raw: material.size as f64 / hash_rate,
        speedup: (all / one).min(machine::cores() as f64),
        device_write,
        device_read,
        source: received.wall,
    };
    Ok(Round { costs, decode_rate: one, hash_rate })
}

/// The median of every part over the rounds; `None` of no rounds.
pub fn medians(rounds: &[Round]) -> Option<Costs> {
    let median = |of: fn(&Costs) -> f64| Spread::of(rounds.iter().map(|r| of(&r.costs))).map(|s| s.median);
    Some(Costs {
        decode: median(|c| c.decode)?,
        hash: median(|c| c.hash)?,
        receive: median(|c| c.receive)?,
        server: median(|c| c.server)?,
        write: median(|c| c.write)?,
        read: median(|c| c.read)?,
        hash_raw: median(|c| c.hash_raw)?,
        speedup: median(|c| c.speedup)?,
        device_write: median(|c| c.device_write)?,
        device_read: median(|c| c.device_read)?,
        source: median(|c| c.source)?,
    })
}

/// Adds the table of the parts, and the two limits, to the report.
pub fn tabulate(report: &mut Report, material: &Material, rounds: &[Round]) -> Result<()> {
    let Some(costs) = medians(rounds) else {
        return Ok(());
    };
    let spread = |of: fn(&Round) -> f64| Spread::of(rounds.iter().map(of));
    let mut table = Table::new("Each part alone, median (min–max)", &["part", "seconds", "MiB/s", "CPU s"]);
    let mut row = |name: &str, seconds: fn(&Round) -> f64, bytes: u64, cpu: f64| {
        if let Some(seconds) = spread(seconds) {
            table.row([name.into(), seconds.show(), rate(bytes, seconds.median), format!("{cpu:.2}")]);
        }
    };
    let (size, data, compressed) = (material.size, material.data, material.compressed);
    row("decode: zstd -b -d of our frames, one each", |r| r.costs.decode, data, costs.decode);
    row("SHA-256 of the compressed bytes: openssl speed", |r| r.costs.hash, compressed, costs.hash);
    row("receive: curl to /dev/null", |r| r.costs.source, compressed, costs.receive);
    row("nginx meanwhile", |r| r.costs.source, compressed, costs.server);
    row("device write, data only: fio io_uring 16 × 1 MiB", |r| r.costs.device_write, data, costs.write);
    row("device read, all of it: fio io_uring 16 × 1 MiB", |r| r.costs.device_read, size, costs.read);
    row("SHA-256 of the raw image: openssl speed", |r| r.costs.hash_raw, size, costs.hash_raw);
    report.tables.push(table);
    if let Some(gain) = spread(|r| r.costs.speedup) {
        report.notes.push(format!("{} decoders at once do {} × the work of one", machine::cores(), gain.show()));
    }
    for (name, limit) in [("without read-back", costs.limit()), ("with read-back", costs.limit_read_back())] {
        report.notes.push(format!(
            "limit {name}: {:.2} s, set by {}; {:.2} CPU seconds, nginx's included",
            limit.seconds, limit.by, limit.cpu_seconds
        ));
    }
    report.keep("limits", rounds)?;
    report.keep("limit", costs.limit())?;
    report.keep("limit_read_back", costs.limit_read_back())
}
