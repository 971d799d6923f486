//! The fetching half of the data path on its own, with a worker that verifies and claims but writes nothing: everything
//! runs in one task's virtual time, so a pause of a minute costs nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use crossbeam_channel::{Receiver, unbounded};
use imgstream::abort::Abort;
use imgstream::decode::CorruptFrame;
use imgstream::digest::Digest;
use imgstream::error::{Error, Result};
use imgstream::fetch::{Frame, Lanes, Patience, Queue, Request, Share, SpanWork, budget};
use imgstream::manifest::ChunkKind;
use imgstream::plan::{Plans, runs};
use imgstream::progress::Progress;
use imgstream::source::Source;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::image::{CHUNK, Packed};
use crate::mock::Mock;

/// How to fetch.
#[derive(Clone)]
pub struct Setting {
    pub patience: Patience,
    pub connections: usize,
    /// Chunks per request.
    pub request: usize,
    /// Memory for frames.
    pub memory: u64,
    /// How long a frame waits for the worker.
    pub worker_lag: Duration,
}

impl Default for Setting {
    fn default() -> Self {
        Setting { patience: Patience::default(), connections: 2, request: 2, memory: 0, worker_lag: Duration::ZERO }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    pub result: Result<()>,
    /// How often each chunk was claimed, by span and number.
    pub claimed: HashMap<(usize, usize), usize>,
    pub late: usize,
    pub wanted: usize,
    pub wanted_bytes: u64,
    pub fetched: u64,
    pub shares: Vec<Share>,
    pub took: Duration,
}

impl Outcome {
    #[track_caller]
    pub fn whole(&self) -> &Self {
        assert!(self.result.is_ok(), "{:?}", self.result);
        assert_eq!(self.claimed.len(), self.wanted, "chunks are missing");
        assert!(self.claimed.values().all(|times| *times == 1), "{:?}", self.claimed);
        self
    }

    #[track_caller]
    pub fn error(&self) -> &Error {
        self.result.as_ref().expect_err("it must fail")
    }

    pub fn share(&self, source: &str) -> u64 {
        self.shares.iter().find(|share| share.source == source).unwrap().bytes
    }
}

/// Fetches all of `image` from `mocks`.
pub async fn fetch(image: &Arc<Packed>, mocks: &[Arc<Mock>], setting: Setting) -> Outcome {
    let sources: Vec<_> = mocks.iter().map(|mock| Arc::clone(mock) as Arc<dyn Source>).collect();
    let start = Instant::now();
    let abort = Arc::new(Abort::new(&CancellationToken::new()));
    let queue = Arc::new(Queue::new(&sources, &setting.patience));
    let progress = Arc::new(Progress::default());
    let (frames, incoming) = unbounded();
    let lanes = setting.connections * sources.len();
    let shared = Lanes {
        sources: sources.clone(),
        queue: Arc::clone(&queue),
        frames,
        budget: budget(setting.memory, lanes, CHUNK as u32),
        buffers: Arc::default(),
        progress: Arc::clone(&progress),
        abort: Arc::clone(&abort),
    };
    let mut tasks = JoinSet::new();
    shared.start(setting.connections, &mut tasks);
    let mut worker = Worker { queue: Arc::clone(&queue), claimed: HashMap::new(), late: 0, lag: setting.worker_lag };
    let (mut wanted, mut wanted_bytes) = (0, 0);
    let plan = async {
        let plans = Plans::new(image.open(vec![Arc::new(honest(image))]).await.unwrap());
        for number in 0..plans.count() {
            let work = SpanWork::new(plans.load(number).await.unwrap());
            let rows = work.plan.index.rows();
            let data = runs(&work.plan.index, &|_| true).into_iter().filter(|(kind, _)| *kind == ChunkKind::Data);
            let requests = data.flat_map(|(_, run)| {
                run.clone().step_by(setting.request).map(move |start| start..run.end.min(start + setting.request))
            });
            for chunks in requests {
                wanted += chunks.len();
                wanted_bytes += chunks.clone().map(|at| u64::from(rows[at].length)).sum::<u64>();
                assert!(queue.plan(Request::new(Arc::clone(&work), chunks)).await);
            }
        }
        queue.planned();
        queue.finished().await;
    };
    tokio::select! {
        () = plan => {}
        () = abort.token().cancelled() => {}
        failed = worker.work(incoming) => abort.fail(failed),
    }
    queue.close();
    tasks.shutdown().await;
    Outcome {
        result: abort.check("fetching"),
        claimed: worker.claimed,
        late: worker.late,
        wanted,
        wanted_bytes,
        fetched: progress.fetched.load(Relaxed),
        shares: queue.shares(),
        took: start.elapsed(),
    }
}

fn honest(image: &Arc<Packed>) -> impl Source + use<> {
    Arc::into_inner(Mock::new("plan", image, crate::mock::Script::default(), Duration::ZERO)).unwrap()
}

struct Worker {
    queue: Arc<Queue>,
    claimed: HashMap<(usize, usize), usize>,
    late: usize,
    lag: Duration,
}

impl Worker {
    async fn work(&mut self, frames: Receiver<Frame>) -> Error {
        loop {
            sleep(self.lag.max(Duration::from_millis(20))).await;
            while let Ok(frame) = frames.try_recv() {
                if let Err(error) = self.handle(&frame) {
                    return error;
                }
            }
        }
    }

    fn handle(&mut self, frame: &Frame) -> Result<()> {
        let expected = frame.span.plan.index.rows()[frame.chunk].digest;
        let found = Digest::of(&frame.bytes);
        if found != expected {
            return self.queue.corrupt(frame, CorruptFrame::Digest { expected, found }).map(drop);
        }
        match frame.claim() {
            None => self.late += 1,
            Some(claim) => {
                *self.claimed.entry((frame.span.plan.number, frame.chunk)).or_default() += 1;
                self.queue.delivered(claim);
            }
        }
        Ok(())
    }
}
