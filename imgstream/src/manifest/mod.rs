//! What an image is: the signed descriptor, the chunk index of each span, the OCI layout that carries them.
//! Nothing here does I/O on images; it turns bytes into checked types and back. `docs/format.md` is the specification.

pub mod boot;
pub mod descriptor;
pub mod index;
pub mod layout;
pub mod partitions;
pub mod policy;
pub mod region;
pub mod strict;

pub use boot::BootFacts;
pub use descriptor::{BlobRef, Descriptor, Span};
pub use index::{ChunkKind, ChunkRow, SpanIndex};
pub use policy::Policy;
pub use region::{Luks, Region};

/// Smallest chunk, in bytes.
pub const MIN_CHUNK_SIZE: u32 = 64 << 10;
/// Largest chunk, in bytes. It bounds every buffer a reader needs.
pub const MAX_CHUNK_SIZE: u32 = 8 << 20;
/// Most chunks in one span; it bounds an index to 5 MiB.
pub const MAX_CHUNKS_PER_SPAN: u64 = 1 << 16;
/// Most spans in an image.
pub const MAX_SPANS: usize = 1 << 14;
/// Largest raw image: what a signed 64-bit file offset can reach on Linux, rounded down to 4 KiB.
pub const MAX_RAW_SIZE: u64 = (i64::MAX as u64) & !4095;
