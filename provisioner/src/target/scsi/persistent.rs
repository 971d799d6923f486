//! PERSISTENT RESERVE IN: which keys are registered with a LUN, and who has reserved it.
//!
//! Source: SPC-4, 6.15; all integers big-endian. Changing them goes through `mpathpersist`, because multipathd must know the
//! key that a returning path needs.

use std::fmt;
use std::fs::File;

use super::sg::{self, ScsiError};

/// Room for a thousand keys. A longer list is an error: what is cut off could be what was asked for.
const KEYS_LEN: usize = 8 + 8 * 1024;

/// The type that shuts out everybody who is not registered, from writing only: "write exclusive, registrants only".
pub const WRITE_EXCLUSIVE_REGISTRANTS_ONLY: u8 = 5;

/// A reservation key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub u64);

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#018x}", self.0)
    }
}

/// The reservation of a LUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// Whose it is; 0 where it is everybody's who is registered.
    pub key: Key,
    /// Its type, such as [`WRITE_EXCLUSIVE_REGISTRANTS_ONLY`].
    pub kind: u8,
}

/// READ KEYS: one per path of each registrant.
///
/// # Errors
/// [`ScsiError`].
pub fn keys(device: &File) -> Result<Vec<Key>, ScsiError> {
    let list = reserve_in(device, 0x00, KEYS_LEN)?;
    Ok(list.chunks_exact(8).filter_map(|key| key.first_chunk()).map(|key| Key(u64::from_be_bytes(*key))).collect())
}

/// READ RESERVATION; `None` where there is none.
///
/// # Errors
/// [`ScsiError`].
pub fn reservation(device: &File) -> Result<Option<Reservation>, ScsiError> {
    Ok(reservation_of(&reserve_in(device, 0x01, 8 + 16)?))
}

fn reservation_of(descriptor: &[u8]) -> Option<Reservation> {
    let key = Key(u64::from_be_bytes(*descriptor.first_chunk()?));
    // The upper half of the byte is the scope, which is always the LUN.
    Some(Reservation { key, kind: descriptor.get(13)? & 0x0f })
}

/// What follows the header, which must be as long as the device says.
fn reserve_in(device: &File, action: u8, len: usize) -> Result<Vec<u8>, ScsiError> {
    let mut answer = vec![0; len];
    let allocation = (len as u16).to_be_bytes();
    let command = [0x5e, action, 0, 0, 0, 0, 0, allocation[0], allocation[1], 0];
    let read = sg::read(device, &command, &mut answer)?;
    answer.truncate(read);
    list_of(&answer).ok_or(ScsiError::Io(std::io::ErrorKind::UnexpectedEof.into()))
}

/// A generation, a length, and so many bytes.
fn list_of(answer: &[u8]) -> Option<Vec<u8>> {
    let (header, rest) = answer.split_first_chunk::<8>()?;
    let len = u32::from_be_bytes(*header.last_chunk()?);
    rest.get(..len as usize).map(<[u8]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_big_endian_and_lengths_bounded() {
        let answer = [0, 0, 0, 2, 0, 0, 0, 16, 0x7a, 1, 2, 3, 4, 5, 0, 1, 0x7a, 1, 2, 3, 4, 5, 0, 1, 9, 9];
        assert_eq!(list_of(&answer).unwrap(), answer[8..24]);
        assert_eq!(list_of(&[0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 1]), None, "a list that was cut");
        assert_eq!((list_of(&[0; 7]), list_of(&[0; 8])), (None, Some(Vec::new())));
    }

    #[test]
    fn a_reservation_has_a_key_and_a_type() {
        let descriptor = [0x7a, 1, 2, 3, 4, 5, 0, 1, 0, 0, 0, 0, 0, 0x05, 0, 0];
        let found = reservation_of(&descriptor).unwrap();
        assert_eq!(
            (found.key.to_string(), found.kind),
            ("0x7a01020304050001".into(), WRITE_EXCLUSIVE_REGISTRANTS_ONLY)
        );
        assert_eq!(reservation_of(&[]), None);
        assert_eq!(reservation_of(&descriptor[..13]), None);
    }
}
