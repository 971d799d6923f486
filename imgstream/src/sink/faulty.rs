//! An engine with faults, for tests: devices that fail, dawdle, forget or lie. What is not faulty is done by a real
//! engine underneath.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::device::Device;
use super::engine::{self, Engine, EngineKind, OnOutcome, Parts, Payload, Refused, Started, Write, ZeroBuffer};
use crate::buffer::{ALIGNMENT, Pool};

/// What happens to one write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing bad.
    None,
    /// It is answered with this errno; the media stay as they are.
    Errno(i32),
    /// Only so many bytes are taken, rounded down to whole blocks on the media.
    Short(usize),
    /// The device says that it took more than it was given.
    Long,
    /// It is acknowledged and forgotten.
    Dropped,
    /// It lands at this offset instead.
    Misplaced(u64),
    /// It lands where it should, and a while later at this offset as well.
    AlsoAt(u64),
    /// Zeros are written in its place.
    Foreign,
    /// It completes after those that were submitted later.
    Late,
    /// The engine loses it: no outcome is ever told.
    Lost,
    /// It is kept for ever, or until the engine is released.
    Hangs,
}

/// What happens to a flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FlushFault {
    None,
    Fails,
    /// The cache loses everything since the flush before: the device lost its power and came back.
    PowerCut,
}

/// What a device does: asked for every write with its number, offset and length, and for every flush with its number.
pub(crate) trait Script: Send {
    fn write(&mut self, number: usize, write: &Write) -> Fault;

    fn flush(&mut self, _number: usize) -> FlushFault {
        FlushFault::None
    }
}

impl<F: FnMut(usize, &Write) -> Fault + Send> Script for F {
    fn write(&mut self, number: usize, write: &Write) -> Fault {
        self(number, write)
    }
}

/// What reached a device's cache or was made durable, in order.
#[derive(Debug, Clone)]
pub(crate) enum Logged {
    Write { device: usize, offset: u64, bytes: Vec<u8>, before: Vec<u8> },
    Flush { device: usize },
}

/// The part of a faulty engine that a test holds on to.
#[derive(Clone)]
pub(crate) struct Bench(Arc<Shared>);

struct Shared(Mutex<State>);

struct State {
    script: Box<dyn Script>,
    writes: usize,
    flushes: usize,
    log: Vec<Logged>,
    hanging: Vec<Write>,
}

impl Bench {
    /// Devices, whose bytes lie in files, that behave as `script` says.
    pub(crate) fn new(script: impl Script + 'static) -> Self {
        let state = State { script: Box::new(script), writes: 0, flushes: 0, log: Vec::new(), hanging: Vec::new() };
        Bench(Arc::new(Shared(Mutex::new(state))))
    }

    /// What a writer is started with.
    pub(crate) fn start(&self) -> impl Fn(Parts) -> io::Result<Started> + Send + Sync + use<> {
        let shared = Arc::clone(&self.0);
        move |parts| {
            let spare = Pool::new(1, parts.pool.buffer_len())?.acquire().ok_or(io::ErrorKind::Other)?;
            let (on_outcome, devices) = (Arc::clone(&parts.on_outcome), Arc::clone(&parts.devices));
            let (inner, note) = engine::start(parts)?;
            let zeros = Arc::new(ZeroBuffer::new(spare));
            Ok((Arc::new(Faulty { inner, shared: Arc::clone(&shared), on_outcome, devices, zeros }), note))
        }
    }

    /// How many writes and flushes came.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.0.0.lock().unwrap();
        (state.writes, state.flushes)
    }

    /// What came, in order.
    pub(crate) fn log(&self) -> Vec<Logged> {
        self.0.0.lock().unwrap().log.clone()
    }

    /// Drops what hangs.
    pub(crate) fn release(&self) {
        drop(std::mem::take(&mut self.0.0.lock().unwrap().hanging));
    }
}

/// Writes to a device in the way its engine does: where writes past the page cache meet one that goes through it, the kernel reports
/// an error of the device.
fn put_back(device: &Device, bytes: &[u8], offset: u64) {
    let mut aligned = vec![0; bytes.len() + ALIGNMENT];
    let start = aligned.as_ptr().align_offset(ALIGNMENT);
    aligned[start..start + bytes.len()].copy_from_slice(bytes);
    device.file().write_all_at(&aligned[start..start + bytes.len()], offset).unwrap();
}

struct Faulty {
    inner: Arc<dyn Engine>,
    shared: Arc<Shared>,
    on_outcome: OnOutcome,
    devices: Arc<[Device]>,
    zeros: Arc<ZeroBuffer>,
}

impl Faulty {
    /// Writes `bytes` to the media behind the engine's back, as a device that does something else than it says.
    fn poke(&self, device: usize, bytes: &[u8], offset: u64) {
        self.devices[device].file().write_all_at(bytes, offset).unwrap();
    }
}

impl Engine for Faulty {
    fn kind(&self) -> EngineKind {
        self.inner.kind()
    }

    fn submit(&self, write: Write) -> Result<(), Refused> {
        let mut next = Some(write);
        while let Some(write) = next {
            next = self.step(write)?;
        }
        Ok(())
    }

    fn flush(&self, device: &Device) -> crate::error::Result<()> {
        let this = self.devices.iter().position(|other| std::ptr::eq(other, device)).unwrap();
        let mut state = self.shared.0.lock().unwrap();
        let number = state.flushes;
        state.flushes += 1;
        match state.script.flush(number) {
            FlushFault::None => device.flush()?,
            FlushFault::Fails => return Err(crate::error::Error::device("flushing: Input/output error")),
            FlushFault::PowerCut => {
                for logged in state.log.iter().rev() {
                    match logged {
                        Logged::Flush { device: of } if *of == this => break,
                        Logged::Write { device: of, offset, before, .. } if *of == this => {
                            put_back(device, before, *offset);
                        }
                        _ => {}
                    }
                }
                device.flush()?;
            }
        }
        state.log.push(Logged::Flush { device: this });
        Ok(())
    }
}

impl Faulty {
    /// What happens to one write; hands back what is to be written next in its place.
    fn step(&self, write: Write) -> Result<Option<Write>, Refused> {
        let fault = {
            let mut state = self.shared.0.lock().unwrap();
            let mut before = vec![0; write.len];
            let media = File::open(self.devices[write.device].name()).unwrap();
            let _ = media.read_at(&mut before, write.offset).unwrap();
            let (device, offset, bytes) = (write.device, write.offset, write.bytes().to_vec());
            state.log.push(Logged::Write { device, offset, bytes, before });
            let number = state.writes;
            state.writes += 1;
            state.script.write(number, &write)
        };
        let (device, len, offset) = (write.device, write.len, write.offset);
        match fault {
            Fault::None => self.inner.submit(write)?,
            Fault::Errno(errno) => return Ok((self.on_outcome)(write, Err(io::Error::from_raw_os_error(errno)))),
            Fault::Short(taken) => {
                let taken = taken.min(len - 1);
                let whole = taken - taken % self.devices[device].alignment();
                self.poke(device, &write.bytes()[..whole], offset);
                return Ok((self.on_outcome)(write, Ok(taken)));
            }
            Fault::Long => return Ok((self.on_outcome)(write, Ok(len + 1))),
            Fault::Dropped => return Ok((self.on_outcome)(write, Ok(len))),
            Fault::Misplaced(elsewhere) => {
                self.poke(device, write.bytes(), elsewhere);
                return Ok((self.on_outcome)(write, Ok(len)));
            }
            Fault::AlsoAt(elsewhere) => {
                let (media, bytes) = (self.devices[device].name(), write.bytes().to_vec());
                let inner = Arc::clone(&self.inner);
                std::thread::spawn(move || {
                    // By now the chunk there has been proven, if it is one of those that are proven early.
                    std::thread::sleep(Duration::from_millis(100));
                    File::options().write(true).open(media).unwrap().write_all_at(&bytes, elsewhere).unwrap();
                    let _ = inner.submit(write);
                });
            }
            Fault::Foreign => {
                let Write { payload, from, .. } = write;
                let zeros = Payload::Zeros(Arc::clone(&self.zeros));
                let foreign = Write { payload: zeros, from: 0, ..write };
                self.poke(device, foreign.bytes(), offset);
                return Ok((self.on_outcome)(Write { payload, from, ..foreign }, Ok(len)));
            }
            Fault::Late => {
                let inner = Arc::clone(&self.inner);
                std::thread::spawn(move || {
                    std::thread::sleep(Duration::from_millis(5));
                    // Dropped where it is refused, which counts as a failure.
                    let _ = inner.submit(write);
                });
            }
            Fault::Lost => drop(write),
            Fault::Hangs => self.shared.0.lock().unwrap().hanging.push(write),
        }
        Ok(None)
    }
}
