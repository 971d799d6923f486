//! The store on both engines, as they are: SQLite's file on a real disk, and a real PostgreSQL.
// Tests fail by panicking, also in their helpers.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bed;
mod concurrency;
mod contents;
mod crashes;
mod doubt;
mod elsewhere;
mod full;
mod measure;
mod prune;
mod sample;
mod strangers;
mod upkeep;
mod versions;

/// The same test on both engines.
macro_rules! on_both {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            $(#[test] fn $name() { $crate::bed::Bed::sqlite().run(super::$name); })*
        }
        mod postgres {
            $(#[test] fn $name() { $crate::bed::Bed::postgres().run(super::$name); })*
        }
    };
}
pub(crate) use on_both;
