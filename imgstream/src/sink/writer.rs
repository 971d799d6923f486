//! The writer: takes verified chunks and zeros, cuts them along the target's map, keeps the device's queue full, finishes
//! short writes, and remembers the first error.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tokio_util::sync::CancellationToken;

use super::device::Device;
use super::engine::{
    self, Engine, EngineChoice, EngineKind, OnOutcome, Parts, Payload, Refused, Started, Write, ZeroBuffer,
};
use super::queue::{Depth, Failure, Mark, Queue};
use super::target::{Extent, Place, Target};
use crate::abort::Over;
use crate::buffer::Pool;
use crate::decode::VerifiedChunk;
use crate::error::{Error, IoContext, Kind, Result};
use crate::progress::Progress;

/// How often a device may answer "interrupted" or "try again" to one write before that is an error.
const MAX_INTERRUPTIONS: u32 = 100;

/// Most writes in flight, however short they are: what a ring of bounded size can hold.
const MAX_WRITES: usize = 4096;

/// Writes to a target.
pub struct Writer {
    engine: Arc<dyn Engine>,
    target: Arc<Target>,
    queue: Arc<Queue>,
    zeros: Arc<ZeroBuffer>,
    progress: Arc<Progress>,
    fallback: Option<String>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("engine", &self.engine.kind())
            .field("queue", &self.queue)
            .finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts the chosen engine for `target`, with up to `depth` buffers' worth of writes in flight. Takes one buffer of the pool
    /// for zeros.
    ///
    /// # Errors
    /// When no engine, or not the demanded one, works here.
    pub fn start(
        choice: EngineChoice,
        target: Arc<Target>,
        pool: &Arc<Pool>,
        depth: usize,
        progress: Arc<Progress>,
    ) -> Result<Self> {
        let over = CancellationToken::new().into();
        Self::start_with(&engine::start, choice, target, pool, depth, progress, over)
    }

    /// Has `start` make the engine. Once `over` says so, no write is begun any more.
    ///
    /// # Errors
    /// When no engine, or not the demanded one, works here.
    pub(crate) fn start_with(
        start: &StartEngine,
        choice: EngineChoice,
        target: Arc<Target>,
        pool: &Arc<Pool>,
        depth: usize,
        progress: Arc<Progress>,
        over: Over,
    ) -> Result<Self> {
        let zeros = pool.acquire().ok_or_else(|| Error::cancelled("starting the writer"))?;
        let depth = depth_of(&target, pool.buffer_len(), depth);
        let queue = Queue::new(Arc::clone(&target), depth, over);
        let on_outcome: OnOutcome = {
            let (queue, progress) = (Arc::clone(&queue), Arc::clone(&progress));
            Arc::new(move |write, outcome| settle(&queue, &progress, write, outcome))
        };
        let (devices, pool) = (Arc::clone(target.devices()), Arc::clone(pool));
        let parts = Parts { choice, devices, pool, depth: depth.writes, on_outcome };
        let (engine, fallback) = start(parts)
            .context(Kind::Device, || "starting the write engine".into())
            .map_err(|error| error.with_hint("choose another engine, or leave the choice to `auto`"))?;
        if let Some(fallback) = &fallback {
            tracing::warn!("{fallback}");
        }
        Ok(Writer { engine, target, queue, zeros: Arc::new(ZeroBuffer::new(zeros)), progress, fallback })
    }

    /// The engine that writes.
    pub fn engine(&self) -> EngineKind {
        self.engine.kind()
    }

    /// What the automatic choice of the engine could not have, in words.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// The target.
    pub fn target(&self) -> &Arc<Target> {
        &self.target
    }

    /// Starts writing a chunk; waits while the queue is full.
    ///
    /// # Errors
    /// The first error of any write so far.
    pub fn write(&self, chunk: VerifiedChunk) -> Result<()> {
        let start = chunk.raw_offset();
        self.write_at(&Arc::new(chunk), start)
    }

    /// Starts writing a chunk to the place of the raw offset `start`; waits while the queue is full.
    ///
    /// # Errors
    /// The first error of any write so far; [`Kind::Image`], before anything of it is written, when a byte of the chunk that is not
    /// zero has no place.
    pub(crate) fn write_at(&self, chunk: &Arc<VerifiedChunk>, start: u64) -> Result<()> {
        self.target.check_placeable(start, chunk.bytes())?;
        let end = start + chunk.bytes().len() as u64;
        self.target.map(start..end).try_for_each(|piece| self.write_piece(chunk, start, piece))
    }

    /// Writes a chunk whose first byte, once it is there, may make the target boot: its first piece only when all the others are
    /// durable, since they may lie on other devices, whose order is their own.
    ///
    /// # Errors
    /// As [`Writer::write`], and those of a flush.
    pub(crate) fn write_in_order(&self, chunk: VerifiedChunk) -> Result<()> {
        let (start, chunk) = (chunk.raw_offset(), Arc::new(chunk));
        self.target.check_placeable(start, chunk.bytes())?;
        let pieces: Vec<Extent> = self.target.map(start..start + chunk.bytes().len() as u64).collect();
        let Some((first, others)) = pieces.split_first() else { return Ok(()) };
        for together in [others, std::slice::from_ref(first)].into_iter().filter(|together| !together.is_empty()) {
            together.iter().try_for_each(|piece| self.write_piece(&chunk, start, *piece))?;
            self.flush()?;
        }
        Ok(())
    }

    /// Starts writing the part of the chunk at `start` that belongs to an extent.
    fn write_piece(&self, chunk: &Arc<VerifiedChunk>, start: u64, piece: Extent) -> Result<()> {
        match piece.place {
            Place::Device { device, offset, .. } => {
                let from = (piece.raw_offset - start) as usize;
                self.submit(&Payload::Chunk(Arc::clone(chunk)), from, piece.len, device, offset)
            }
            Place::Nowhere => {
                self.progress.written.fetch_add(piece.len, Relaxed);
                Ok(())
            }
        }
    }

    /// Starts writing zeros to `len` bytes at `offset` of a device; waits while the queue is full.
    ///
    /// # Errors
    /// The first error of any write so far.
    pub(super) fn write_zeros(&self, device: usize, offset: u64, len: u64) -> Result<()> {
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(self.zeros.len() as u64);
            self.submit(&Payload::Zeros(Arc::clone(&self.zeros)), 0, piece, device, offset + done)?;
            done += piece;
        }
        Ok(())
    }

    /// Waits until nothing is in flight.
    ///
    /// # Errors
    /// The first error of any write so far.
    pub fn drain(&self) -> Result<()> {
        self.queue.idle()
    }

    /// Waits until nothing is in flight. A thread that has submitted writes calls this before it ends: the kernel cancels
    /// what an ended thread's io_uring workers have not finished.
    pub fn settle(&self) {
        let _ = self.queue.idle();
    }

    /// Waits until nothing is in flight, then makes every device write back its cache.
    ///
    /// # Errors
    /// The first error of any write so far, or of the flush.
    pub fn flush(&self) -> Result<()> {
        self.drain()?;
        self.flush_devices()
    }

    /// This moment: what has been started by now.
    pub fn mark(&self) -> Mark {
        self.queue.mark()
    }

    /// Waits until what had been started at `mark` has landed, then makes every device write back its cache. What was
    /// started later goes on meanwhile.
    ///
    /// # Errors
    /// The first error of any write so far, or of the flush.
    pub fn flush_up_to(&self, mark: Mark) -> Result<()> {
        self.queue.passed(mark)?;
        self.flush_devices()
    }

    fn flush_devices(&self) -> Result<()> {
        self.target.devices().iter().try_for_each(|device| self.engine.flush(device))
    }

    /// Starts no more writes: whoever waits for one, now or later, gets an error instead.
    pub fn give_up(&self) {
        self.queue.give_up();
    }

    /// Whether it was given up.
    pub fn is_given_up(&self) -> bool {
        self.queue.is_given_up()
    }

    /// Starts writing `len` bytes of the payload, from `from` on, in pieces that the device takes.
    fn submit(&self, payload: &Payload, from: usize, len: u64, device: usize, offset: u64) -> Result<()> {
        let to = &self.target.devices()[device];
        let len = (len as usize).next_multiple_of(to.alignment());
        let most = to.largest_write().unwrap_or(len);
        let mut done = 0;
        while done < len {
            let step = (len - done).min(most);
            self.submit_one(payload.clone(), from + done, step, device, offset + done as u64)?;
            done += step;
        }
        Ok(())
    }

    fn submit_one(&self, payload: Payload, from: usize, len: usize, device: usize, offset: u64) -> Result<()> {
        let ticket = self.queue.enter(device, offset, len)?;
        let write = Write { payload, from, len, device, offset, interruptions: 0, ticket };
        self.engine.submit(write).map_err(|Refused { mut write, error }| {
            let failure = self.queue.failure(device, offset, len, &error);
            write.ticket.ends(Err(failure.clone()));
            failure.error()
        })
    }
}

/// What may be in flight: `depth` buffers' worth, in as many writes as that makes on a device that takes only short ones, or where
/// a border of extents cuts chunks in two.
fn depth_of(target: &Target, buffer_len: usize, depth: usize) -> Depth {
    let shortest = target.devices().iter().filter_map(Device::largest_write).min().unwrap_or(buffer_len);
    let per_chunk = buffer_len.div_ceil(shortest) * if target.has_borders() { 2 } else { 1 };
    Depth { writes: (depth * per_chunk).min(MAX_WRITES.max(depth)), bytes: depth * buffer_len }
}

impl Drop for Writer {
    /// An engine waits for its writes before it ends. Writes that are in flight now may be so for ever, so their engine is
    /// left alone: it owns what the kernel may still read.
    fn drop(&mut self) {
        if !self.queue.is_idle() {
            std::mem::forget(Arc::clone(&self.engine));
        }
    }
}

/// Makes an engine, perhaps one with faults.
pub(crate) type StartEngine = dyn Fn(Parts) -> io::Result<Started> + Send + Sync;

/// What an outcome means: done, the rest to be written, or an error.
fn settle(queue: &Queue, progress: &Progress, mut write: Write, outcome: io::Result<usize>) -> Option<Write> {
    let error = match outcome {
        Ok(0) => io::ErrorKind::WriteZero.into(),
        Ok(written) if written == write.len => {
            count(progress, &write, written);
            write.ticket.ends(Ok(()));
            return None;
        }
        Ok(written) if written < write.len => {
            // O_DIRECT takes only whole blocks, so one that was written in part is written again.
            let whole = written - written % queue.alignment(write.device);
            count(progress, &write, whole);
            write.from += whole;
            write.len -= whole;
            write.offset += whole as u64;
            if whole > 0 || write.interruptions < MAX_INTERRUPTIONS {
                write.interruptions += u32::from(whole == 0);
                return again(queue, write);
            }
            io::Error::other(format!("the device takes no whole block, only {written} bytes"))
        }
        Ok(written) => io::Error::other(format!("the device says that it took {written}")),
        Err(error) if is_passing(&error) && write.interruptions < MAX_INTERRUPTIONS => {
            write.interruptions += 1;
            return again(queue, write);
        }
        Err(error) => error,
    };
    write.ticket.ends(Err(queue.failure(write.device, write.offset, write.len, &error)));
    None
}

/// What is left of a write is begun again, unless the run is over.
fn again(queue: &Queue, mut write: Write) -> Option<Write> {
    if queue.is_over() {
        write.ticket.ends(Err(Failure::CalledOff));
        return None;
    }
    Some(write)
}

fn count(progress: &Progress, write: &Write, written: usize) {
    if let Payload::Chunk(_) = write.payload {
        progress.written.fetch_add(written as u64, Relaxed);
    }
}

/// ECANCELED is what io_uring says when the thread that had submitted the write is gone.
fn is_passing(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN | libc::ECANCELED))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::sink::OpenOptions;

    const BUFFER: usize = 1 << 20;
    const DEPTH: usize = 4;

    /// A device that is asked and does not answer until it is told to.
    #[derive(Default)]
    struct Slow(Mutex<Vec<Write>>);

    impl Engine for Arc<Slow> {
        fn kind(&self) -> EngineKind {
            EngineKind::Null
        }

        fn submit(&self, write: Write) -> Result<(), Refused> {
            self.0.lock().unwrap().push(write);
            Ok(())
        }
    }

    /// Starts to write twice the depth's worth of zeros; the lengths of the writes in flight when nothing more fits, and of all.
    fn in_flight(largest: Option<usize>) -> (Vec<usize>, Vec<usize>) {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        let raw_size = (2 * DEPTH * BUFFER) as u64;
        file.as_file().set_len(raw_size).unwrap();
        let device = Device::open(file.path(), OpenOptions { buffered: false, create: false, raw_size }).unwrap();
        let device = largest.into_iter().fold(device, Device::with_largest_write);
        let (slow, pool) = (Arc::<Slow>::default(), Pool::new(1, BUFFER).unwrap());
        let engine = Arc::clone(&slow);
        let start = move |parts: Parts| {
            assert_eq!(parts.depth, DEPTH * largest.map_or(1, |largest| BUFFER / largest), "what a ring is made for");
            Ok((Arc::new(Arc::clone(&engine)) as Arc<dyn Engine>, None))
        };
        let (target, over) = (Arc::new(Target::single(device, raw_size)), CancellationToken::new().into());
        let writer =
            Writer::start_with(&start, EngineChoice::Auto, target, &pool, DEPTH, Arc::default(), over).unwrap();
        let lens = |writes: &[Write]| writes.iter().map(|write| write.len).collect::<Vec<_>>();
        std::thread::scope(|scope| {
            let writing = scope.spawn(|| writer.write_zeros(0, 0, raw_size));
            std::thread::sleep(std::time::Duration::from_millis(200));
            let waiting = lens(&slow.0.lock().unwrap());
            let mut all = Vec::new();
            while !writing.is_finished() || !writer.queue.is_idle() {
                let landed = std::mem::take(&mut *slow.0.lock().unwrap());
                all.extend(lens(&landed));
                landed.into_iter().for_each(|mut write| write.ticket.ends(Ok(())));
                std::thread::yield_now();
            }
            writing.join().unwrap().unwrap();
            (waiting, all)
        })
    }

    #[test]
    fn shorter_writes_are_as_many_bytes_in_flight() {
        assert_eq!(in_flight(None), (vec![BUFFER; DEPTH], vec![BUFFER; 2 * DEPTH]));
        let short = 128 << 10;
        assert_eq!(in_flight(Some(short)), (vec![short; 8 * DEPTH], vec![short; 16 * DEPTH]));
    }

    #[test]
    fn a_ring_stays_of_bounded_size() {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        let open = OpenOptions { buffered: true, create: false, raw_size: 0 };
        let device = Device::open(file.path(), open).unwrap().with_largest_write(4096);
        let target = Target::single(device, 0);
        assert_eq!(depth_of(&target, 8 << 20, 16).writes, MAX_WRITES);
        assert_eq!(depth_of(&target, 4096, 9999).writes, 9999, "what was asked for is never less");
    }

    #[test]
    fn a_chunk_that_is_cut_in_two_still_counts_as_one() {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        file.as_file().set_len(2 << 20).unwrap();
        let device = || Device::open(file.path(), OpenOptions { buffered: true, create: false, raw_size: 0 }).unwrap();
        let writes = |extents| depth_of(&Target::in_pieces(device(), 2 << 20, extents), 1 << 20, 16).writes;
        assert_eq!((writes(1), writes(2), writes(300)), (16, 32, 32));
    }
}
