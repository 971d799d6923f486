//! The streams of several runs as one, each until its run is over.

use std::time::Duration;

use protocol::RunId;
use protocol::control::Run;
use protocol::control::run::What;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::client::{Client, News};
use crate::error::{Error, Result};

/// Most streams at once: each is a connection.
pub(super) const MAX_STREAMS: usize = 64;
/// What is heard before it is told.
const AHEAD: usize = 256;
/// Between two questions whether a run is over, while the service is away.
const AGAIN: Duration = Duration::from_secs(1);

/// What is heard.
pub(super) enum Heard {
    /// Something new.
    News(News),
    /// The run is over; its stream has ended with it.
    Over(Box<Run>),
    /// The stream cannot go on.
    Failed(Error),
}

/// Streams, which end when this is dropped.
pub(super) struct Streams {
    heard: mpsc::Receiver<(usize, Heard)>,
    _tasks: JoinSet<()>,
}

impl Streams {
    /// Of these runs, each from its beginning until it is over; of all runs, from now on, where there are none.
    pub(super) fn of(client: &Client, runs: &[RunId]) -> Self {
        let (sender, heard) = mpsc::channel(AHEAD);
        let mut tasks = JoinSet::new();
        for (number, run) in runs.iter().enumerate() {
            tasks.spawn(follow(client.clone(), Some(run.clone()), number, sender.clone()));
        }
        if runs.is_empty() {
            tasks.spawn(follow(client.clone(), None, 0, sender));
        }
        Streams { heard, _tasks: tasks }
    }

    /// What is heard next, and the number of its stream; `None` when all have ended.
    pub(super) async fn next(&mut self) -> Option<(usize, Heard)> {
        self.heard.recv().await
    }
}

async fn follow(client: Client, run: Option<RunId>, number: usize, told: mpsc::Sender<(usize, Heard)>) {
    let mut events = client.events(run.clone());
    loop {
        let news = match events.next().await {
            Ok(news) => news,
            Err(error) => return drop(told.send((number, Heard::Failed(error))).await),
        };
        let may_be_over = run.as_ref().filter(|_| is_end(&news));
        if told.send((number, Heard::News(news))).await.is_err() {
            return;
        }
        let Some(run) = may_be_over else { continue };
        // The stream begins with what was: the run may have been queued again since.
        match now(&client, run, number, &told).await {
            Ok(run) if run.state.is_over() => return drop(told.send((number, Heard::Over(Box::new(run)))).await),
            Ok(_) => {}
            Err(error) => return drop(told.send((number, Heard::Failed(error))).await),
        }
    }
}

fn is_end(news: &News) -> bool {
    let News::Happened(happening) = news else { return false };
    matches!(&happening.what, What::State(change) if change.state.is_over())
}

/// The run as it is now, however long it takes to be told.
async fn now(client: &Client, run: &RunId, number: usize, told: &mpsc::Sender<(usize, Heard)>) -> Result<Run> {
    let mut is_away = false;
    loop {
        let news = match client.run(run).await {
            Ok(run) if !is_away => return Ok(run),
            Ok(run) => {
                let _ = told.send((number, Heard::News(News::Back))).await;
                return Ok(run);
            }
            Err(error) if error.retry().is_none() => return Err(error),
            Err(error) => News::Away { error, again_in: AGAIN },
        };
        is_away = true;
        let _ = told.send((number, Heard::News(news))).await;
        tokio::time::sleep(AGAIN).await;
    }
}
