//! What the caller demands: keys, thresholds, names: sections 3.2, 3.3 and 7, step 6.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use e2e::second_reader::{ACCEPTED, Expect, Matrix, NOT_ACCEPTED, REFUSED, USAGE};
use e2e::{Lab, Run};

use super::two_spans;

#[test]
fn they_agree_on_what_is_wanted() {
    let mut matrix = two_spans();
    let digest =
        format!("sha256:{}", e2e::layout::sha256(&matrix.lab.file("payload", &matrix.image.layout().payload())));
    let other = format!("sha256:{}", "5".repeat(64));
    for (options, expect) in [
        ("--name sample --arch s390x --min-version 7", ACCEPTED),
        ("--name Sample", REFUSED),
        ("--name sample-7-s390x", REFUSED),
        ("--arch x86_64", REFUSED),
        ("--min-version 8", REFUSED),
        ("--min-version 0", ACCEPTED),
        ("--min-version 18446744073709551615", REFUSED),
        ("--min-version 18446744073709551616", USAGE),
        ("--min-version -1", USAGE),
        ("--min-version seven", USAGE),
        ("--threshold 0", USAGE),
        ("--threshold 2", USAGE),
        ("--threshold -1", USAGE),
        ("--threshold one", USAGE),
        (&format!("--digest {digest}"), ACCEPTED),
        (&format!("--digest {other}"), REFUSED),
        ("--digest sha256:0", USAGE),
        (&format!("--digest {}", &digest[7..]), USAGE),
        ("--weather fine", USAGE),
    ] {
        let words: Vec<_> = options.split_whitespace().collect();
        matrix.add_with(options, expect, &words, |_| {});
    }
    matrix.add_trusting("no key", USAGE, &[], |_| {});
    println!("the readers agree on {} wishes", matrix.judge());
}

#[test]
fn they_agree_on_thresholds() {
    let mut matrix = two_spans();
    let (second, stranger) = (matrix.lab.key(), matrix.lab.key());
    Run::imgstream().arg("sign").arg(&matrix.image.dir).arg("--key").arg(&second.secret).done().ok();
    let names = [&matrix.image.key.public, &second.public, &stranger.public].map(|path| path.display().to_string());
    let keys = |which: &str| which.bytes().map(|digit| names[usize::from(digit - b'0')].clone()).collect::<Vec<_>>();
    for (which, threshold, expect) in [
        ("0", "1", ACCEPTED),
        ("1", "1", ACCEPTED),
        ("2", "1", REFUSED),
        ("01", "2", ACCEPTED),
        ("012", "2", ACCEPTED),
        ("02", "1", ACCEPTED),
        ("02", "2", REFUSED),
        ("012", "3", REFUSED),
        ("00", "1", ACCEPTED),
        ("00", "2", USAGE),
        ("001", "2", ACCEPTED),
        ("001", "3", USAGE),
    ] {
        let keys = keys(which);
        let options: Vec<_> = keys.iter().map(String::as_str).chain(["--threshold", threshold]).collect();
        matrix.add_trusting(&format!("keys {which}"), expect, &options, |_| {});
    }
    println!("the readers agree on {} thresholds", matrix.judge());
}

/// PEM of a SubjectPublicKeyInfo with these last 32 bytes.
fn spki(key: &[u8]) -> String {
    let der = [b"\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", key].concat();
    pem("PUBLIC KEY", &der)
}

fn pem(label: &str, der: &[u8]) -> String {
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", BASE64_STANDARD.encode(der))
}

fn trust(matrix: &mut Matrix, what: &str, expect: Expect, file: &[u8]) {
    let path = matrix.lab.file("key", file).display().to_string();
    matrix.add_trusting(what, expect, &[&path], |_| {});
}

/// The points whose order divides 8, in all their encodings, canonical or not (RFC 7748 and RFC 8032 have the formulas).
const SMALL_ORDER: [&str; 14] = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

#[test]
fn they_agree_on_key_files() {
    let mut matrix = two_spans();
    let good = std::fs::read_to_string(&matrix.image.key.public).unwrap();
    let secret = std::fs::read_to_string(&matrix.image.key.secret).unwrap();
    let stranger = std::fs::read_to_string(&Lab::new().key().public).unwrap();
    let body: String = good.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64_STANDARD.decode(&body).unwrap();
    for (what, expect, text) in [
        ("the key", ACCEPTED, good.clone()),
        ("CRLF", ACCEPTED, good.replace('\n', "\r\n")),
        ("no last newline", ACCEPTED, good.trim_end().to_owned()),
        ("text before", ACCEPTED, format!("our key\n{good}")),
        ("text behind", ACCEPTED, format!("{good}that was it\n")),
        ("lines of 20", ACCEPTED, good.replace(&body, &format!("{}\n{}\n{}", &body[..20], &body[20..40], &body[40..]))),
        ("64 KiB", ACCEPTED, format!("{good}{:1$}", "", 65536 - good.len())),
        ("64 KiB and a byte", USAGE, format!("{good}{:1$}", "", 65537 - good.len())),
        ("two keys", USAGE, format!("{good}{stranger}")),
        ("the key twice", USAGE, format!("{good}{good}")),
        ("a private key", USAGE, secret.clone()),
        ("both keys", USAGE, format!("{good}{secret}")),
        ("nothing", USAGE, String::new()),
        ("base64 alone", USAGE, body.clone()),
        ("no end", USAGE, good.replace("-----END PUBLIC KEY-----", "")),
        ("another end", USAGE, good.replace("END PUBLIC", "END PRIVATE")),
        ("another label", USAGE, good.replace("PUBLIC KEY", "CERTIFICATE")),
        ("a byte missing", USAGE, pem("PUBLIC KEY", &der[..43])),
        ("a byte more", USAGE, pem("PUBLIC KEY", &[&der[..], b"\0"].concat())),
        ("X25519", USAGE, pem("PUBLIC KEY", &[&der[..8], b"\x6e", &der[9..]].concat())),
        ("broken base64", USAGE, good.replacen('A', "?", 1)),
        ("no point of the curve", NOT_ACCEPTED, spki(&bytes(&format!("02{}", "0".repeat(62))))),
        ("a y that is not below p", NOT_ACCEPTED, spki(&bytes(&format!("f0{}7f", "ff".repeat(30))))),
    ] {
        trust(&mut matrix, what, expect, text.as_bytes());
    }
    for point in SMALL_ORDER {
        trust(&mut matrix, point, USAGE, spki(&bytes(point)).as_bytes());
    }
    trust(&mut matrix, "no text", USAGE, &[0xff; 100]);
    matrix.add_trusting("a key that is not there", USAGE, &["/nonexistent"], |_| {});
    println!("the readers agree on {} key files", matrix.judge());
}
