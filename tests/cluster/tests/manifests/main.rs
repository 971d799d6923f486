//! `containers/kubernetes`, given to a real API server, and what its documentation says of it.
#![allow(clippy::unwrap_used, clippy::expect_used)] // tests

mod install;
mod rights;
mod site;
