//! Whole files of a bounded size, such as keys: what is named on a command line, in a spec, in a configuration.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use zeroize::Zeroizing;

/// A whole file of at most `limit` bytes; `None` where it has more. It may hold a secret, so the buffer is wiped and never moved while it
/// grows.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: &Path, limit: usize) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit + 1));
    File::open(path)?.take(limit as u64 + 1).read_to_end(&mut bytes)?;
    Ok((bytes.len() <= limit).then_some(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_large_is_not_cut() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "four").unwrap();
        assert_eq!(read(file.path(), 4).unwrap().as_deref(), Some(&b"four".to_vec()));
        assert!(read(file.path(), 3).unwrap().is_none());
        assert!(read(Path::new("/no/such/file"), 3).is_err());
    }
}
