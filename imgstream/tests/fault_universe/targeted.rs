//! A test per promise, in virtual time.

use std::sync::Arc;
use std::time::Duration;

use imgstream::error::{Kind, Retry};
use imgstream::fetch::Patience;

use crate::image::Packed;
use crate::lanes::{Outcome, Setting, fetch};
use crate::logs::Logs;
use crate::mock::{Fault, Mock, Script};

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);
/// The deadline of a source for a silent connection.
const DEADLINE: Duration = Duration::from_secs(30);

fn mock(name: &str, image: &Arc<Packed>, script: Script) -> Arc<Mock> {
    Mock::new(name, image, script, DEADLINE)
}

fn always(fault: Fault) -> Script {
    Script { then: Some(fault), ..Script::default() }
}

fn paced(piece: Duration) -> Script {
    Script { piece, ..Script::default() }
}

#[tokio::test(start_paused = true)]
async fn a_slow_source_gets_less() {
    let image = Packed::long();
    let (fast, slow) = (mock("fast", &image, paced(10 * MS)), mock("slow", &image, paced(200 * MS)));
    let outcome = fetch(&image, &[slow, fast], Setting::default()).await;
    outcome.whole();
    assert!(outcome.share("fast") > 8 * outcome.share("slow"), "{:?}", outcome.shares);
    // 64 chunks of 5 pieces, 10 ms each, on two connections take 1.6 s. The slow source's last request alone is 2 s.
    assert!(outcome.took < 2 * S, "{:?}: the slow source held it back", outcome.took);
}

#[tokio::test(start_paused = true)]
async fn a_failed_source_is_left_and_comes_back() {
    let (image, logs) = (Packed::long(), Logs::start());
    let script = Script { dead: Some(Duration::ZERO..5 * S), ..paced(100 * MS) };
    let (staying, leaving) = (mock("staying", &image, paced(200 * MS)), mock("leaving", &image, script));
    let outcome = fetch(&image, &[Arc::clone(&leaving), staying], Setting::default()).await;
    outcome.whole();
    let dead = leaving.asked().iter().filter(|asked| asked.at < leaving.asked()[0].at + 5 * S).count();
    // Two lanes at once, then one request after about 0.25, 0.5, 1, 2 and 4 seconds.
    assert!((4..=8).contains(&dead), "a source that is left was asked {dead} times in 5 s");
    assert!(leaving.asked().len() > dead, "it was not asked again");
    assert!(outcome.share("leaving") > 20 << 16, "it was not taken back into service: {:?}", outcome.shares);
    assert_eq!(logs.with(&["WARN", "source=\"leaving\"", "left alone", "connection refused"]).len(), 1);
    assert_eq!(logs.with(&["INFO", "source=\"leaving\"", "back in service"]).len(), 1);
    assert_eq!(logs.with(&["staying"]).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_failed_source_is_tried_by_one_request_only() {
    let image = Packed::long();
    let script = Script { first: vec![Some(Fault::Refused(None)); 4], then: Some(Fault::Stalls(0)), ..paced(MS) };
    let (good, silent) = (mock("good", &image, paced(500 * MS)), mock("silent", &image, script));
    let setting = Setting { connections: 4, ..Setting::default() };
    fetch(&image, &[Arc::clone(&silent), good], setting).await.whole();
    // Four lanes at first; then, over some thirty seconds, one that waits for the deadline.
    assert!((5..=6).contains(&silent.asked().len()), "{:?}", silent.asked());
}

#[tokio::test(start_paused = true)]
async fn the_last_requests_are_hedged() {
    let image = Packed::small();
    for fault in [Fault::Hangs(0), Fault::Hangs(70_000), Fault::Drips(60 * S)] {
        let (good, hanging) = (mock("good", &image, paced(10 * MS)), mock("hanging", &image, always(fault)));
        let outcome = fetch(&image, &[Arc::clone(&hanging), good], Setting::default()).await;
        outcome.whole();
        assert!(outcome.took < 5 * S, "{:?}", outcome.took);
        assert_eq!(hanging.asked().len(), 2, "its lanes hang");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_is_hedged_once_and_never_at_its_own_source() {
    let image = Packed::small();
    let hanging: Vec<_> = ["a", "b", "c"].map(|name| mock(name, &image, always(Fault::Hangs(0)))).into();
    let setting = Setting { request: 64, connections: 4, ..Setting::default() };
    let outcome = fetch(&image, &hanging, setting).await;
    assert_eq!(outcome.error().kind(), Kind::Source);
    let all: Vec<_> = hanging.iter().flat_map(|mock| mock.asked()).collect();
    for asked in &all {
        let same = all.iter().filter(|other| (other.blob, &other.range) == (asked.blob, &asked.range)).count();
        assert_eq!(same, 2, "{asked:?}");
    }
    for mock in &hanging {
        let asked = mock.asked();
        let twice =
            |at: usize| asked[..at].iter().any(|other| other.blob == asked[at].blob && other.range == asked[at].range);
        assert!(!(0..asked.len()).any(twice), "{asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn two_equal_sources_do_not_hedge() {
    let image = Packed::long();
    let both = ["a", "b"].map(|name| mock(name, &image, paced(20 * MS)));
    let outcome = fetch(&image, &both, Setting { request: 3, ..Setting::default() }).await;
    assert_eq!(outcome.whole().fetched, outcome.wanted_bytes, "something was fetched twice");
}

#[tokio::test(start_paused = true)]
async fn a_hedged_chunk_is_written_once() {
    let image = Packed::small();
    // Both copies are in the worker's hands before it looks at the first.
    let setting = Setting { request: 8, memory: 16 << 20, worker_lag: 10 * S, ..Setting::default() };
    let (one, other) = (mock("one", &image, paced(50 * MS)), mock("other", &image, paced(250 * MS)));
    let outcome = fetch(&image, &[other, one], setting).await;
    outcome.whole();
    assert!(outcome.late > 0, "no chunk came twice: {outcome:?}");
    assert!(outcome.fetched > outcome.wanted_bytes, "what is fetched twice counts twice");
}

#[tokio::test(start_paused = true)]
async fn the_loser_of_a_hedge_is_cancelled_and_its_source_goes_on() {
    let image = Packed::long();
    let script = Script { first: vec![Some(Fault::Hangs(0)); 2], ..paced(20 * MS) };
    let hanging = mock("hanging", &image, script);
    // What came corrupted from the good source only the other one may fetch, once its lanes are free.
    let good = mock("good", &image, Script { first: vec![Some(Fault::Flipped(9))], ..paced(20 * MS) });
    let setting = Setting { request: 16, ..Setting::default() };
    fetch(&image, &[Arc::clone(&hanging), good], setting).await.whole();
    assert_eq!(hanging.asked().len(), 3, "its lanes were never freed: {:?}", hanging.asked());
}

async fn corruption(first: &[Script]) -> (Outcome, Vec<Arc<Mock>>, Logs) {
    let (image, logs) = (Packed::small(), Logs::start());
    let mocks: Vec<_> =
        first.iter().enumerate().map(|(at, script)| mock(["one", "two"][at], &image, script.clone())).collect();
    let outcome = fetch(&image, &mocks, Setting { connections: 1, ..Setting::default() }).await;
    (outcome, mocks, logs)
}

#[tokio::test(start_paused = true)]
async fn corruption_is_pinned_and_fetched_once_elsewhere() {
    let flipped = Script { first: vec![Some(Fault::Flipped(100))], ..paced(MS) };
    let (outcome, mocks, logs) = corruption(&[flipped.clone(), paced(50 * MS)]).await;
    outcome.whole();
    assert_eq!(logs.with(&["WARN", "source=\"one\"", "chunk 0 of span 0", "corrupted", "digest"]).len(), 1);
    let (first, second) = (mocks[0].asked()[0].clone(), mocks[1].asked());
    let chunk = first.range.start..first.range.start + (first.range.end - first.range.start) / 2;
    let again = second.iter().filter(|asked| asked.blob == first.blob && asked.range == chunk).count();
    assert_eq!(again, 1, "the chunk alone, from the other source, though that is slower: {second:?}");

    let (outcome, _, logs) = corruption(std::slice::from_ref(&flipped)).await;
    outcome.whole();
    assert_eq!(logs.with(&["WARN", "source=\"one\"", "fetched once more"]).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_second_corruption_of_a_chunk_ends_the_run_and_names_both_sources() {
    let garbage = always(Fault::Garbage);
    let (outcome, _, _) = corruption(&[garbage.clone(), garbage.clone()]).await;
    let error = outcome.error();
    assert_eq!((error.kind(), error.retry()), (Kind::Source, Retry::OtherSource));
    let text = error.to_string();
    assert!(
        text.contains("one") && text.contains("two") && text.contains("chunk") && text.contains("corrupt"),
        "{text}"
    );

    let (outcome, mocks, _) = corruption(&[garbage]).await;
    assert!(outcome.error().to_string().contains("one"));
    assert!(mocks[0].asked().len() < 6, "no more than one chunk's second try: {:?}", mocks[0].asked());
}

#[tokio::test(start_paused = true)]
async fn a_corrupt_chunk_is_asked_of_its_source_again_when_nobody_else_is_left() {
    let flipped = Script { first: vec![Some(Fault::Flipped(100))], ..Script::default() };
    let (outcome, _, _) = corruption(&[flipped, always(Fault::Refused(None))]).await;
    outcome.whole();
}

#[tokio::test(start_paused = true)]
async fn a_source_that_corrupts_again_and_again_is_left_for_good() {
    let (image, logs) = (Packed::long(), Logs::start());
    let (good, bad) = (mock("good", &image, paced(50 * MS)), mock("bad", &image, always(Fault::Garbage)));
    fetch(&image, &[Arc::clone(&bad), good], Setting { request: 1, ..Setting::default() }).await.whole();
    // Three wrong chunks, and what its two lanes had begun.
    assert!((3..=6).contains(&bad.asked().len()), "{:?}", bad.asked().len());
    assert_eq!(logs.with(&["WARN", "source=\"bad\"", "left for good"]).len(), 1);
    assert_eq!(logs.with(&["bad", "back"]).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn retry_after_is_honoured_and_bounded() {
    let image = Packed::small();
    for (asked, least, most) in [(20 * S, 20, 22), (100_000 * S, 60, 62)] {
        let script = Script { first: vec![Some(Fault::Refused(Some(asked)))], ..Script::default() };
        let source = mock("busy", &image, script);
        let setting = Setting { connections: 1, ..Setting::default() };
        fetch(&image, &[Arc::clone(&source)], setting).await.whole();
        let pause = (source.asked()[1].at - source.asked()[0].at).as_secs();
        assert!((least..most).contains(&pause), "{pause} s, and it wished for {asked:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn retries_are_bounded_in_total() {
    let image = Packed::long();
    let limit = Patience::default().max_tries as usize;
    let refusing = mock("refusing", &image, always(Fault::Refused(None)));
    let setting = Setting { connections: 1, request: 64, ..Setting::default() };
    let outcome = fetch(&image, &[Arc::clone(&refusing)], setting.clone()).await;
    assert_eq!((outcome.error().kind(), outcome.error().retry()), (Kind::Source, Retry::Temporary));
    assert_eq!(refusing.asked().len(), limit);
    assert!(outcome.took > 3 * S && outcome.took < 10 * S, "{:?}", outcome.took);

    // One chunk each time: progress, and yet not for ever.
    let little = mock("little", &image, always(Fault::BreaksOff(66_000)));
    let outcome = fetch(&image, &[Arc::clone(&little)], setting.clone()).await;
    assert!(outcome.error().to_string().contains("broke off"));
    assert_eq!(little.asked().len(), 4 * limit);
    assert_eq!(outcome.claimed.len(), 4 * limit);

    // What waiting does not mend is not waited for.
    let missing = mock("missing", &image, always(Fault::NotHere));
    let outcome = fetch(&image, &[Arc::clone(&missing)], setting).await;
    assert_eq!((missing.asked().len(), outcome.error().retry()), (1, Retry::OtherSource));
    assert!(outcome.took < S, "{:?}", outcome.took);
}

#[tokio::test(start_paused = true)]
async fn what_one_source_does_not_have_another_is_asked_for_at_once() {
    let image = Packed::small();
    let (without, with) = (mock("without", &image, always(Fault::NotHere)), mock("with", &image, Script::default()));
    let outcome = fetch(&image, &[without, with], Setting::default()).await;
    assert!(outcome.whole().took < S, "{:?}", outcome.took);
}

#[tokio::test(start_paused = true)]
async fn every_source_is_named_when_all_fail() {
    let image = Packed::small();
    let mocks = [
        mock("first", &image, always(Fault::Refused(None))),
        mock("second", &image, always(Fault::NotHere)),
        mock("third", &image, always(Fault::BreaksOff(10))),
    ];
    let outcome = fetch(&image, &mocks, Setting::default()).await;
    let (error, text) = (outcome.error(), outcome.error().to_string());
    assert_eq!((error.kind(), error.retry()), (Kind::Source, Retry::Temporary));
    for words in ["first: connection refused", "second: the answer is 404", "third: the body broke off"] {
        assert!(text.contains(words), "{text}");
    }
    assert!(outcome.took < 60 * S, "{:?}", outcome.took);
    let missing = ["first", "second"].map(|name| mock(name, &image, always(Fault::NotHere)));
    let outcome = fetch(&image, &missing, Setting::default()).await;
    assert_eq!(outcome.error().retry(), Retry::OtherSource, "nothing was temporary");
}

#[tokio::test(start_paused = true)]
async fn silence_of_every_source_ends_the_run() {
    let image = Packed::small();
    let mocks = ["first", "second"].map(|name| mock(name, &image, always(Fault::Hangs(100))));
    let outcome = fetch(&image, &mocks, Setting::default()).await;
    let text = outcome.error().to_string();
    assert!(text.contains("120 s") && text.contains("first") && text.contains("second"), "{text}");
    assert!(outcome.took >= 120 * S && outcome.took < 150 * S, "{:?}", outcome.took);
}

#[tokio::test(start_paused = true)]
async fn a_slow_writer_is_not_the_sources_silence() {
    let image = Packed::small();
    let setting = Setting { worker_lag: 300 * S, ..Setting::default() };
    fetch(&image, &[mock("good", &image, Script::default())], setting).await.whole();
}
