//! Processes and their sessions, as `/proc` shows them. A number is given away again only when no process, no group and no session has
//! it any more, so a session's members are those of its leader, also when that has ended.

use std::io;

use nix::errno::Errno;

/// A process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Process {
    /// When it was started, in clock ticks since the boot.
    pub(super) started: u64,
    session: i32,
    /// It has ended, and all its threads have.
    is_over: bool,
}

/// A process; nothing where there is none of this number.
///
/// # Errors
/// When `/proc` does not say.
pub(super) fn process(pid: i32) -> io::Result<Option<Process>> {
    let Some(stat) = there(std::fs::read_to_string(format!("/proc/{pid}/stat")))? else { return Ok(None) };
    let odd = || io::Error::new(io::ErrorKind::InvalidData, format!("/proc/{pid}/stat: {stat:?}"));
    // The second field is in parentheses and may hold anything; the third is the first after it.
    let fields: Vec<&str> = stat.rsplit_once(')').ok_or_else(odd)?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).copied().ok_or_else(odd);
    let number = |number: usize| field(number)?.parse::<u64>().map_err(|_| odd());
    let session = field(6)?.parse().map_err(|_| odd())?;
    // A process whose first thread has ended is a zombie, however many others work.
    let is_over = matches!(field(3)?, "Z" | "X") && number(20)? <= 1;
    Ok(Some(Process { started: number(22)?, session, is_over }))
}

/// Whether the process that was started then, or anything in its session, is there.
///
/// # Errors
/// When `/proc` does not say.
pub(super) fn lives(pid: i32, started: u64) -> io::Result<bool> {
    match process(pid)? {
        Some(process) if process.started == started && !process.is_over => Ok(true),
        Some(process) if process.started != started => Ok(false),
        _ => Ok(!members(pid)?.is_empty()),
    }
}

/// Who is in a session and has not ended.
///
/// # Errors
/// When `/proc` does not say.
pub(super) fn members(session: i32) -> io::Result<Vec<i32>> {
    let mut members = Vec::new();
    for entry in std::fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if process(pid)?.is_some_and(|process| process.session == session && !process.is_over) {
            members.push(pid);
        }
    }
    Ok(members)
}

/// What is there; nothing where the process has gone. Anything else is an error: that something cannot be seen is no death.
fn there<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(Errno::ESRCH as i32) => Ok(None),
        Err(error) => Err(error),
    }
}
