//! Opening an image, and its small blobs, from sources that fail: in virtual time.

use std::sync::Arc;
use std::time::Duration;

use imgstream::error::{Kind, Retry};
use imgstream::manifest::BlobRef;
use imgstream::open::Image;
use imgstream::source::Source;
use tokio::time::Instant;

use crate::image::Packed;
use crate::logs::Logs;
use crate::mock::{Fault, Mock, Script};

fn mock(name: &str, fault: Option<Fault>) -> Arc<Mock> {
    let script = Script { metadata: fault, ..Script::default() };
    Mock::new(name, &Packed::small(), script, Duration::from_secs(30))
}

async fn open(mocks: &[Arc<Mock>]) -> imgstream::error::Result<Image> {
    Packed::small().open(mocks.iter().map(|mock| Arc::clone(mock) as Arc<dyn Source>).collect()).await
}

fn an_index(image: &Image) -> (BlobRef, u64) {
    let index = image.descriptor().spans[0].index;
    (index, index.size)
}

#[tokio::test(start_paused = true)]
async fn a_source_without_an_image_is_said_and_the_next_one_is_asked() {
    let logs = Logs::start();
    let mocks = [mock("none", Some(Fault::NotHere)), mock("dead", Some(Fault::Refused(None))), mock("good", None)];
    let image = open(&mocks).await.unwrap();
    assert_eq!(image.sources().len(), 3);
    assert_eq!(logs.with(&["WARN", "source=\"none\"", "404"]).len(), 1);
    assert_eq!(logs.with(&["WARN", "source=\"dead\"", "connection refused"]).len(), 1);
    assert_eq!(logs.with(&["source=\"good\""]).len(), 0);
}

#[tokio::test(start_paused = true)]
async fn blobs_are_asked_first_of_the_source_that_worked() {
    let mocks = [mock("none", Some(Fault::NotHere)), mock("good", None)];
    let image = open(&mocks).await.unwrap();
    let asked = mocks[0].metadata_asked();
    let (index, limit) = an_index(&image);
    image.blob(index, limit, "the index").await.unwrap();
    assert_eq!(mocks[0].metadata_asked(), asked, "the source that failed was asked first again");
}

#[tokio::test(start_paused = true)]
async fn every_source_is_named_when_none_has_an_image() {
    let error =
        open(&[mock("none", Some(Fault::NotHere)), mock("dead", Some(Fault::Refused(None)))]).await.unwrap_err();
    let text = error.to_string();
    assert_eq!((error.kind(), error.retry()), (Kind::Source, Retry::Temporary));
    assert!(text.contains("none: the answer is 404") && text.contains("dead: connection refused"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn what_may_pass_is_asked_again_and_what_does_not_is_not() {
    let mocks = [mock("none", Some(Fault::NotHere)), mock("dead", Some(Fault::Refused(None)))];
    open(&mocks).await.unwrap_err();
    assert_eq!((mocks[0].metadata_asked(), mocks[1].metadata_asked()), (1, 4));
}

#[tokio::test(start_paused = true)]
async fn a_source_that_hangs_is_passed_over_in_bounded_time() {
    let (start, logs) = (Instant::now(), Logs::start());
    open(&[mock("hanging", Some(Fault::Hangs(0))), mock("good", None)]).await.unwrap();
    assert!(start.elapsed() <= Duration::from_secs(60), "{:?}", start.elapsed());
    assert_eq!(logs.with(&["WARN", "source=\"hanging\"", "in time"]).len(), 1);

    let start = Instant::now();
    let error = open(&[mock("one", Some(Fault::Hangs(0))), mock("two", Some(Fault::Hangs(0)))]).await.unwrap_err();
    assert!(start.elapsed() <= Duration::from_secs(121), "{:?}", start.elapsed());
    assert!(error.to_string().contains("one") && error.to_string().contains("two"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_servers_wish_delays_the_next_round_but_not_beyond_the_limit() {
    for (asked, most) in [(20, 61), (100_000, 121)] {
        let start = Instant::now();
        open(&[mock("busy", Some(Fault::Refused(Some(Duration::from_secs(asked)))))]).await.unwrap_err();
        let took = start.elapsed().as_secs();
        assert!((20..=most).contains(&took), "{took} s");
    }
}
