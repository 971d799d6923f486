//! IPsec: what protects the way from the sources.

pub mod demand;
pub mod flow;
mod host;
pub mod kernel;
