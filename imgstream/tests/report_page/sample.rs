//! Made-up findings: nothing here was measured anywhere.

use imgstream::bench::findings::{
    FORMAT, Findings, Machine, Moment, Part, Peers, Point, Setting, Settings, Sink, Spread, StageAlone, Subject, Sweep,
    Way, Whole,
};
use imgstream::bench::verdict::Verdict;

const MIB: f64 = 1048576.0;
const GIB: f64 = 1024.0 * MIB;

/// Text as a device, a command or a server would have to be named to do harm.
pub const HOSTILE: &str = "\"><script>document.title='owned'</script><img src=x onerror=alert(1)> & 'q' \
                           </style></svg> äöü 日本語 \u{202e}gnp\u{0}";

/// A spread of five samples, some per cent around the median.
fn spread(median: f64, low: f64, high: f64) -> Spread {
    Spread { median, min: median * (1.0 - low / 100.0), max: median * (1.0 + high / 100.0), samples: 5 }
}

/// Everything was measured, and something failed.
pub fn full() -> Findings {
    Findings {
        format: FORMAT,
        made: "2025-06-03T14:12:07Z".into(),
        command: "imgstream bench --source http://images.example/debian/ --sink /dev/nvme1n1 --trust maker.pub \
                  --peers peers.json --report report"
            .into(),
        machine: machine(),
        subject: Subject {
            source: "http://images.example/debian/".into(),
            raw_bytes: 8 << 30,
            data_bytes: 7_623_147_520,
            compressed_bytes: 2_143_289_344,
            chunk_size: 2 << 20,
            level: Some(9),
        },
        sink: Sink { name: "/dev/nvme1n1, Samsung SSD 980 PRO 1TB".into(), is_real: true },
        settings: Settings {
            engine: "uring".into(),
            depth: 16,
            largest_write: None,
            chunk_size: 2 << 20,
            request_size: 16 << 20,
            connections: 4,
            workers: 2,
            read_back: true,
        },
        stages: stages(),
        whole: Some(whole()),
        routing: None,
        sweeps: sweeps(),
        verdict: Some(Verdict {
            limited_by: "write".into(),
            limit_rate: 1.47 * GIB,
            reached: 0.952,
            sentences: vec![
                "The device limits: it takes 1.47 GiB/s of the raw image, and the whole reaches 95 % of that.".into(),
                "A device twice as fast would be limited by the two cores, at 2.4 GiB/s.".into(),
                "No other setting is faster than the spread between runs.".into(),
            ],
        }),
        peers: Some(peers()),
        interrupted: false,
    }
}

fn machine() -> Machine {
    let version = |name: &str, version: &str| (name.to_owned(), version.to_owned());
    Machine {
        processor: "AMD EPYC 7763 64-Core Processor".into(),
        architecture: "x86_64".into(),
        cores: 2,
        memory: 24_900_000_000,
        kernel: "6.1.0-28-amd64".into(),
        versions: vec![
            version("imgstream", "0.1.0"),
            version("zstd", "1.5.7"),
            version("io_uring", "kernel 6.1"),
            version("curl", "7.88.1"),
            version("qemu-img", "7.2.15"),
            version("casync", "2+20201210"),
        ],
    }
}

fn stages() -> Vec<StageAlone> {
    let stage =
        |part, threads, gib, cpu_per_gib| StageAlone { part, threads, rate: spread(gib * GIB, 3.0, 2.0), cpu_per_gib };
    vec![
        stage(Part::Source, 1, 12.1, 0.06),
        stage(Part::Hash, 2, 9.03, 0.22),
        stage(Part::Decode, 2, 2.41, 0.83),
        stage(Part::Write, 1, 1.47, 0.04),
        stage(Part::Read, 1, 2.62, 0.05),
        stage(Part::RawHash, 2, 3.4, 0.59),
    ]
}

fn whole() -> Whole {
    let timeline = (1..=58).map(|i| {
        let at = f64::from(i) * 0.1;
        let wave = (at * 2.1).sin() * 0.5 + (at * 7.3).sin() * 0.3;
        let written = if i < 4 { 0.35 * f64::from(i) } else { 1.42 + 0.06 * wave };
        let decoded = if i < 4 { 0.5 * f64::from(i) } else { 1.44 + 0.1 * (at * 5.0).cos() };
        Moment {
            seconds: at,
            source_wait: if i < 4 { 0.6 / f64::from(i) } else { 0.03 + 0.02 * wave.abs() },
            decode_busy: if i < 4 { 0.3 } else { 0.46 + 0.05 * wave },
            write_wait: if i < 4 { 0.02 * f64::from(i) } else { 0.45 - 0.06 * wave },
            fetched: decoded * 0.28 * GIB,
            decoded: decoded * GIB,
            written: written * GIB,
            read_back: if i < 10 { 0.0 } else { (1.3 + 0.08 * (at * 3.0).sin()) * GIB },
        }
    });
    Whole {
        rate: spread(1.4 * GIB, 3.1, 1.8),
        cpu_seconds: spread(11.3, 1.0, 2.0),
        peak_rss: 91 << 20,
        first_write_seconds: Some(0.0412),
        timeline: timeline.collect(),
    }
}

fn sweeps() -> Vec<Sweep> {
    let point = |value: &str, number: Option<u64>, gib: f64| Point {
        value: value.into(),
        number,
        rate: spread(gib * GIB, 4.0, 3.0),
        cpu_per_gib: 1.4,
        failed: None,
    };
    let count = |setting, values: &[(u64, f64)]| Sweep {
        setting,
        points: values.iter().map(|(n, gib)| point(&n.to_string(), Some(*n), *gib)).collect(),
    };
    let sizes = |setting, values: &[(&str, u64, f64)]| Sweep {
        setting,
        points: values.iter().map(|(name, bytes, gib)| point(name, Some(*bytes), *gib)).collect(),
    };
    let mut engines = vec![point("uring", None, 1.4), point("direct", None, 1.31), point("buffered", None, 0.0)];
    engines[2].rate = Spread { median: 0.0, min: 0.0, max: 0.0, samples: 0 };
    engines[2].failed = Some("buffered writes need a file, and /dev/nvme1n1 is a device".into());
    let (kib, mib) = (1 << 10, 1 << 20);
    vec![
        Sweep { setting: Setting::Engine, points: engines },
        count(Setting::Depth, &[(1, 0.71), (2, 1.08), (4, 1.31), (8, 1.39), (16, 1.4), (32, 1.41), (64, 1.4)]),
        sizes(
            Setting::ChunkSize,
            &[
                ("512KiB", 512 * kib, 1.19),
                ("1MiB", mib, 1.33),
                ("2MiB", 2 * mib, 1.4),
                ("4MiB", 4 * mib, 1.41),
                ("8MiB", 8 * mib, 1.36),
            ],
        ),
        sizes(
            Setting::RequestSize,
            &[("1MiB", mib, 0.92), ("4MiB", 4 * mib, 1.32), ("16MiB", 16 * mib, 1.4), ("64MiB", 64 * mib, 1.37)],
        ),
        count(Setting::Connections, &[(1, 1.02), (2, 1.36), (4, 1.4), (8, 1.52), (16, 1.39)]),
        count(Setting::Workers, &[(1, 0.98), (2, 1.4), (3, 1.37), (4, 1.33)]),
    ]
}

fn peers() -> Peers {
    let way = |name: &str, verifies: &str, seconds: f64, cpu: f64, mib: u64| Way {
        name: name.into(),
        ours: false,
        verifies: verifies.into(),
        seconds: Some(spread(seconds, 3.0, 5.0)),
        cpu_seconds: Some(spread(cpu, 1.0, 1.0)),
        peak_rss: Some(mib << 20),
        ratio_to_ours: Some(spread(seconds / 6.0, 3.0, 4.0)),
        command: format!("{name} … http://images.example/debian/ /dev/nvme1n1"),
        note: String::new(),
    };
    let mut ours = way("imgstream write", "digest+signature", 6.0, 11.3, 91);
    (ours.ours, ours.ratio_to_ours) = (true, None);
    let mut casync = way("casync", "digest", 40.0, 60.0, 300);
    (casync.seconds, casync.cpu_seconds, casync.peak_rss, casync.ratio_to_ours) = (None, None, None, None);
    casync.note = "casync extract: Failed to seed: Operation not supported (exit code 1).".into();
    let mut qemu = way("qemu-img convert", "nothing", 7.4, 14.9, 142);
    qemu.note = "Reads qcow2 with zstd clusters; verifies nothing, not even a checksum.".into();
    Peers {
        format: 1,
        command: "cargo xtask bench peers --device /dev/nvme1n1 --rounds 5".into(),
        subject: "Debian 12, 8 GiB raw, from a local nginx to /dev/nvme1n1, flushed".into(),
        raw_bytes: 8 << 30,
        rounds: 5,
        limit_seconds: Some(5.45),
        limit_by: Some("the device’s writes".into()),
        ways: vec![
            ours,
            way("curl | zstd | dd", "nothing", 11.1, 12.4, 9),
            qemu,
            way("bita clone", "digest", 16.0, 24.1, 388),
            way("coreos-installer", "signature", 14.0, 13.7, 36),
            casync,
        ],
    }
}

/// Only what must be there.
pub fn minimal() -> Findings {
    let mut findings = full();
    findings.stages.clear();
    findings.sweeps.clear();
    findings.machine.versions.clear();
    findings.sink = Sink { name: "null".into(), is_real: false };
    (findings.whole, findings.verdict, findings.peers, findings.subject.level) = (None, None, None, None);
    findings
}

/// Stopped in the middle.
pub fn interrupted() -> Findings {
    let mut findings = full();
    findings.interrupted = true;
    findings.sweeps.truncate(1);
    findings.peers = None;
    findings.verdict = None;
    if let Some(whole) = &mut findings.whole {
        whole.timeline.truncate(1);
        whole.rate = Spread { median: 1.4 * GIB, min: 1.4 * GIB, max: 1.4 * GIB, samples: 1 };
        whole.first_write_seconds = None;
    }
    findings
}

/// Every text from outside is [`HOSTILE`], and long ones are long.
pub fn hostile() -> Findings {
    let mut findings = full();
    let bad = || HOSTILE.to_owned();
    (findings.made, findings.command) = (bad(), HOSTILE.repeat(10));
    (findings.machine.processor, findings.machine.kernel, findings.machine.architecture) = (bad(), bad(), bad());
    findings.machine.versions = vec![(bad(), bad()), (String::new(), String::new())];
    (findings.subject.source, findings.sink.name, findings.settings.engine) = (bad(), HOSTILE.repeat(4), bad());
    if let Some(verdict) = &mut findings.verdict {
        (verdict.limited_by, verdict.sentences) = (bad(), vec![bad(), bad()]);
    }
    for point in findings.sweeps.iter_mut().flat_map(|sweep| &mut sweep.points) {
        point.value = bad();
        point.failed = point.failed.as_ref().map(|_| HOSTILE.repeat(3));
    }
    if let Some(peers) = &mut findings.peers {
        (peers.command, peers.subject, peers.limit_by) = (bad(), bad(), Some(bad()));
        for way in &mut peers.ways {
            (way.name, way.verifies, way.command, way.note) = (bad(), bad(), HOSTILE.repeat(5), HOSTILE.repeat(3));
        }
    }
    findings
}

/// Numbers that are none, or too large, or zero.
pub fn strange(number: f64) -> Findings {
    let mut findings = full();
    let strange = Spread { median: number, min: number, max: number, samples: 0 };
    for stage in &mut findings.stages {
        (stage.rate, stage.cpu_per_gib, stage.threads) = (strange, number, 0);
    }
    (findings.subject.raw_bytes, findings.subject.data_bytes, findings.subject.compressed_bytes) = (0, u64::MAX, 0);
    if let Some(whole) = &mut findings.whole {
        (whole.rate, whole.cpu_seconds, whole.first_write_seconds) = (strange, strange, Some(number));
        whole.peak_rss = u64::MAX;
        for moment in &mut whole.timeline {
            (moment.fetched, moment.decoded, moment.written, moment.read_back) = (number, number, number, number);
            (moment.source_wait, moment.decode_busy, moment.write_wait) = (number, number, number);
        }
        if let Some(moment) = whole.timeline.first_mut() {
            moment.seconds = number;
        }
    }
    for point in findings.sweeps.iter_mut().flat_map(|sweep| &mut sweep.points) {
        (point.rate, point.cpu_per_gib, point.number) = (strange, number, Some(u64::MAX));
    }
    if let Some(verdict) = &mut findings.verdict {
        (verdict.limit_rate, verdict.reached) = (number, number);
    }
    if let Some(peers) = &mut findings.peers {
        peers.limit_seconds = Some(number);
        for way in &mut peers.ways {
            (way.seconds, way.cpu_seconds, way.ratio_to_ours) = (Some(strange), Some(strange), Some(strange));
        }
    }
    findings
}
