//! PERSISTENT RESERVE IN: which keys are registered with a LUN, and who has reserved it.
//!
//! Source: SPC-4, 6.15; all integers big-endian. Changing them goes through `mpathpersist`, because multipathd must know the
//! key that a returning path needs.

use std::fmt;
use std::fs::File;

use super::sg::{self, ScsiError};

/// Room for a thousand keys. More registrants than that and the storage says so in the length.
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

/// The registrations of a LUN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registrations {
    /// Grows with every change.
    pub generation: u32,
    /// One key per path of each registrant.
    pub keys: Vec<Key>,
}

/// The reservation of a LUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reservation {
    /// Whose it is; 0 where it is everybody's who is registered.
    pub key: Key,
    /// Its type, such as [`WRITE_EXCLUSIVE_REGISTRANTS_ONLY`].
    pub kind: u8,
}

/// READ KEYS.
///
/// # Errors
/// [`ScsiError`].
pub fn registrations(device: &File) -> Result<Registrations, ScsiError> {
    let (generation, list) = reserve_in(device, 0x00, KEYS_LEN)?;
    let keys = list.chunks_exact(8).filter_map(|key| key.first_chunk()).map(|key| Key(u64::from_be_bytes(*key)));
    Ok(Registrations { generation, keys: keys.collect() })
}

/// READ RESERVATION; `None` where there is none.
///
/// # Errors
/// [`ScsiError`].
pub fn reservation(device: &File) -> Result<Option<Reservation>, ScsiError> {
    let (_, descriptor) = reserve_in(device, 0x01, 8 + 16)?;
    Ok(reservation_of(&descriptor))
}

fn reservation_of(descriptor: &[u8]) -> Option<Reservation> {
    let key = Key(u64::from_be_bytes(*descriptor.first_chunk()?));
    // The upper half of the byte is the scope, which is always the LUN.
    Some(Reservation { key, kind: descriptor.get(13)? & 0x0f })
}

/// The generation, and what follows the header as far as the device says it reaches.
fn reserve_in(device: &File, action: u8, len: usize) -> Result<(u32, Vec<u8>), ScsiError> {
    let mut answer = vec![0; len];
    let allocation = (len as u16).to_be_bytes();
    let command = [0x5e, action, 0, 0, 0, 0, 0, allocation[0], allocation[1], 0];
    let read = sg::read(device, &command, &mut answer)?;
    answer.truncate(read);
    split(&answer).ok_or(ScsiError::Io(std::io::ErrorKind::UnexpectedEof.into()))
}

fn split(answer: &[u8]) -> Option<(u32, Vec<u8>)> {
    let (generation, rest) = answer.split_first_chunk::<4>()?;
    let (len, list) = rest.split_first_chunk::<4>()?;
    let len = (u32::from_be_bytes(*len) as usize).min(list.len());
    Some((u32::from_be_bytes(*generation), list[..len].to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_big_endian_and_lengths_bounded() {
        let answer = [0, 0, 0, 2, 0, 0, 0, 16, 0x7a, 1, 2, 3, 4, 5, 0, 1, 0x7a, 1, 2, 3, 4, 5, 0, 1, 9, 9];
        let (generation, list) = split(&answer).unwrap();
        assert_eq!((generation, list.len()), (2, 16));
        assert_eq!(split(&[0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 1]).unwrap().1, [1]);
        assert_eq!(split(&[0; 7]), None);
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
