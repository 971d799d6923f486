//! Until when a certificate is good. TLS asks once per handshake, and connections and resumed sessions go on; so it is asked again.

use time::{Date, Month, PrimitiveDateTime, Time};

use crate::model::Moment;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const INTEGER: u8 = 0x02;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// `notAfter` of a certificate (DER, RFC 5280) that TLS has read already. `None` for anything else.
pub(super) fn of(certificate: &[u8]) -> Option<Moment> {
    let (certificate, _) = element(certificate, SEQUENCE)?;
    let (to_be_signed, _) = element(certificate, SEQUENCE)?;
    // A certificate of version 1 does not say so.
    let rest = element(to_be_signed, VERSION).map_or(to_be_signed, |(_, rest)| rest);
    let (_serial, rest) = element(rest, INTEGER)?;
    let (_algorithm, rest) = element(rest, SEQUENCE)?;
    let (_issuer, rest) = element(rest, SEQUENCE)?;
    let (validity, _) = element(rest, SEQUENCE)?;
    let (_, not_after) = either(validity)?;
    either(not_after).and_then(|(moment, _)| moment)
}

/// The content of the element at the start, where it has this tag, and what comes after it.
fn element(bytes: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (found, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        // More than four bytes of length is no certificate.
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
            (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    let content = rest.split_at_checked(length)?;
    (*found == tag).then_some(content)
}

/// A time of either kind, and what comes after it.
fn either(bytes: &[u8]) -> Option<(Option<Moment>, &[u8])> {
    if let Some((text, rest)) = element(bytes, UTC_TIME) {
        // Two digits are of 1950 to 2049.
        let year = number(text.get(..2)?)?;
        return Some((moment(if year < 50 { 2000 + year } else { 1900 + year }, text.get(2..)?), rest));
    }
    let (text, rest) = element(bytes, GENERALIZED_TIME)?;
    Some((moment(number(text.get(..4)?)?, text.get(4..)?), rest))
}

/// `MMDDhhmmssZ` of a year.
fn moment(year: i32, rest: &[u8]) -> Option<Moment> {
    let part = |at: usize| number(rest.get(at..at + 2)?).and_then(|number| u8::try_from(number).ok());
    if rest.get(10..)? != b"Z" {
        return None;
    }
    let date = Date::from_calendar_date(year, Month::try_from(part(0)?).ok()?, part(2)?).ok()?;
    let time = Time::from_hms(part(4)?, part(6)?, part(8)?).ok()?;
    Some(Moment(PrimitiveDateTime::new(date, time).assume_utc().unix_timestamp().checked_mul(1000)?))
}

fn number(digits: &[u8]) -> Option<i32> {
    let all = digits.iter().all(u8::is_ascii_digit);
    all.then(|| digits.iter().fold(0, |number, digit| number * 10 + i32::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rcgen::{CertificateParams, KeyPair};
    use time::OffsetDateTime;

    use super::*;

    fn certificate(until: i64) -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["a.example".into(); 40]).unwrap();
        params.not_after = OffsetDateTime::from_unix_timestamp(until).unwrap();
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn both_ways_to_write_a_time_are_read() {
        // The last second of two digits, the first of four, a leap day, and far away.
        for until in [0, 1_709_208_000, 2_524_607_999, 2_524_608_000, 253_402_300_799] {
            assert_eq!(of(&certificate(until)), Some(Moment(until * 1000)), "{until}");
        }
    }

    proptest! {
        #[test]
        fn nonsense_has_no_end_and_does_no_harm(cut in 0..400_usize, at in 0..400_usize, byte: u8) {
            let mut bytes = certificate(1_900_000_000);
            of(&bytes[..cut]);
            bytes[at] = byte;
            of(&bytes);
        }
    }
}
