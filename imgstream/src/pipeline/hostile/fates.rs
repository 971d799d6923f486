//! Any schedule of faults, of writes and of flushes.

use proptest::prelude::*;

use super::*;

fn any_fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        4 => Just(Fault::None),
        1 => proptest::sample::select(vec![libc::EIO, libc::ENOSPC, libc::ENXIO]).prop_map(Fault::Errno),
        3 => proptest::sample::select(vec![libc::EINTR, libc::EAGAIN]).prop_map(Fault::Errno),
        4 => (0..=CHUNK).prop_map(Fault::Short),
        1 => Just(Fault::Dropped),
        1 => (0..SIZE / 4096 - CHUNK / 4096).prop_map(|block| Fault::Misplaced(block as u64 * 4096)),
        1 => Just(Fault::Foreign),
        4 => Just(Fault::Late),
        1 => Just(Fault::Lost),
    ]
}

/// What the first writes and flushes meet; what comes later meets nothing.
#[derive(Debug, Clone)]
struct Fate {
    writes: Vec<Fault>,
    flushes: Vec<FlushFault>,
}

impl Script for Fate {
    fn write(&mut self, number: usize, write: &Write) -> Fault {
        match self.writes.get(number) {
            // A stray write after the proof of where it lands is beyond what a proof chunk by chunk can find.
            Some(Fault::Misplaced(_)) if is_committed(write) => Fault::Dropped,
            // Where it should have gone anyway is no fault.
            Some(Fault::Misplaced(at)) if *at == write.offset => Fault::None,
            fate => fate.copied().unwrap_or(Fault::None),
        }
    }

    fn flush(&mut self, number: usize) -> FlushFault {
        self.flushes.get(number).copied().unwrap_or(FlushFault::None)
    }
}

fn is_committed(write: &Write) -> bool {
    [0, CHUNKS - 1].contains(&(raw_offset(write) as usize / CHUNK))
}

fn any_fate() -> impl Strategy<Value = Fate> {
    let flush = prop_oneof![6 => Just(FlushFault::None), 1 => Just(FlushFault::Fails), 1 => Just(FlushFault::PowerCut)];
    let calm = (0..14usize).prop_flat_map(|len| proptest::collection::vec(any_fault(), len));
    // Many schedules with one fault: with several, the first one found hides the others.
    let single = (0..CHUNKS + 2, any_fault()).prop_map(|(at, fault)| {
        let mut writes = vec![Fault::None; at];
        writes.push(fault);
        writes
    });
    (prop_oneof![calm, single], proptest::collection::vec(flush, 0..4))
        .prop_map(|(writes, flushes)| Fate { writes, flushes })
}

/// 48 cases, unless somebody asks for another number.
fn cases() -> ProptestConfig {
    if std::env::var_os("PROPTEST_CASES").is_some() {
        ProptestConfig::default()
    } else {
        ProptestConfig::with_cases(48)
    }
}

proptest! {
    #![proptest_config(cases())]

    /// Whatever a device does: success means the image, byte for byte; an error means that neither it nor what was there
    /// before boots.
    #[test]
    fn whatever_a_device_does_success_is_the_image_and_an_error_does_not_boot(
        fate in any_fate(),
        engine in proptest::sample::select(engines()),
        layout in proptest::sample::select(&LAYOUTS[..]),
    ) {
        let media = Media::new(layout);
        let outcome = block_on(media.write(&Bench::new(fate), engine, &WriteOptions::default()));
        let now = media.now();
        match outcome {
            Ok(_) => prop_assert!(now == sample().raw),
            Err(error) => {
                let first = ..layout.last_part();
                prop_assert!(now[first] != sample().raw[first], "the image starts there although {}", error);
                prop_assert!(now[first] != media.old[first], "the old content starts there although {}", error);
            }
        }
    }
}
