//! The launcher that launches nothing: a machine boots the medium, and enrols with a token that a person was given.

use futures_util::future::{BoxFuture, pending, ready};

use super::{Death, Ending, Launched, Launcher, NotLaunched, Order, Says};

/// Waits for others. Whether they are dead it cannot know.
#[derive(Debug, Default)]
pub struct External;

impl Launcher for External {
    fn launch(&self, _: Order, _: Says) -> BoxFuture<'_, Result<Option<Launched>, NotLaunched>> {
        Box::pin(ready(Ok(None)))
    }

    fn watch<'a>(&'a self, _: &'a str, _: Says) -> BoxFuture<'a, Death> {
        Box::pin(pending())
    }

    fn end(&self, _: Ending, _: Says) -> BoxFuture<'_, Death> {
        Box::pin(pending())
    }
}
