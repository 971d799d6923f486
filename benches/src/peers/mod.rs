//! The peers, each with the best settings we found for it here, and what those are.
//!
//! A peer gets the image in the form that suits it best, made once and cached. Each ends in a flush: where a program
//! does none, `sync FILE` follows and its time counts.

mod bita;
mod bmap;
mod casync;
mod coreos;
mod nbd;
mod pipe;
mod qemu;

use crate::way::Way;

/// All peers, in the order they are shown.
pub fn all() -> Vec<Box<dyn Way>> {
    vec![
        Box::new(pipe::Pipe { digest: false }),
        Box::new(pipe::Pipe { digest: true }),
        Box::new(qemu::Convert { over_http: false }),
        Box::new(qemu::Convert { over_http: true }),
        Box::new(nbd::Nbdcopy),
        Box::new(bmap::Bmaptool),
        Box::new(bita::Bita),
        Box::new(casync::Casync),
        Box::new(coreos::CoreosInstaller),
    ]
}
