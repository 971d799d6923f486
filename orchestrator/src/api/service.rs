//! What the API needs of the engine: its handle, method by method, so that the API can be tested against one that follows a script.

use futures_util::future::BoxFuture;
use protocol::control::agent::{Enrol, Enrolled, Lease, Orders, Report};
use protocol::control::key::{ReleasedKey, ShownKey};
use protocol::control::problem::Problem;
use protocol::control::run::{EnrolmentToken, Glance, NewRun, Run, RunPage};
use protocol::event::Progress;
use protocol::{Digest, RunId, Token};

use crate::engine::{Agent, Engine, Fresh, Standing, Watch};
use crate::metrics::Tally;
use crate::store::{Filter, Told};

/// What a method answers.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, Problem>>;

/// See [`Watch`].
pub trait Changes: Send {
    /// See [`Watch::changed`]. A future that is dropped loses nothing.
    fn changed(&mut self) -> BoxFuture<'_, Option<Fresh>>;
}

/// See [`Engine`], method by method.
#[allow(missing_docs)]
pub trait Service: Send + Sync + 'static {
    fn create(&self, new: NewRun, key: Option<String>) -> Answer<'_, (Run, bool)>;
    fn run<'a>(&'a self, run: &'a RunId) -> Answer<'a, Run>;
    fn list<'a>(&'a self, filter: &'a Filter, page: Option<&'a str>, limit: u32) -> Answer<'a, RunPage>;
    fn cancel<'a>(&'a self, run: &'a RunId, reason: &'a str) -> Answer<'a, Run>;
    fn retry<'a>(&'a self, run: &'a RunId) -> Answer<'a, Run>;
    fn confirm_death<'a>(&'a self, run: &'a RunId, attempt: u32) -> Answer<'a, Run>;
    fn revoke<'a>(&'a self, run: &'a RunId, attempt: u32, reason: &'a str) -> Answer<'a, Run>;
    fn token<'a>(&'a self, run: &'a RunId) -> Answer<'a, EnrolmentToken>;
    fn enrol<'a>(&'a self, token: &'a Token, enrol: Enrol) -> Answer<'a, Enrolled>;
    fn agent<'a>(&'a self, run: &'a RunId, attempt: u32, session: &'a Token, key: &'a Digest) -> Answer<'a, Agent>;
    fn report<'a>(&'a self, agent: &'a Agent, report: Report) -> Answer<'a, Orders>;
    fn renew<'a>(&'a self, agent: &'a Agent, shown: Option<Standing<'a>>) -> Answer<'a, Lease>;
    fn release_key<'a>(&'a self, agent: &'a Agent) -> Answer<'a, ReleasedKey>;
    fn show_key<'a>(&'a self, run: &'a RunId, by: &'a str) -> Answer<'a, ShownKey>;
    fn destroy_key<'a>(&'a self, run: &'a RunId, by: &'a str) -> Answer<'a, Run>;
    fn told<'a>(&'a self, after: i64, run: Option<&'a RunId>, limit: u32) -> Answer<'a, Vec<Told>>;
    fn last_told(&self) -> Answer<'_, i64>;
    fn progress(&self, run: &RunId) -> Option<Progress>;
    fn fleet(&self, since: u64) -> (u64, Vec<Glance>);
    fn watch(&self, run: Option<&RunId>) -> Box<dyn Changes>;
    fn ready(&self) -> Answer<'_, ()>;
    fn tally(&self) -> Tally;
}

impl Changes for Watch {
    fn changed(&mut self) -> BoxFuture<'_, Option<Fresh>> {
        Box::pin(Watch::changed(self))
    }
}

impl Service for Engine {
    fn create(&self, new: NewRun, key: Option<String>) -> Answer<'_, (Run, bool)> {
        Box::pin(Engine::create(self, new, key))
    }

    fn run<'a>(&'a self, run: &'a RunId) -> Answer<'a, Run> {
        Box::pin(Engine::run(self, run))
    }

    fn list<'a>(&'a self, filter: &'a Filter, page: Option<&'a str>, limit: u32) -> Answer<'a, RunPage> {
        Box::pin(Engine::list(self, filter, page, limit))
    }

    fn cancel<'a>(&'a self, run: &'a RunId, reason: &'a str) -> Answer<'a, Run> {
        Box::pin(Engine::cancel(self, run, reason))
    }

    fn retry<'a>(&'a self, run: &'a RunId) -> Answer<'a, Run> {
        Box::pin(Engine::retry(self, run))
    }

    fn confirm_death<'a>(&'a self, run: &'a RunId, attempt: u32) -> Answer<'a, Run> {
        Box::pin(Engine::confirm_death(self, run, attempt))
    }

    fn revoke<'a>(&'a self, run: &'a RunId, attempt: u32, reason: &'a str) -> Answer<'a, Run> {
        Box::pin(Engine::revoke(self, run, attempt, reason))
    }

    fn token<'a>(&'a self, run: &'a RunId) -> Answer<'a, EnrolmentToken> {
        Box::pin(Engine::token(self, run))
    }

    fn enrol<'a>(&'a self, token: &'a Token, enrol: Enrol) -> Answer<'a, Enrolled> {
        Box::pin(Engine::enrol(self, token, enrol))
    }

    fn agent<'a>(&'a self, run: &'a RunId, attempt: u32, session: &'a Token, key: &'a Digest) -> Answer<'a, Agent> {
        Box::pin(Engine::agent(self, run, attempt, session, key))
    }

    fn report<'a>(&'a self, agent: &'a Agent, report: Report) -> Answer<'a, Orders> {
        Box::pin(Engine::report(self, agent, report))
    }

    fn renew<'a>(&'a self, agent: &'a Agent, shown: Option<Standing<'a>>) -> Answer<'a, Lease> {
        Box::pin(Engine::renew(self, agent, shown))
    }

    fn release_key<'a>(&'a self, agent: &'a Agent) -> Answer<'a, ReleasedKey> {
        Box::pin(Engine::release_key(self, agent))
    }

    fn show_key<'a>(&'a self, run: &'a RunId, by: &'a str) -> Answer<'a, ShownKey> {
        Box::pin(Engine::show_key(self, run, by))
    }

    fn destroy_key<'a>(&'a self, run: &'a RunId, by: &'a str) -> Answer<'a, Run> {
        Box::pin(Engine::destroy_key(self, run, by))
    }

    fn told<'a>(&'a self, after: i64, run: Option<&'a RunId>, limit: u32) -> Answer<'a, Vec<Told>> {
        Box::pin(Engine::told(self, after, run, limit))
    }

    fn last_told(&self) -> Answer<'_, i64> {
        Box::pin(Engine::last_told(self))
    }

    fn progress(&self, run: &RunId) -> Option<Progress> {
        Engine::progress(self, run)
    }

    fn fleet(&self, since: u64) -> (u64, Vec<Glance>) {
        Engine::fleet(self, since)
    }

    fn watch(&self, run: Option<&RunId>) -> Box<dyn Changes> {
        Box::new(Engine::watch(self, run))
    }

    fn ready(&self) -> Answer<'_, ()> {
        Box::pin(Engine::ready(self))
    }

    fn tally(&self) -> Tally {
        Engine::tally(self)
    }
}
