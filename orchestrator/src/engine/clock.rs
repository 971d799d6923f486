//! The service's time: the wall clock at the start, and from then on a clock that never jumps. It never stands before anything that is
//! stored. So a wall clock that is set, by an hour or a year, ends no deadline and no pause.

use tokio::time::Instant;

use crate::model::Moment;

/// A steady clock.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    base: Moment,
    since: Instant,
}

impl Clock {
    /// Starts now, and not before `stored`.
    pub fn start(stored: Moment) -> Self {
        Clock { base: Moment::of_wall_clock().max(stored), since: Instant::now() }
    }

    /// The time.
    pub fn now(&self) -> Moment {
        self.base.after(self.since.elapsed())
    }
}
