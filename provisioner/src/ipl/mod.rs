//! How the written disk is started: what firmware finds on it ([`record`]), and what is told to firmware so that the next
//! IPL takes this disk ([`reipl`], by a path that [`alive`] has proven).

pub mod alive;
pub mod record;
pub mod reipl;
