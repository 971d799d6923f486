//! The engine that writes nothing: every write is done at once. It is what a benchmark measures the rest of the data path
//! with. No command line and no run can choose it; whoever wants it has to start it by name.

use std::io;
use std::sync::Arc;

use super::device::Device;
use super::engine::{Engine, EngineKind, OnOutcome, Parts, Refused, Started, Write};

struct Null {
    on_outcome: OnOutcome,
}

/// Makes it.
///
/// # Errors
/// Never: the signature is that of every engine's start.
pub(crate) fn start(parts: Parts) -> io::Result<Started> {
    Ok((Arc::new(Null { on_outcome: parts.on_outcome }), None))
}

impl Engine for Null {
    fn kind(&self) -> EngineKind {
        EngineKind::Null
    }

    fn submit(&self, write: Write) -> Result<(), Refused> {
        let len = write.len;
        // All of it was taken, so that no rest can come back.
        let _none = (self.on_outcome)(write, Ok(len));
        Ok(())
    }

    fn flush(&self, _: &Device) -> crate::error::Result<()> {
        Ok(())
    }
}
