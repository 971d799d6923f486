//! What to ask for next, and asking for it: a shared board of requests, and lanes that work it off, several per source.
//!
//! A request is a run of adjacent chunks, so that round trips do not bound throughput; a chunk is handed on as soon as it
//! is complete. Lanes take the next request when they have done the last, so a fast source gets more of them. What
//! fails goes back to the board, and its source is left alone for a while; the last requests are made a second time
//! where a source is idle; and whichever copy of a chunk is verified first is the one that is written.
//!
//! | file | what is decided there |
//! |---|---|
//! | `work` | what is wanted, and that each chunk is written once |
//! | `board` | who fetches what next, and what a failure or wrong bytes come to |
//! | `health` | when a source is left and when it is back |
//! | `patience` | for how long |
//! | `queue`, `lane` | the waiting and the fetching |
//! | `memory` | how many frames there may be at once |

mod board;
mod health;
mod lane;
mod memory;
mod patience;
mod queue;
mod work;

pub(crate) use health::said_by;
pub use lane::Lanes;
pub use memory::{FrameBuffers, budget, connections};
pub(crate) use patience::LONGEST_RETRY_AFTER;
pub use patience::Patience;
pub use queue::{Queue, Share};
pub use work::{Claim, Frame, Request, SpanWork};
