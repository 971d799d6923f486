//! The one pool of aligned buffers that decoding, writing and reading back share.
//!
//! It is one anonymous mapping cut into equal slots, so that a ring can register it whole. It is the only memory that
//! grows with speed: when no slot is free, whoever needs one waits, and that wait is the data path's backpressure.
#![allow(unsafe_code)] // The one place where raw memory becomes slices.

use std::num::NonZeroUsize;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// Every buffer starts at a multiple of this and has a length that is one. Enough for any device's O_DIRECT.
pub const ALIGNMENT: usize = 4096;

/// A fixed number of equal, aligned buffers.
#[derive(Debug)]
pub struct Pool {
    base: NonNull<u8>,
    buffer_len: usize,
    count: usize,
    free: Mutex<Free>,
    returned: Condvar,
}

#[derive(Debug)]
struct Free {
    slots: Vec<usize>,
    closed: bool,
}

// SAFETY: the mapping is owned by the pool and lives as long as it; each slot is handed to one `Buffer` at a time, which
// the mutex around `Free` guarantees, so no two threads ever reach the same bytes through it.
unsafe impl Send for Pool {}
// SAFETY: as above; shared access touches only the mutex and immutable fields.
unsafe impl Sync for Pool {}

impl Pool {
    /// Maps `count` buffers of at least `buffer_len` bytes each.
    ///
    /// # Errors
    /// When the kernel does not give the memory.
    pub fn new(count: usize, buffer_len: usize) -> std::io::Result<Arc<Self>> {
        let buffer_len = buffer_len.next_multiple_of(ALIGNMENT);
        let len = NonZeroUsize::new(buffer_len.saturating_mul(count)).ok_or(std::io::ErrorKind::InvalidInput)?;
        // SAFETY: a new anonymous private mapping aliases nothing.
        let base =
            unsafe { mmap_anonymous(None, len, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE) }?;
        // SAFETY: advice on a mapping this function made. Without huge pages everything still works, so its answer is moot.
        let _ = unsafe { madvise(base, len.get(), MmapAdvise::MADV_HUGEPAGE) };
        Ok(Arc::new(Pool {
            base: base.cast(),
            buffer_len,
            count,
            free: Mutex::new(Free { slots: (0..count).rev().collect(), closed: false }),
            returned: Condvar::new(),
        }))
    }

    /// Waits for a free buffer; `None` once the pool is closed.
    pub fn acquire(self: &Arc<Self>) -> Option<Buffer> {
        let mut free = self.lock();
        loop {
            if free.closed {
                return None;
            }
            if let Some(slot) = free.slots.pop() {
                return Some(Buffer { pool: Arc::clone(self), slot });
            }
            free = self.returned.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Wakes and turns away everybody who waits, now and later. Buffers in use stay valid.
    pub fn close(&self) {
        self.lock().closed = true;
        self.returned.notify_all();
    }

    /// Bytes per buffer.
    pub fn buffer_len(&self) -> usize {
        self.buffer_len
    }

    /// Number of buffers.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The whole mapping, for registering it with a ring.
    pub(crate) fn as_iovec(&self) -> libc::iovec {
        libc::iovec { iov_base: self.base.as_ptr().cast(), iov_len: self.buffer_len * self.count }
    }

    // A panic while the list of slots is held cannot leave it half changed, so a poisoned lock is used as it is.
    fn lock(&self) -> std::sync::MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // SAFETY: every `Buffer` holds an `Arc` of the pool, so none is left; the length is that of the mapping.
        let _ = unsafe { munmap(self.base.cast(), self.buffer_len * self.count) };
    }
}

/// One buffer of a [`Pool`], exclusively owned. Dropping it gives it back.
#[derive(Debug)]
pub struct Buffer {
    pool: Arc<Pool>,
    slot: usize,
}

impl Buffer {
    fn start(&self) -> NonNull<u8> {
        // SAFETY: `slot < count`, so the offset stays inside the mapping.
        unsafe { self.pool.base.add(self.slot * self.pool.buffer_len) }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the slot's bytes are mapped, initialised (zero pages) and owned by this buffer alone.
        unsafe { std::slice::from_raw_parts(self.start().as_ptr(), self.pool.buffer_len) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as for `deref`, and `&mut self` is the only way to them.
        unsafe { std::slice::from_raw_parts_mut(self.start().as_ptr(), self.pool.buffer_len) }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.pool.lock().slots.push(self.slot);
        self.pool.returned.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_disjoint_and_come_back() {
        let pool = Pool::new(3, 5000).unwrap();
        let mut held: Vec<Buffer> = (0..3).map(|_| pool.acquire().unwrap()).collect();
        for (number, buffer) in held.iter_mut().enumerate() {
            assert_eq!(buffer.as_ptr() as usize % ALIGNMENT, 0);
            assert_eq!(buffer.len(), 8192);
            buffer.fill(number as u8);
        }
        for (number, buffer) in held.iter().enumerate() {
            assert!(buffer.iter().all(|byte| *byte == number as u8));
        }
        let waiting = std::thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.acquire().is_some()
        });
        held.pop();
        assert!(waiting.join().unwrap());
    }

    #[test]
    fn closing_turns_waiters_away() {
        let pool = Pool::new(1, 4096).unwrap();
        let held = pool.acquire().unwrap();
        let waiting = std::thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.acquire().is_none()
        });
        pool.close();
        assert!(waiting.join().unwrap());
        assert!(held.iter().all(|byte| *byte == 0));
    }
}
