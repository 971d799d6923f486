//! Engines made of threads that call `pwrite`: with O_DIRECT, or through the page cache. Where `io_uring` is forbidden
//! (seccomp) or missing, several blocking writers keep a device busy nearly as well.

use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::device::Device;
use super::engine::{Engine, EngineKind, OnOutcome, Parts, Refused, Write};

/// More threads than this do not help a device further.
const MAX_THREADS: usize = 16;

pub(super) struct Threads {
    kind: EngineKind,
    queue: Option<Sender<Write>>,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    pub(super) fn start(kind: EngineKind, parts: &Parts) -> io::Result<Self> {
        let (queue, writes) = unbounded();
        // The page cache takes one writer's bytes at memory speed; more only fight over the file's lock.
        let count = if kind == EngineKind::Buffered { 1 } else { parts.depth.clamp(1, MAX_THREADS) };
        let threads = (0..count)
            .map(|number| {
                let (writes, devices) = (writes.clone(), Arc::clone(&parts.devices));
                let on_outcome = Arc::clone(&parts.on_outcome);
                std::thread::Builder::new()
                    .name(format!("write-{number}"))
                    .spawn(move || serve(&writes, &devices, &on_outcome))
            })
            .collect::<io::Result<_>>()?;
        Ok(Threads { kind, queue: Some(queue), threads })
    }
}

fn serve(writes: &Receiver<Write>, devices: &[Device], on_outcome: &OnOutcome) {
    for write in writes {
        let mut next = Some(write);
        while let Some(write) = next {
            let outcome = if write.ticket.is_called_off() {
                Err(io::Error::from_raw_os_error(libc::ECANCELED))
            } else {
                devices[write.device].file().write_at(write.bytes(), write.offset)
            };
            next = on_outcome(write, outcome);
        }
    }
}

impl Engine for Threads {
    fn kind(&self) -> EngineKind {
        self.kind
    }

    fn submit(&self, write: Write) -> Result<(), Refused> {
        match &self.queue {
            None => Err(Refused { write, error: io::ErrorKind::BrokenPipe.into() }),
            Some(queue) => queue.send(write).map_err(|refused| Refused {
                write: refused.0,
                error: io::Error::other("the writer threads are gone"),
            }),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.queue = None;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::buffer::Pool;
    use crate::sink::engine::{EngineChoice, Payload, ZeroBuffer};
    use crate::sink::queue::{Depth, Queue};
    use crate::sink::{OpenOptions, Target};

    #[test]
    fn what_waits_in_the_queue_of_a_run_that_is_over_is_not_written() {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        std::fs::write(file.path(), [7; 4096]).unwrap();
        let open = OpenOptions { buffered: true, create: false, raw_size: 4096 };
        let target = Arc::new(Target::single(Device::open(file.path(), open).unwrap(), 4096));
        let (pool, over) = (Pool::new(1, 4096).unwrap(), CancellationToken::new());
        let queue = Queue::new(Arc::clone(&target), Depth { writes: 2, bytes: 8192 }, over.clone().into());
        let told = Arc::new(Mutex::new(Vec::new()));
        let on_outcome: OnOutcome = {
            let told = Arc::clone(&told);
            Arc::new(move |_, outcome| {
                told.lock().unwrap().push(outcome.map_err(|error| error.raw_os_error()));
                None
            })
        };
        let (choice, devices) = (EngineChoice::Auto, Arc::clone(target.devices()));
        let parts = Parts { choice, devices, pool: Arc::clone(&pool), depth: 1, on_outcome };
        let threads = Threads::start(EngineKind::Buffered, &parts).unwrap();
        let zeros = Payload::Zeros(Arc::new(ZeroBuffer::new(pool.acquire().unwrap())));
        let ticket = queue.enter(0, 0, 4096).unwrap();
        over.cancel();
        threads
            .submit(Write { payload: zeros, from: 0, len: 4096, device: 0, offset: 0, interruptions: 0, ticket })
            .unwrap();
        drop(threads);
        assert_eq!(*told.lock().unwrap(), [Err(Some(libc::ECANCELED))]);
        assert_eq!(std::fs::read(file.path()).unwrap(), [7; 4096]);
    }
}
