//! What a run is and what can happen to it, as pure functions: nothing here waits, asks a clock, draws a random number or touches a
//! disk. Everything that decides is therefore testable, and the same after a restart.

mod moment;
mod record;

pub use moment::Moment;
pub use record::{AttemptRecord, CancelOrder, Ending, IdempotencyKey, Record, State};
