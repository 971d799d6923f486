//! Signed images as chunked, verified zstd streams, from any OCI layout, static server or registry to a block device.
//!
//! The folder reads like the data's way:
//!
//! | room | what happens |
//! |---|---|
//! | [`manifest`] | what an image is: descriptor, chunk index, OCI layout, policy |
//! | [`pack`] | raw image → signed, chunked image |
//! | [`source`] | where blobs come from |
//! | [`open`], [`plan`] | sources → a trusted descriptor → chunks to fetch |
//! | [`fetch`] | what to ask for next |
//! | [`decode`] | untrusted frame → [`decode::VerifiedChunk`] |
//! | [`sink`] | verified chunks → device |
//! | [`pipeline`] | joins them; [`readback`] proves what is on the media |
//!
//! [`mod@bench`] measures it. [`buffer`] is the aligned pool they share, [`progress`] counts, [`watchdog`] notices when nothing moves, [`error`] has the eight kinds of error.
//! The library draws nothing but the benchmark's page, reads no arguments and knows nothing of servers; the command `imgstream`
//! does the rest of the drawing and the reading.

pub mod abort;
pub mod bench;
pub mod buffer;
pub mod decode;
pub mod digest;
pub mod error;
pub mod fetch;
pub mod gpt;
mod little_endian;
pub mod manifest;
pub mod open;
pub mod pack;
pub mod pipeline;
pub mod plan;
pub mod progress;
pub mod readback;
pub mod serve;
pub mod sink;
pub mod size;
pub mod source;
pub mod verify;
pub mod watchdog;
mod zeros;
