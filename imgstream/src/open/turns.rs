//! Asking one source after the other for something small, for a bounded time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};

use crate::error::{Error, Kind, Result, Retry};
use crate::fetch::{LONGEST_RETRY_AFTER, said_by};
use crate::source::Source;

/// Pauses between rounds: short, because a person waits.
const PAUSES: [Duration; 3] = [Duration::from_millis(200), Duration::from_millis(800), Duration::from_secs(3)];
/// The longest a source may take for one try; less where there are many, so that each gets its turn.
const TRY: Duration = Duration::from_secs(60);
/// All tries together, pauses included. More than [`LONGEST_RETRY_AFTER`], so that there is time left to ask again.
const LIMIT: Duration = Duration::from_secs(120);

/// Asks `sources` for `what`, the one with number `first` first, until one has it; returns its number too. Those that
/// failed in a way that may pass are asked again. What fails is said where there are others to make up for it.
///
/// # Errors
/// What each source said last; [`Kind::Image`] where one of them has an image that is refused.
pub(super) async fn in_turn<'a, T, F>(
    sources: &'a [Arc<dyn Source>],
    first: usize,
    what: &str,
    ask: impl Fn(&'a dyn Source) -> F,
) -> Result<(usize, T)>
where
    F: Future<Output = Result<T>>,
{
    let deadline = Instant::now() + LIMIT;
    let share = TRY.min(LIMIT / sources.len().max(1) as u32);
    let mut failures: Vec<Option<Error>> = sources.iter().map(|_| None).collect();
    for pause in PAUSES.into_iter().map(Some).chain([None]) {
        for number in (0..sources.len()).map(|turn| (first + turn) % sources.len()) {
            if failures[number].as_ref().is_some_and(|error| !may_pass(error)) {
                continue;
            }
            let source = sources[number].as_ref();
            let until = deadline.min(Instant::now() + share);
            let error = match timeout_at(until, ask(source)).await {
                Ok(Ok(found)) => return Ok((number, found)),
                Ok(Err(error)) => error,
                Err(_) => Error::source_failed(format!("{}: {what} did not come in time", source.name())),
            };
            match (&failures[number], sources.len()) {
                (None, 2..) => tracing::warn!(source = source.name(), %error, "does not give {what}"),
                _ => tracing::debug!(source = source.name(), %error, "does not give {what}"),
            }
            failures[number] = Some(error);
        }
        let wait = pause.and_then(|pause| wait(pause, &failures, deadline));
        let Some(wait) = wait else { break };
        tokio::time::sleep(wait).await;
    }
    Err(together(sources, failures, what))
}

fn may_pass(error: &Error) -> bool {
    error.kind() == Kind::Source && error.retry() == Retry::Temporary
}

/// How long to wait before the next round, a source's own wish included; `None` where no further round can help.
fn wait(pause: Duration, failures: &[Option<Error>], deadline: Instant) -> Option<Duration> {
    let passing = failures.iter().flatten().filter(|error| may_pass(error));
    let asked = passing.map(|error| error.retry_after().unwrap_or_default()).min()?;
    let left = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
    Some(pause.max(asked.min(LONGEST_RETRY_AFTER)).min(left))
}

/// One error for all: the image's fault before a source's, and every source with its last word.
fn together(sources: &[Arc<dyn Source>], mut failures: Vec<Option<Error>>, what: &str) -> Error {
    if sources.len() < 2 {
        return failures.pop().flatten().unwrap_or_else(|| Error::usage("no source was given"));
    }
    let word = |(source, failure): (&Arc<dyn Source>, &Option<Error>)| {
        let said = failure.as_ref().map_or("there was no time to ask it".to_owned(), ToString::to_string);
        said_by(source.name(), &said)
    };
    let words: Vec<_> = sources.iter().zip(&failures).map(word).collect();
    let words = words.join("; ");
    let passing = failures.iter().flatten().any(may_pass);
    let refused = failures.iter().flatten().position(|error| error.kind() != Kind::Source).unwrap_or(0);
    let Some(first) = failures.into_iter().flatten().nth(refused) else { return Error::source_failed(words) };
    let retry = if first.kind() == Kind::Source && passing { Retry::Temporary } else { first.retry() };
    let hint = first.hint().map(str::to_owned);
    let error = Error::new(first.kind(), format!("no source gives {what}: {words}")).with_retry(retry);
    let error = error.with_source(first);
    match hint {
        Some(hint) => error.with_hint(hint),
        None => error,
    }
}
