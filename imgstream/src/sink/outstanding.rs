//! What a device has been asked and has not answered yet, so that whoever waits for it can say what for.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What a device is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Store bytes.
    Write,
    /// Make a range read as zeros.
    Zero,
    /// Write back its cache.
    Flush,
    /// Say what it holds.
    Read,
}

impl Operation {
    /// The stage of the data path in which this is asked.
    pub fn stage(self) -> &'static str {
        match self {
            Operation::Write => "write",
            Operation::Zero => "zeroing",
            Operation::Flush => "flush",
            Operation::Read => "reading back",
        }
    }
}

/// One thing asked.
#[derive(Debug, Clone, Copy)]
struct Asked {
    number: u64,
    operation: Operation,
    offset: u64,
    len: u64,
    since: Instant,
}

/// Everything one device has not answered yet.
#[derive(Debug, Default)]
pub struct Outstanding(Mutex<Table>);

#[derive(Debug, Default)]
struct Table {
    /// In the order they were asked.
    open: Vec<Asked>,
    next: u64,
    answered: u64,
}

/// The oldest thing a device has not answered, and how many of its kind there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unanswered {
    /// The device.
    pub device: String,
    /// What it was asked.
    pub operation: Operation,
    /// How many such are open.
    pub count: usize,
    /// Where the oldest one starts.
    pub offset: u64,
    /// Its length; 0 for what concerns the whole device.
    pub len: u64,
    /// For how long it has been open.
    pub age: Duration,
}

impl fmt::Display for Unanswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Unanswered { device, count, offset, len, .. } = self;
        let age = self.age.as_secs();
        let what = match self.operation {
            Operation::Write => "writes to",
            Operation::Zero => "ranges to be zeroed on",
            Operation::Read => "reads from",
            Operation::Flush => return write!(f, "{device} has not come back from a flush begun {age} s ago"),
        };
        write!(
            f,
            "{count} {what} {device} have not come back; the oldest, {len} bytes at offset {offset}, was begun {age} s ago"
        )
    }
}

/// Something asked by a call that returns when it is answered.
#[derive(Debug)]
pub struct Waiting<'a>(&'a Outstanding, u64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.answered(self.1);
    }
}

impl Outstanding {
    /// Notes that something is asked; returns the number to give to [`Outstanding::answered`].
    pub fn asked(&self, operation: Operation, offset: u64, len: u64) -> u64 {
        let mut table = self.lock();
        let number = table.next;
        table.next += 1;
        table.open.push(Asked { number, operation, offset, len, since: Instant::now() });
        number
    }

    /// Notes that it was answered, well or badly.
    pub fn answered(&self, number: u64) {
        let mut table = self.lock();
        if let Some(at) = table.open.iter().position(|asked| asked.number == number) {
            table.open.remove(at);
            table.answered += 1;
        }
    }

    /// Notes that something is asked, until the returned value is dropped.
    pub fn during(&self, operation: Operation, offset: u64, len: u64) -> Waiting<'_> {
        Waiting(self, self.asked(operation, offset, len))
    }

    /// How much was answered so far: while this grows, the device is alive.
    pub fn count_answered(&self) -> u64 {
        self.lock().answered
    }

    /// The oldest open question to `device`, as this is called in messages.
    pub fn oldest(&self, device: &str) -> Option<Unanswered> {
        let table = self.lock();
        let oldest = table.open.first()?;
        Some(Unanswered {
            device: device.to_owned(),
            operation: oldest.operation,
            count: table.open.iter().filter(|asked| asked.operation == oldest.operation).count(),
            offset: oldest.offset,
            len: oldest.len,
            age: oldest.since.elapsed(),
        })
    }

    // The table is changed in whole steps, so a poisoned lock is used as it is.
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_unanswered_is_named_and_counted() {
        let outstanding = Outstanding::default();
        assert_eq!(outstanding.oldest("d"), None);
        let first = outstanding.asked(Operation::Write, 4096, 512);
        let flush = outstanding.during(Operation::Flush, 0, 0);
        outstanding.asked(Operation::Write, 8192, 512);
        let oldest = outstanding.oldest("d").unwrap();
        assert_eq!((oldest.operation, oldest.count, oldest.offset), (Operation::Write, 2, 4096));
        assert!(
            oldest.to_string().starts_with("2 writes to d have not come back; the oldest, 512 bytes at offset 4096")
        );
        outstanding.answered(first);
        outstanding.answered(first);
        assert_eq!(outstanding.count_answered(), 1, "an answer counts once");
        assert!(outstanding.oldest("d").unwrap().to_string().starts_with("d has not come back from a flush"));
        drop(flush);
        assert_eq!(outstanding.oldest("d").unwrap().offset, 8192);
    }
}
