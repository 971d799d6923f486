//! What a run is and what can happen to it, as pure functions: nothing here waits, asks a clock, draws a random number or touches a
//! disk. Everything that decides is therefore testable, and the same after a restart.

mod decide;
mod moment;
mod paths;
mod record;
mod retry;
pub mod schedule;
mod view;

pub use decide::{Answer, Decision, Effect, Input, Refusal, Rules, created, decide, only_progress, revoked};
pub use moment::Moment;
pub use paths::PathCount;
pub use record::{
    AttemptRecord, CancelOrder, Deed, Ending, IdempotencyKey, KeyRecord, PolicyPin, Record, Sealed, State, target_key,
};
pub use retry::BackOff;
pub use view::{view, waits};
