//! Power cuts: of a device in place of a flush, and of the whole machine at any moment.

use super::media::raw_at;
use super::*;

/// Flushes that have something to keep, where the proof comes last: before it, of the last chunk, of the first one, whose parts
/// have one each.
const KEEPING: usize = 5;

fn keeping(layout: Layout, number: usize) -> usize {
    match layout {
        Layout::Single => number % 3,
        Layout::Split => [0, 1, 2, 5, 6][number],
    }
}

/// Behaves at flush number `.0`.
struct AtFlush(usize, FlushFault);

impl Script for AtFlush {
    fn write(&mut self, _: usize, _: &Write) -> Fault {
        Fault::None
    }

    fn flush(&mut self, number: usize) -> FlushFault {
        if number == self.0 { self.1 } else { FlushFault::None }
    }
}

#[test]
fn a_flush_that_fails_is_an_error() {
    for number in 0..KEEPING {
        let fault = |layout| AtFlush(keeping(layout, number), FlushFault::Fails);
        each_engine_with(&proven_last(), fault, fails(Kind::Device, &["flushing"]));
        // While the proof follows, there are these and some more.
        each_engine_with(&WriteOptions::default(), fault, fails(Kind::Device, &["flushing"]));
    }
    for layout in LAYOUTS {
        let media = Media::new(layout);
        let bench = Bench::new(AtFlush(layout.flushes(), FlushFault::Fails));
        block_on(media.write(&bench, EngineKind::Direct, &proven_last())).unwrap();
        assert_eq!(bench.counts().1, layout.flushes(), "flushes of a run");
    }
}

#[test]
fn a_power_cut_instead_of_a_flush_is_found() {
    for number in 0..KEEPING {
        let fault = |layout| AtFlush(keeping(layout, number), FlushFault::PowerCut);
        each_engine_with(&proven_last(), fault, fails(Kind::Proof, &["read back wrong"]));
    }
}

/// A flush that loses what it should have kept, while other chunks are on their way: found, unless there was nothing to lose.
#[test]
fn a_power_cut_while_the_proof_follows_is_found() {
    for number in 0..8 {
        each_engine(
            || AtFlush(number, FlushFault::PowerCut),
            |media, outcome| match outcome {
                Ok(_) => media.holds_the_image(),
                error => fails(Kind::Proof, &["read back wrong"])(media, error),
            },
        );
    }
}

/// A power cut of the whole machine, at every moment of a run: what was flushed is on the media, of what came later any part
/// may be, down to single sectors. If then anything of the first chunk's first part is there, everything else is.
#[test]
fn after_a_power_cut_at_any_moment_the_target_is_whole_or_does_not_boot() {
    for layout in LAYOUTS {
        let media = Media::new(layout);
        let bench = Bench::new(|_: usize, _: &Write| Fault::None);
        block_on(media.write(&bench, EngineKind::Direct, &WriteOptions::default())).unwrap();
        let (log, first) = (bench.log(), layout.last_part());
        assert_eq!(log.iter().filter(|logged| matches!(logged, Logged::Write { .. })).count(), layout.writes());
        let mut dice = noise(3, 1 << 20).into_iter().cycle();
        let (mut with_first, mut without) = (0, 0);
        for cut in 0..=log.len() {
            for _ in 0..40 {
                let now = after_a_cut(&media.old, &log[..cut], &mut dice);
                let rest_is_right = now[first..] == sample().raw[first..];
                let starts = now[..first].iter().any(|byte| *byte != 0);
                assert!(!starts || rest_is_right, "{layout:?}: cut after {cut} of {} steps", log.len());
                with_first += u32::from(starts);
                without += u32::from(!starts);
            }
        }
        assert!(with_first > 20 && without > 200, "{with_first} and {without}: that tests nothing");
    }
}

/// What the media hold when the power fails after these steps.
fn after_a_cut(old: &[u8], log: &[Logged], dice: &mut impl Iterator<Item = u8>) -> Vec<u8> {
    let mut now = old.to_vec();
    // Where a run starts from: both ends zeroed and flushed, before the first write of the engine.
    now[..CHUNK].fill(0);
    now[(CHUNKS - 1) * CHUNK..].fill(0);
    let flushed =
        |of: usize| log.iter().rposition(|logged| matches!(logged, Logged::Flush { device } if *device == of));
    let durable = [0, 1].map(|device| flushed(device).unwrap_or(0));
    for (step, logged) in log.iter().enumerate() {
        let Logged::Write { device, offset, bytes, .. } = logged else { continue };
        let odds = dice.next().unwrap();
        for (number, sector) in bytes.chunks(512).enumerate() {
            let at = raw_at(*device, *offset) as usize + number * 512;
            if at < now.len() && (step < durable[*device] || dice.next().unwrap() <= odds) {
                now[at..at + 512].copy_from_slice(sector);
            }
        }
    }
    now
}
