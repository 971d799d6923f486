//! Every field of a signed descriptor, wrong in every way, one at a time. What is right and wrong is said here again,
//! from `docs/format.md`, and not by the reader under test.

use e2e::offers::{CHUNK, ENCRYPTED, SIZE};
use e2e::{Offers, Target, exit};
use serde_json::{Value, json};

/// A field, and which values the specification allows it in this image; `None` is "absent".
struct Field {
    pointer: &'static str,
    allows: fn(Option<&Value>) -> bool,
    /// Values that are wrong in this field's own way.
    own: &'static [&'static str],
}

const fn field(pointer: &'static str, allows: fn(Option<&Value>) -> bool, own: &'static [&'static str]) -> Field {
    Field { pointer, allows, own }
}

const UUID: &str = "6a7e1e3c-0001-4000-8000-000000000001";
const NAMES: &[&str] = &[r#""A""#, r#""-a""#, r#"".a""#, r#""a/b""#, r#""a\u0000""#, r#""a b""#, r#""é""#, r#""a\n""#];
const TIMES: &[&str] = &[
    r#""2026-01-02""#,
    r#""2026-13-02T00:00:00Z""#,
    r#""2026-02-30T00:00:00Z""#,
    r#""2026-01-02T24:00:00Z""#,
    r#""2026-01-02T00:00:00""#,
    r#""2026-01-02T00:00:00+24:00""#,
    r#""99999-01-02T00:00:00Z""#,
];
const DIGESTS: &[&str] = &[
    r#""sha256:""#,
    r#""sha256:00""#,
    r#""sha512:0000000000000000000000000000000000000000000000000000000000000000""#,
    r#""SHA256:0000000000000000000000000000000000000000000000000000000000000000""#,
    r#""sha256:000000000000000000000000000000000000000000000000000000000000000A""#,
    r#""sha256:00000000000000000000000000000000000000000000000000000000000000000""#,
    r#""sha256:../../../../../../../../../../../../../../etc/passwd""#,
];

const FIELDS: [Field; 35] = [
    field("/format", |v| is(v, 1), &["2"]),
    field(
        "/critical",
        |v| v == Some(&json!([])),
        &[r#"["teleport"]"#, r#"["Spans"]"#, r#"["luks"]"#, r#"[""]"#, "[1]"],
    ),
    field("/name", |v| text(v).is_some_and(is_name), NAMES),
    field("/image_version", |v| number(v).is_some(), &[]),
    field("/architecture", |v| text(v).is_some_and(is_architecture), &[r#""S390X""#, r#""s390-x""#, r#""s390x\n""#]),
    field("/created", |v| v == Some(&json!("2026-01-02T03:04:05Z")), TIMES),
    field("/expires", |v| v.is_none_or(Value::is_null) || v == Some(&json!("2999-01-01T00:00:00Z")), TIMES),
    field("/raw_size", |v| is(v, SIZE), &["1572352", "1573376"]),
    field("/chunk_size", |v| is(v, CHUNK), &["32768", "131072", "98304", "16777216"]),
    field("/sector_size", |v| is(v, 512), &["520", "1024", "4096"]),
    field("/digest", |v| text(v) == Some("sha256"), &[r#""md5""#, r#""sha512""#, r#""SHA256""#]),
    field("/compression", |v| text(v) == Some("zstd"), &[r#""none""#, r#""xz""#]),
    field("/regions", |_| false, &[r#"["boot"]"#]),
    field("/regions/0", |_| false, &[]),
    field("/regions/0/encrypt", |v| v == Some(&json!(false)), &[]),
    field("/regions/1/name", |v| text(v).is_some_and(|name| is_name(name) && name != "boot"), NAMES),
    field("/regions/1/offset", |v| is(v, CHUNK), &["65024", "66048"]),
    field("/regions/1/length", |v| is(v, ENCRYPTED), &["1441280", "1442304"]),
    field("/regions/1/encrypt", |v| v == Some(&json!(true)), &[]),
    field("/regions/1/luks", |_| false, &[r#"["6a7e1e3c-0001-4000-8000-000000000001",1048576]"#]),
    field("/regions/1/luks/uuid", |v| text(v) == Some(UUID), &[r#""6A7E1E3C-0001-4000-8000-000000000001""#]),
    field("/regions/1/luks/header_bytes", |v| is(v, 1 << 20), &["1044480", "1441792", "1048832"]),
    field("/boot", |v| v.is_none_or(Value::is_null), &[r#"["zipl-scsi",0,512,512,512]"#]),
    field("/boot/method", |v| text(v).is_some_and(|method| !method.is_empty()), &[]),
    field("/boot/record_offset", |v| number(v).is_some_and(|at| at <= SIZE - 512), &["1572865"]),
    field("/boot/record_length", |v| number(v).is_some_and(|len| (1..=SIZE).contains(&len)), &["1573377"]),
    field("/boot/map_offset", |v| number(v).is_some_and(|at| at <= SIZE - 512), &["1572865"]),
    field("/boot/map_length", |v| number(v).is_some_and(|len| (1..=SIZE - 512).contains(&len)), &["1572865"]),
    field("/spans", |_| false, &[]),
    field("/spans/0/raw_length", |v| is(v, 1 << 20), &["1114112", "1048064"]),
    field("/spans/1/raw_offset", |v| is(v, 1 << 20), &["1114112", "1048064"]),
    field("/spans/1/raw_length", |v| is(v, SIZE - (1 << 20)), &["524288", "590336"]),
    field("/spans/0/index/digest", |_| false, DIGESTS),
    field("/spans/0/index/size", |v| is(v, 32 + 80 * 16), &["1232", "1392"]),
    field("/spans/0/data/size", |_| false, &[]),
];

fn number(value: Option<&Value>) -> Option<u64> {
    value?.as_u64()
}

fn is(value: Option<&Value>, wanted: u64) -> bool {
    number(value) == Some(wanted)
}

fn text(value: Option<&Value>) -> Option<&str> {
    value?.as_str()
}

fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.starts_with(plain) && name.len() <= 128 && name.chars().all(|c| plain(c) || "._-".contains(c))
}

fn is_architecture(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (1..=32).contains(&name.len()) && name.chars().all(plain)
}

/// What a value is replaced by, as JSON text.
fn values(old: &Value, own: &[&str]) -> Vec<String> {
    let mut values: Vec<String> = [
        "0",
        "1",
        "4294967294",
        "4294967295",
        "4294967296",
        "9223372036854771712",
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551614",
        "18446744073709551615",
        "18446744073709551616",
        "-1",
        "-0",
        "1.5",
        "1e0",
        "1e308",
        "\"\"",
        "\"x\"",
        "null",
        "true",
        "false",
        "[]",
        "[[]]",
        "{}",
        r#"{"a":1}"#,
        "NaN",
        "+1",
        "01",
        r#""\ud800""#,
        "\"\u{1}\"",
    ]
    .map(str::to_owned)
    .into();
    values.extend(own.iter().map(|text| (*text).to_owned()));
    values.extend([format!("[{old}]"), format!("\"{}\"", "a".repeat(129))]);
    if let Some(number) = old.as_u64() {
        values.extend([number.saturating_sub(1).to_string(), (number + 1).to_string(), (2 * number).to_string()]);
        values.extend([format!("\"{number}\""), format!("{number}.0"), format!("-{number}"), format!("{number}e0")]);
    }
    values
}

/// A descriptor's text, and whether it may be accepted.
struct Case {
    what: String,
    text: String,
    allowed: bool,
}

/// Stands for a value in the text until it is replaced there: not every value to try is one that a `Value` can hold.
const PLACE: &str = "\"@the place@\"";

fn cases(descriptor: &Value, field: &Field) -> Vec<Case> {
    let old = descriptor.pointer(field.pointer).unwrap_or_else(|| panic!("the image has {}", field.pointer));
    let mut marked = descriptor.clone();
    *marked.pointer_mut(field.pointer).unwrap() = serde_json::from_str(PLACE).unwrap();
    let marked = marked.to_string();
    let case = |what: String, put: &str, allowed| Case { what, text: marked.replacen(PLACE, put, 1), allowed };
    let as_it_is = old.to_string();
    let mut cases: Vec<Case> = values(old, field.own)
        .into_iter()
        .filter(|text| *text != as_it_is)
        .map(|text| {
            let value = serde_json::from_str::<Value>(&text).ok();
            let allowed = value.is_some_and(|value| (field.allows)(Some(&value)));
            case(format!("{} is {text}", field.pointer), &text, allowed)
        })
        .collect();
    let (parent, key) = field.pointer.rsplit_once('/').unwrap();
    let mut missing = descriptor.clone();
    match missing.pointer_mut(parent).unwrap() {
        Value::Object(members) => {
            members.shift_remove(key);
            for again in [old.to_string(), "null".to_owned()] {
                let twice = format!("{old},\"{key}\":{again}");
                cases.push(case(format!("{} twice, then {again}", field.pointer), &twice, false));
            }
            let escaped = format!("{old},\"\\u{:04x}{}\":{old}", key.as_bytes()[0], &key[1..]);
            cases.push(case(format!("{} twice, once escaped", field.pointer), &escaped, false));
        }
        Value::Array(elements) => drop(elements.remove(key.parse().unwrap())),
        _ => unreachable!("a field is in an object or a list"),
    }
    let what = format!("{} is missing", field.pointer);
    cases.push(Case { what, text: missing.to_string(), allowed: (field.allows)(None) });
    cases
}

/// One case: written or refused as the specification says, by `write` and by one other command in turn.
fn try_one(offers: &Offers, forgery: &e2e::counterfeit::Forgery, case: &Case, untouched: &Target) {
    let number = offers.counts();
    let dir = forgery.make_from(&offers.lab, &case.text, &[]);
    if case.allowed {
        let target = offers.target();
        let done = offers.write(&dir, &target);
        assert!(done.status.success() && target.now() == offers.raw, "{}: {done:?}", case.what);
        std::fs::remove_file(target.backing()).unwrap();
    } else {
        let other = match number % 4 {
            0 => offers.command("inspect", &dir).done(),
            1 => offers.command("verify", &dir).done(),
            2 => offers.unpack(&dir).0,
            _ => offers.agent(&dir, untouched),
        };
        for done in [offers.write(&dir, untouched), other] {
            let inspected = done.line.contains(" inspect ") && case.what.contains("data/size");
            assert!(inspected || done.status.code() == Some(exit::IMAGE), "{}: {done:?}", case.what);
            let named = ["descriptor", "expired"].iter().any(|word| done.stderr.contains(word));
            assert!(inspected || named, "{}: {done:?}", case.what);
        }
    }
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn every_field_of_the_descriptor_in_every_wrong_way() {
    let offers = Offers::new();
    let forgery = offers.forgery();
    offers.accepted(&forgery.clone().make(&offers.lab));
    let cases: Vec<Case> = FIELDS.iter().flat_map(|field| cases(&forgery.descriptor, field)).collect();
    let allowed = cases.iter().filter(|case| case.allowed).count();
    assert!(cases.len() > 1200 && (30..120).contains(&allowed), "{allowed} of {} are allowed", cases.len());
    offers.try_all(&cases, |case, untouched| try_one(&offers, &forgery, case, untouched));
}
