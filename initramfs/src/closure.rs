//! Which files a program needs to run: its loader and its libraries, and theirs, as its ELF headers name them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Where Debian's loaders look, and where programs keep libraries of their own. A root folder is of one architecture.
const LIBRARIES: [&str; 6] = [
    "usr/lib/s390x-linux-gnu",
    "usr/lib/x86_64-linux-gnu",
    "usr/lib",
    "usr/lib/s390x-linux-gnu/systemd",
    "usr/lib/x86_64-linux-gnu/systemd",
    "usr/lib/ipsec",
];

/// The wanted files of a root folder and all they need: path in the guest, file here.
///
/// # Errors
/// When one is missing or has headers that make no sense.
pub fn of(root: &Path, wanted: Vec<String>) -> io::Result<BTreeMap<String, PathBuf>> {
    let mut found = BTreeMap::new();
    let mut waiting = wanted;
    while let Some(path) = waiting.pop() {
        if found.contains_key(&path) {
            continue;
        }
        let source = followed(root, &path)?;
        waiting.extend(needed(root, &source)?);
        found.insert(path, source);
    }
    Ok(found)
}

/// What one program, which may come from elsewhere, needs of a root folder's files: its loader and its libraries, without theirs.
///
/// # Errors
/// When one is missing there, or the program has headers that make no sense.
pub fn needed(root: &Path, program: &Path) -> io::Result<Vec<String>> {
    let shown = program.strip_prefix(root).unwrap_or(program).display();
    let content = std::fs::read(program)
        .map_err(|error| io::Error::new(error.kind(), format!("{shown} in {}: {error}", root.display())))?;
    let needs = needs(&content).ok_or_else(|| io::Error::other(format!("{shown} has odd ELF headers")))?;
    let below = |loader: String| format!("usr/{}", loader.trim_start_matches('/').trim_start_matches("usr/"));
    let mut needed: Vec<String> = needs.loader.map(below).into_iter().collect();
    for library in needs.libraries {
        let place = LIBRARIES
            .iter()
            .map(|folder| format!("{folder}/{library}"))
            .find(|path| root.join(path).symlink_metadata().is_ok());
        needed.push(place.ok_or_else(|| io::Error::other(format!("{shown} needs {library}, which is nowhere")))?);
    }
    Ok(needed)
}

/// Where a file lies in a root folder, without steps back. `None` if it does not.
pub fn below(root: &Path, path: &Path) -> Option<String> {
    let mut steps: Vec<&str> = Vec::new();
    for step in path.strip_prefix(root).ok()?.iter() {
        match step.to_str()? {
            ".." => drop(steps.pop()),
            step => steps.push(step),
        }
    }
    Some(steps.join("/"))
}

/// The files that lie in a folder of a root folder, as paths below the root.
///
/// # Errors
/// When it cannot be read.
pub fn in_folder(root: &Path, folder: &str) -> io::Result<Vec<String>> {
    let entries = std::fs::read_dir(root.join(folder))?;
    entries.map(|entry| Ok(format!("{folder}/{}", entry?.file_name().to_string_lossy()))).collect()
}

/// The file a path stands for: links are followed as if the root folder were the root.
fn followed(root: &Path, path: &str) -> io::Result<PathBuf> {
    let mut path = PathBuf::from(path);
    for _ in 0..8 {
        let Ok(target) = std::fs::read_link(root.join(&path)) else { return Ok(root.join(path)) };
        path = match target.strip_prefix("/") {
            Ok(absolute) => absolute.to_owned(),
            Err(_) => path.with_file_name("").join(target),
        };
    }
    Err(io::Error::other(format!("{} leads through too many links", path.display())))
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Needs {
    loader: Option<String>,
    libraries: Vec<String>,
}

/// What a 64-bit ELF file needs; nothing, if it is no such file. `None` if it is broken.
fn needs(file: &[u8]) -> Option<Needs> {
    /// Class 64 bit; the byte that follows says in which order numbers are.
    const MAGIC: &[u8] = b"\x7fELF\x02";
    const LOAD: u32 = 1;
    const DYNAMIC: u32 = 2;
    const LOADER: u32 = 3;
    const NEEDED: u64 = 1;
    const STRINGS: u64 = 5;

    let mut needs = Needs::default();
    let Some((order, _)) = file.strip_prefix(MAGIC).and_then(<[u8]>::split_first) else { return Some(needs) };
    let file = Numbers { file, big: *order == 2 };
    let (table, size, count) = (file.long(0x20)?, file.short(0x36)?, file.short(0x38)?);
    // Kind, offset in the file, address, length in the file.
    let segment = |index: u64| {
        let at = usize::try_from(table.checked_add(index * size)?).ok()?;
        Some((file.word(at)?, file.long(at.checked_add(8)?)?, file.long(at + 16)?, file.long(at + 32)?))
    };
    let segments: Vec<_> = (0..count).map(segment).collect::<Option<_>>()?;
    let of_kind = |wanted| segments.iter().find(move |(kind, ..)| *kind == wanted);
    if let Some((_, offset, ..)) = of_kind(LOADER) {
        needs.loader = Some(file.text(*offset)?);
    }
    let Some((_, dynamic, _, length)) = of_kind(DYNAMIC) else { return Some(needs) };
    let entries: Vec<(u64, u64)> = (0..length / 16)
        .map(|index| {
            let at = usize::try_from(dynamic.checked_add(index * 16)?).ok()?;
            Some((file.long(at)?, file.long(at.checked_add(8)?)?))
        })
        .collect::<Option<_>>()?;
    let address = entries.iter().find(|(tag, _)| *tag == STRINGS)?.1;
    let within = |(kind, _, start, length): &&(u32, u64, u64, u64)| {
        *kind == LOAD && (*start..start.saturating_add(*length)).contains(&address)
    };
    let (_, offset, start, _) = segments.iter().find(within)?;
    let strings = offset.checked_add(address - start)?;
    let names =
        entries.iter().filter(|(tag, _)| *tag == NEEDED).map(|(_, name)| file.text(strings.checked_add(*name)?));
    needs.libraries = names.collect::<Option<_>>()?;
    Some(needs)
}

/// A file of which numbers are read, in its own order.
#[derive(Clone, Copy)]
struct Numbers<'a> {
    file: &'a [u8],
    big: bool,
}

impl Numbers<'_> {
    fn short(self, at: usize) -> Option<u64> {
        let bytes = self.bytes(at)?;
        Some(if self.big { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }.into())
    }

    fn word(self, at: usize) -> Option<u32> {
        let bytes = self.bytes(at)?;
        Some(if self.big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn long(self, at: usize) -> Option<u64> {
        let bytes = self.bytes(at)?;
        Some(if self.big { u64::from_be_bytes(bytes) } else { u64::from_le_bytes(bytes) })
    }

    fn bytes<const N: usize>(self, at: usize) -> Option<[u8; N]> {
        self.file.get(at..at.checked_add(N)?)?.try_into().ok()
    }

    /// The text that ends with a zero byte.
    fn text(self, at: u64) -> Option<String> {
        let rest = self.file.get(usize::try_from(at).ok()?..)?;
        let length = rest.iter().position(|byte| *byte == 0)?;
        String::from_utf8(rest[..length].to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One loaded segment at address 0x1000 and offset 0x100, in which strings and the dynamic section lie.
    fn sample(big: bool) -> Vec<u8> {
        let mut file = vec![0; 0x200];
        file[..6].copy_from_slice(if big { b"\x7fELF\x02\x02" } else { b"\x7fELF\x02\x01" });
        let mut put = |at: usize, number: &[u8]| {
            file[at..at + number.len()].copy_from_slice(number);
            if !big {
                file[at..at + number.len()].reverse();
            }
        };
        put(0x20, &0x40u64.to_be_bytes());
        put(0x36, &56u16.to_be_bytes());
        put(0x38, &3u16.to_be_bytes());
        for (index, (kind, offset, address, length)) in
            [(1u32, 0x100u64, 0x1000u64, 0x100u64), (2, 0x140, 0x1040, 48), (3, 0x110, 0x1010, 12)]
                .into_iter()
                .enumerate()
        {
            let at = 0x40 + index * 56;
            put(at, &kind.to_be_bytes());
            put(at + 8, &offset.to_be_bytes());
            put(at + 16, &address.to_be_bytes());
            put(at + 32, &length.to_be_bytes());
        }
        for (index, (tag, value)) in [(1u64, 1u64), (5, 0x1000), (0, 0)].into_iter().enumerate() {
            put(0x140 + index * 16, &tag.to_be_bytes());
            put(0x148 + index * 16, &value.to_be_bytes());
        }
        file[0x101..0x10b].copy_from_slice(b"libx.so.1\0");
        file[0x110..0x11f].copy_from_slice(b"/lib/ld64.so.1\0");
        file
    }

    #[test]
    fn the_loader_and_the_libraries_are_found() {
        let expected = Needs { loader: Some("/lib/ld64.so.1".into()), libraries: vec!["libx.so.1".into()] };
        assert_eq!(needs(&sample(true)).as_ref(), Some(&expected));
        assert_eq!(needs(&sample(false)).as_ref(), Some(&expected));
        assert_eq!(needs(b"#!/bin/sh\n"), Some(Needs::default()));
    }

    #[test]
    fn a_broken_file_is_no_panic() {
        for whole in [sample(true), sample(false)] {
            for length in 0..whole.len() {
                let _ = needs(&whole[..length]);
            }
            for at in 0..whole.len() {
                let mut broken = whole.clone();
                broken[at] ^= 0xff;
                let _ = needs(&broken);
            }
        }
    }

    #[test]
    fn steps_back_are_undone_and_no_way_leads_out() {
        let root = Path::new("/r");
        assert_eq!(below(root, Path::new("/r/usr/lib64/../lib/ld.so")).as_deref(), Some("usr/lib/ld.so"));
        assert_eq!(below(root, Path::new("/s/x")), None);
    }
}
