//! What the kernel must map for an open container. This, and not the header, decides what is written where.
//!
//! Source: the kernel's `Documentation/admin-guide/device-mapper/dm-crypt.rst`. The keys are not asked for: `dmsetup table`
//! shows zeros, or the name of a key in the kernel's keyring.

use super::header::{Differs, Shape};
use crate::block::Number;

/// dm's own unit.
const SECTOR: u64 = 512;
/// Options that change how fast dm-crypt works, and nothing else.
const HARMLESS: [&str; 5] =
    ["no_read_workqueue", "no_write_workqueue", "same_cpu_crypt", "submit_from_crypt_cpus", "high_priority"];

/// Compares the table of an open container with what it must be: `capacity` bytes inside the slot `below`.
///
/// # Errors
/// The first difference.
pub fn check(table: &str, shape: &Shape, below: Number, capacity: u64) -> Result<(), Differs> {
    let lines: Vec<&str> = table.lines().filter(|line| !line.trim().is_empty()).collect();
    let [line] = lines[..] else {
        return Err(Differs::new(format!("it maps {} ranges instead of one", lines.len())));
    };
    let words: Vec<&str> = line.split_whitespace().collect();
    let kind = words.get(2).copied().unwrap_or("nothing");
    if kind != "crypt" {
        return Err(Differs::new(format!("its kind is {kind} instead of crypt")));
    }
    let [start, len, _, cipher, key, iv_offset, device, offset, options @ ..] = &words[..] else {
        return Err(Differs::new(format!("its table is {} words long", words.len())));
    };
    let places = [
        ("start", *start, "0".to_owned()),
        ("length in sectors", *len, (capacity / SECTOR).to_string()),
        ("cipher", *cipher, shape.cipher.clone()),
        ("IV offset", *iv_offset, "0".to_owned()),
        ("device", *device, below.to_string()),
        ("offset in sectors", *offset, (shape.header_bytes / SECTOR).to_string()),
    ];
    if let Some((name, found, wanted)) = places.iter().find(|(_, found, wanted)| found != wanted) {
        return Err(Differs::new(format!("its {name} is {found} instead of {wanted}")));
    }
    check_key(key, shape)?;
    check_options(options, shape)
}

/// `:BYTES:TYPE:NAME` in the keyring, else two hex digits per byte. A null cipher's key is `-`.
fn check_key(key: &str, shape: &Shape) -> Result<(), Differs> {
    let bytes = match key.strip_prefix(':') {
        Some(described) => described.split(':').next().and_then(|bytes| bytes.parse().ok()),
        None => Some(key.len() / 2).filter(|_| key.bytes().all(|byte| byte.is_ascii_hexdigit())),
    };
    let wanted = shape.key_size as usize / 8;
    if bytes != Some(wanted) {
        let found = bytes.map_or("unreadable".into(), |bytes| format!("{bytes} bytes long"));
        return Err(Differs::new(format!("its key is {found}, not {wanted} bytes")));
    }
    Ok(())
}

fn check_options(options: &[&str], shape: &Shape) -> Result<(), Differs> {
    // How many there are comes first, and nothing at all where there are none.
    let options = options.get(1..).unwrap_or_default();
    let sector = format!("sector_size:{}", shape.sector_size);
    let is_expected =
        |option: &str| HARMLESS.contains(&option) || option == sector || (option == "allow_discards" && shape.discards);
    if let Some(option) = options.iter().find(|option| !is_expected(option)) {
        return Err(Differs::new(format!("it has the option {option}")));
    }
    // 512 is what dm-crypt takes where none is named.
    if shape.sector_size != 512 && !options.contains(&sector.as_str()) {
        return Err(Differs::new(format!("its sectors are not of {} bytes", shape.sector_size)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::header::tests::shape;
    use super::*;

    const BELOW: Number = Number { major: 253, minor: 2 };
    const CAPACITY: u64 = 48 << 20;
    const FINE: &str =
        "0 98304 crypt aes-xts-plain64 :64:logon:cryptsetup:7a707276-d0 0 253:2 32768 1 sector_size:4096\n";

    fn difference(table: &str) -> String {
        check(table, &shape(), BELOW, CAPACITY).map_or_else(|differs| differs.to_string(), |()| "none".into())
    }

    #[test]
    fn what_was_asked_for_is_accepted() {
        assert_eq!(difference(FINE), "none");
        let faster = FINE.replace("1 sector_size:4096", "3 sector_size:4096 no_read_workqueue no_write_workqueue");
        assert_eq!(difference(&faster), "none");
        let zeros = FINE.replace(":64:logon:cryptsetup:7a707276-d0", &"0".repeat(128));
        assert_eq!(difference(&zeros), "none");
        let small = Shape { sector_size: 512, ..shape() };
        assert_eq!(check(&FINE.replace(" 1 sector_size:4096", ""), &small, BELOW, CAPACITY), Ok(()));
    }

    #[test]
    fn a_null_cipher_and_a_missing_key_are_refused() {
        assert!(difference(&FINE.replace("aes-xts-plain64", "cipher_null-ecb")).contains("cipher"));
        assert!(difference(&FINE.replace(":64:logon:cryptsetup:7a707276-d0", "-")).contains("key"));
        assert!(difference(&FINE.replace(":64:", ":32:")).contains("key"));
    }

    #[test]
    fn a_second_range_another_device_or_another_place_is_refused() {
        for (table, named) in [
            (format!("{FINE}98304 8 linear 253:2 0\n"), "2 ranges"),
            (String::new(), "0 ranges"),
            (FINE.replace("0 98304 crypt", "0 98304 linear"), "kind"),
            (FINE.replace("253:2", "253:3"), "device"),
            (FINE.replace(" 32768 ", " 0 "), "offset"),
            (FINE.replace("98304", "98312"), "length"),
            (FINE.replace(" 0 253:2", " 8 253:2"), "IV offset"),
            (FINE.replace("sector_size:4096", "sector_size:512"), "sector_size:512"),
            (FINE.replace(" 1 sector_size:4096", ""), "4096"),
            (FINE.replace("1 sector", "2 allow_discards sector"), "allow_discards"),
            (FINE.replace("1 sector", "2 integrity:28:aead sector"), "integrity"),
            ("0 98304 crypt".into(), "3 words"),
        ] {
            assert!(difference(&table).contains(named), "{table}: {}", difference(&table));
        }
    }
}
