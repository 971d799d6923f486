//! Made-up findings, one for each limit.

use super::*;
use crate::bench::findings::{Machine, Moment, Settings, Sink, Spread, Subject};

const MIB: f64 = 1048576.0;

fn spread(rate: f64) -> Spread {
    Spread { median: rate * MIB, min: rate * 0.98 * MIB, max: rate * 1.02 * MIB, samples: 3 }
}

/// Rates in MiB/s, costs in CPU seconds per GiB.
fn stage(part: Part, threads: usize, rate: f64, cpu_per_gib: f64) -> StageAlone {
    StageAlone { part, threads, rate: spread(rate), cpu_per_gib }
}

fn whole(rate: f64, [source_wait, decode_busy, write_wait]: [f64; 3]) -> Whole {
    let moment = |seconds| Moment {
        seconds,
        source_wait,
        decode_busy,
        write_wait,
        fetched: 0.0,
        decoded: 0.0,
        written: 0.0,
        read_back: 0.0,
    };
    Whole {
        rate: spread(rate),
        cpu_seconds: Spread { median: 1.0, min: 1.0, max: 1.0, samples: 3 },
        peak_rss: 1 << 26,
        first_write_seconds: None,
        timeline: vec![moment(0.5), moment(1.0)],
    }
}

/// Two cores; hashing takes 2 and decoding 4 CPU seconds per GiB: 1024 and 512 MiB/s on both, 341 MiB/s together.
fn findings(source: f64, write: Option<f64>, whole: Whole) -> Findings {
    let mut stages = vec![
        stage(Part::Source, 1, source, 0.0),
        stage(Part::Hash, 2, 1024.0, 2.0),
        stage(Part::Decode, 1, 270.0, 3.8),
        stage(Part::Decode, 2, 512.0, 4.0),
    ];
    stages.extend(write.map(|rate| stage(Part::Write, 1, rate, 0.0)));
    Findings {
        format: super::super::findings::FORMAT,
        made: "2026-01-01T00:00:00Z".into(),
        command: "imgstream bench".into(),
        machine: Machine {
            processor: "z".into(),
            architecture: "s390x".into(),
            cores: 2,
            memory: 1 << 30,
            kernel: "6.1".into(),
            versions: Vec::new(),
        },
        subject: Subject {
            source: "synthetic".into(),
            raw_bytes: 1 << 30,
            data_bytes: 1 << 30,
            compressed_bytes: 1 << 28,
            chunk_size: 2 << 20,
            level: Some(3),
        },
        sink: Sink { name: "x".into(), is_real: write.is_some() },
        settings: Settings {
            engine: "uring".into(),
            depth: 16,
            largest_write: None,
            chunk_size: 2 << 20,
            request_size: 16 << 20,
            connections: 4,
            workers: 2,
            read_back: false,
        },
        stages,
        whole: Some(whole),
        sweeps: Vec::new(),
        routing: None,
        verdict: None,
        peers: None,
        interrupted: false,
    }
}

#[track_caller]
fn says(verdict: &Verdict, words: &str) {
    assert!(verdict.sentences.iter().any(|sentence| sentence.contains(words)), "{words:?} is not in {verdict:#?}");
}

#[test]
fn a_slow_source_limits() {
    let verdict = judge(&findings(100.0, Some(700.0), whole(98.0, [0.7, 0.3, 0.0]))).unwrap();
    assert_eq!(verdict.limited_by, "source");
    assert!(verdict.sentences[0].starts_with("limited by the source: 100 MiB/s"), "{verdict:?}");
    says(&verdict, "the device could take 7.0 × more");
    says(&verdict, "hashing and decoding could do 3.4 × more");
    says(&verdict, "the whole reaches 98 % of that");
}

#[test]
fn slow_writes_limit() {
    let verdict = judge(&findings(1000.0, Some(200.0), whole(190.0, [0.0, 0.5, 0.5]))).unwrap();
    assert_eq!(verdict.limited_by, "write");
    assert!(verdict.sentences[0].starts_with("limited by the device's writes: 200 MiB/s"), "{verdict:?}");
    says(&verdict, "the source could deliver 5.0 × more");
}

#[test]
fn the_processors_limit() {
    let verdict = judge(&findings(1000.0, Some(717.0), whole(330.0, [0.0, 1.0, 0.0]))).unwrap();
    assert_eq!(verdict.limited_by, "cpu");
    assert!((verdict.limit_rate / MIB - 341.3).abs() < 1.0, "{verdict:?}");
    says(&verdict, "limited by decoding and SHA-256 on 2 cores: 341.3 MiB/s of the raw image");
    says(&verdict, "decoding is 67 % of the CPU time, SHA-256 33 %");
    says(&verdict, "the device could take 2.1 × more");
    says(&verdict, "decoding on 2 threads is 1.9 × as fast as on one");
}

#[test]
fn one_stage_that_takes_most_of_the_cpu_is_named_alone() {
    let mut findings = findings(10_000.0, Some(700.0), whole(120.0, [0.0, 1.0, 0.0]));
    findings.stages[1] = stage(Part::Hash, 2, 146.0, 14.0);
    let verdict = judge(&findings).unwrap();
    says(&verdict, "limited by SHA-256 on 2 cores: ");
    says(&verdict, "SHA-256 is 78 % of the CPU time, decoding 22 %");
}

#[test]
fn what_receiving_and_writing_cost_leaves_less_for_the_workers() {
    let mut findings = findings(1000.0, Some(1000.0), whole(170.0, [0.0, 1.0, 0.0]));
    findings.stages[0].cpu_per_gib = 4.0;
    findings.stages[4].cpu_per_gib = 2.0;
    let verdict = judge(&findings).unwrap();
    assert!((verdict.limit_rate / MIB - 1024.0 / 6.0).abs() < 1.0, "{verdict:?}");
    assert_eq!(verdict.limited_by, "cpu");
}

#[test]
fn a_quota_on_the_processors_is_seen() {
    // Half a core is all they get: the costs stay, the rates fall.
    let mut findings = findings(1000.0, None, whole(84.0, [0.0, 1.0, 0.0]));
    findings.stages[0].cpu_per_gib = 0.1;
    findings.stages[1].rate = spread(256.0);
    findings.stages[3].rate = spread(128.0);
    let verdict = judge(&findings).unwrap();
    assert_eq!(verdict.limited_by, "cpu");
    says(&verdict, "decoding got 0.5 of 2 cores");
    assert!((80.0..86.0).contains(&(verdict.limit_rate / MIB)), "{verdict:?}");
    // The whole ran when nobody else did: 1 GiB in 5 seconds, with 7.5 of CPU.
    let mut unhindered = whole(204.8, [0.0, 1.0, 0.0]);
    unhindered.cpu_seconds = Spread { median: 7.5, min: 7.5, max: 7.5, samples: 3 };
    findings.whole = Some(unhindered);
    says(&judge(&findings).unwrap(), " of that: it got 1.5 cores, and decoding alone 0.5");
}

/// The same, read back: reading costs 0.5 CPU seconds per GiB, hashing what was read 3.5, ten of all together.
fn read_back(read: f64, write: f64, whole: Whole) -> Findings {
    let mut findings = findings(1000.0, Some(write), whole);
    findings.settings.read_back = true;
    findings.stages.push(stage(Part::Read, 1, read, 0.5));
    findings.stages.push(stage(Part::RawHash, 2, 585.0, 3.5));
    findings
}

#[test]
fn a_device_that_is_read_back_does_one_thing_after_the_other() {
    let verdict = judge(&read_back(150.0, 300.0, whole(98.0, [0.0, 0.4, 0.5]))).unwrap();
    assert_eq!(verdict.limited_by, "read-back");
    assert!((verdict.limit_rate / MIB - 100.0).abs() < 0.1, "{verdict:?}");
    let first = "limited by reading back from the device (67 % of its time; writing takes 33 %): 100 MiB/s";
    assert!(verdict.sentences[0].starts_with(first), "{verdict:?}");
    says(&verdict, "the source could deliver 10 × more; hashing and decoding could do 2.0 × more");
    says(&verdict, "the whole reaches 98 % of that");
    let verdict = judge(&read_back(300.0, 150.0, whole(98.0, [0.0, 0.4, 0.5]))).unwrap();
    assert_eq!(verdict.limited_by, "write");
    says(&verdict, "limited by the device's writes (67 % of its time; reading back takes 33 %): 100 MiB/s");
}

#[test]
fn what_reading_back_costs_leaves_less_for_the_workers() {
    let verdict = judge(&read_back(500.0, 600.0, whole(200.0, [0.0, 1.0, 0.0]))).unwrap();
    assert_eq!(verdict.limited_by, "cpu");
    assert!((verdict.limit_rate / MIB - 204.8).abs() < 0.1, "{verdict:?}");
    says(&verdict, "limited by decoding and SHA-256 of what is read back on 2 cores: ");
    says(
        &verdict,
        "decoding is 40 % of the CPU time, SHA-256 of what is read back 35 %, SHA-256 of what arrives 20 %, reading back 5 %",
    );
    says(&verdict, "the device could take 1.3 × more");
}

#[test]
fn what_is_read_back_at_the_end_is_told_when_the_limit_is_missed() {
    let verdict = judge(&read_back(150.0, 300.0, whole(60.0, [0.0, 0.2, 0.3]))).unwrap();
    assert_eq!(verdict.limited_by, "read-back");
    says(&verdict, "had nothing to do for 50 %: at the start, the flushes, the last of reading back, the commit");
}

#[test]
fn too_few_workers_are_told_from_too_slow_processors() {
    let mut findings = findings(1000.0, Some(700.0), whole(165.0, [0.0, 1.0, 0.0]));
    findings.settings.workers = 1;
    findings.stages[1] = stage(Part::Hash, 1, 512.0, 2.0);
    findings.stages[3] = stage(Part::Decode, 1, 256.0, 4.0);
    findings.stages.remove(2);
    let verdict = judge(&findings).unwrap();
    assert_eq!(verdict.limited_by, "cpu");
    says(&verdict, "limited by hashing and decoding on 1 core: 170.7 MiB/s");
    says(&verdict, "one worker uses one of 2 cores: more --workers do more");
}

#[test]
fn the_first_sentence_is_short_enough_for_a_headline() {
    let slow = || whole(1.0, [0.0, 0.0, 1.0]);
    let all = [
        findings(1.0, Some(700.0), slow()),
        findings(1000.0, Some(200.0), slow()),
        findings(1000.0, None, slow()),
        read_back(150.0, 300.0, slow()),
        read_back(300.0, 150.0, slow()),
        read_back(5000.0, 6000.0, slow()),
    ];
    for findings in all {
        let first = judge(&findings).unwrap().sentences.remove(0);
        assert!(first.chars().count() <= 120, "{first}");
    }
}

#[test]
fn what_no_stage_explains_is_latency() {
    let verdict = judge(&findings(1000.0, Some(700.0), whole(150.0, [0.6, 0.4, 0.0]))).unwrap();
    assert_eq!(verdict.limited_by, "latency");
    says(&verdict, "reaches only 44 % of that: of its time, the workers waited 60 % for the source");
    says(&verdict, "--connections");
}

#[test]
fn a_whole_that_is_slow_because_of_what_limits_stays_with_it() {
    let verdict = judge(&findings(100.0, Some(700.0), whole(50.0, [0.9, 0.1, 0.0]))).unwrap();
    assert_eq!(verdict.limited_by, "source");
    says(&verdict, "reaches only 50 %");
}

#[test]
fn a_faster_value_is_recommended_only_beyond_the_spread() {
    let mut findings = findings(1000.0, Some(700.0), whole(300.0, [0.0, 1.0, 0.0]));
    let point = |value: &str, rate: f64| Point {
        value: value.into(),
        number: value.parse().ok(),
        rate: spread(rate),
        cpu_per_gib: 1.0,
        failed: None,
    };
    let broken = Point { failed: Some("no".into()), ..point("64", 9000.0) };
    findings.sweeps = vec![
        Sweep { setting: Setting::Depth, points: vec![point("16", 300.0), point("32", 360.0), broken] },
        Sweep { setting: Setting::Connections, points: vec![point("4", 301.0), point("8", 310.0)] },
    ];
    findings.sweeps.extend([
        Sweep { setting: Setting::Workers, points: vec![point("1", 200.0), point("2", 360.0), point("4", 370.0)] },
        Sweep { setting: Setting::ChunkSize, points: vec![point("2MiB", 390.0), point("4MiB", 400.0)] },
    ]);
    let verdict = judge(&findings).unwrap();
    says(&verdict, "--depth 32 is 1.2 × as fast as 16: use it");
    says(&verdict, "no other value is faster for connections, workers, chunk-size");
}

#[test]
fn half_measured_is_not_judged() {
    let mut findings = findings(1000.0, Some(700.0), whole(300.0, [0.0, 1.0, 0.0]));
    findings.stages.pop();
    assert_eq!(judge(&findings), None);
    findings.sink.is_real = false;
    assert!(judge(&findings).is_some());
    findings.whole = None;
    says(&judge(&findings).unwrap(), "the whole was not measured");
    for missing in 4..7 {
        let mut findings = read_back(150.0, 300.0, whole(100.0, [0.0, 1.0, 0.0]));
        findings.stages.remove(missing);
        assert_eq!(judge(&findings), None, "stage {missing} is missing");
    }
}
