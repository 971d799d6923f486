//! Envelopes: section 3. What is not signed can be changed by anybody.

use e2e::layout::Layout;
use e2e::second_reader::{ACCEPTED, Expect, Matrix, REFUSED};
use serde_json::{Value, json};

use super::two_spans;

/// Adds an envelope that was changed as a value.
fn change(matrix: &mut Matrix, what: &str, expect: Expect, change: impl FnOnce(&mut Value)) {
    matrix.add(what, expect, |layout| {
        let mut envelope = layout.envelope();
        change(&mut envelope);
        layout.put_envelope(envelope.to_string().as_bytes());
    });
}

/// Adds an envelope that was changed as text.
fn rewrite(matrix: &mut Matrix, what: &str, expect: Expect, change: impl FnOnce(&str) -> String) {
    matrix.add(what, expect, |layout| {
        let before = layout.envelope().to_string();
        let after = change(&before);
        assert_ne!(before, after, "{what} changes nothing");
        layout.put_envelope(after.as_bytes());
    });
}

fn spaced(layout: &Layout, len: usize) {
    let mut bytes = layout.envelope().to_string().into_bytes();
    bytes.resize(len, b' ');
    layout.put_envelope(&bytes);
}

#[test]
fn they_agree_on_members() {
    let mut matrix = two_spans();
    for member in ["payload", "payloadType", "signatures"] {
        change(&mut matrix, &format!("no {member}"), REFUSED, |e| drop(e.as_object_mut().unwrap().remove(member)));
        for value in [json!(null), json!(1), json!({}), json!([1]), json!("AAAA"), json!(["sig"]), json!([null])] {
            let what = format!("{member} is {value}");
            change(&mut matrix, &what, REFUSED, |e| e[member] = value);
        }
    }
    for value in [json!(null), json!(1), json!({}), json!([])] {
        change(&mut matrix, &format!("sig is {value}"), REFUSED, |e| e["signatures"][0]["sig"] = value);
    }
    for (value, expect) in [
        (json!(null), ACCEPTED),
        (json!(""), ACCEPTED),
        (json!("any text \u{0} at all"), ACCEPTED),
        (json!("k".repeat(100_000)), ACCEPTED),
        (json!(1), REFUSED),
        (json!(false), REFUSED),
        (json!([]), REFUSED),
        (json!({}), REFUSED),
    ] {
        change(&mut matrix, "a key id", expect, |e| e["signatures"][0]["keyid"] = value);
    }
    change(&mut matrix, "no key id", ACCEPTED, |e| drop(e["signatures"][0].as_object_mut().unwrap().remove("keyid")));
    change(&mut matrix, "no signatures", REFUSED, |e| e["signatures"] = json!([]));
    change(&mut matrix, "a signature that is an array", REFUSED, |e| {
        e["signatures"][0] = json!([e["signatures"][0]["keyid"], e["signatures"][0]["sig"]]);
    });
    change(&mut matrix, "a signature that is an array, sig first", REFUSED, |e| {
        e["signatures"][0] = json!([e["signatures"][0]["sig"], e["signatures"][0]["keyid"]]);
    });
    change(&mut matrix, "an envelope that is an array", REFUSED, |e| {
        *e = json!([e["payload"], e["payloadType"], e["signatures"]]);
    });
    change(&mut matrix, "a ticket", REFUSED, |e| {
        e["payloadType"] = json!("application/vnd.z-provisioner.ticket.v1+json");
    });
    change(&mut matrix, "another case of the type", REFUSED, |e| {
        e["payloadType"] = json!("application/vnd.z-provisioner.image.V1+json");
    });
    println!("the readers agree on {} envelopes with other members", matrix.judge());
}

#[test]
fn they_agree_on_names_and_numbers_of_members() {
    let mut matrix = two_spans();
    let more = |count: usize| (0..count).map(|n| format!(r#""m{n}":[{n}],"#)).collect::<String>();
    for (what, expect, inserted) in [
        ("an unknown member", ACCEPTED, r#""weather":{"a":[1,-2.5e3,null,"\u0041"]},"#.to_owned()),
        ("an unknown member twice", REFUSED, r#""weather":1,"weather":2,"#.to_owned()),
        ("64 members", ACCEPTED, more(61)),
        ("65 members", REFUSED, more(62)),
        ("a member twice by an escape", REFUSED, r#""\u0073ignatures":[],"#.to_owned()),
    ] {
        rewrite(&mut matrix, what, expect, |text| text.replacen('{', &format!("{{{inserted}"), 1));
    }
    for (what, expect, inserted) in [
        ("an unknown member in a signature", ACCEPTED, r#""weather":[],"#.to_owned()),
        ("an unknown member of a signature twice", REFUSED, r#""weather":1,"weather":2,"#.to_owned()),
        ("64 members in a signature", ACCEPTED, more(62)),
        ("65 members in a signature", REFUSED, more(63)),
        ("the key id twice", REFUSED, r#""keyid":null,"#.to_owned()),
        ("the sig twice", REFUSED, r#""sig":"","#.to_owned()),
    ] {
        rewrite(&mut matrix, what, expect, |text| text.replacen("[{", &format!("[{{{inserted}"), 1));
    }
    for member in ["payload", "payloadType", "signatures"] {
        rewrite(&mut matrix, &format!("{member} twice"), REFUSED, |text| {
            let value = serde_json::from_str::<Value>(text).unwrap()[member].to_string();
            text.replacen('{', &format!(r#"{{"{member}":{value},"#), 1)
        });
    }
    rewrite(&mut matrix, "bytes behind", REFUSED, |text| format!("{text}{text}"));
    rewrite(&mut matrix, "a byte order mark", REFUSED, |text| format!("\u{feff}{text}"));
    rewrite(&mut matrix, "space around", ACCEPTED, |text| format!("\n\t {text}\r\n"));
    rewrite(&mut matrix, "a trailing comma", REFUSED, |text| text.replace("}]", "},]"));
    matrix.add("an empty envelope", REFUSED, |layout| layout.put_envelope(b""));
    matrix.add("8 MiB", ACCEPTED, |layout| spaced(layout, 8 << 20));
    matrix.add("8 MiB and a byte", REFUSED, |layout| spaced(layout, (8 << 20) + 1));
    println!("the readers agree on {} envelopes", matrix.judge());
}

/// How a good base64 text can be changed, and whether it may.
type Respelling = (&'static str, Expect, fn(&str) -> String);

const RESPELLINGS: [Respelling; 9] = [
    ("without padding", REFUSED, |text| text.trim_end_matches('=').to_owned()),
    ("with more padding", REFUSED, |text| format!("{text}=")),
    ("with four more", REFUSED, |text| format!("{text}====")),
    ("in the other alphabet", ACCEPTED, |text| text.replace('+', "-").replace('/', "_")),
    ("with a line break", REFUSED, |text| format!("{}\n{}", &text[..4], &text[4..])),
    ("with a space behind", REFUSED, |text| format!("{text} ")),
    ("with a dot", REFUSED, |text| format!("{}.{}", &text[..4], &text[5..])),
    ("with a letter beyond ASCII", REFUSED, |text| format!("{}\u{e4}{}", &text[..4], &text[5..])),
    ("with bits that are not zero", REFUSED, dangling),
];

/// The last digit before the padding, with an unused bit set.
fn dangling(text: &str) -> String {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.trim_end_matches('=');
    let (rest, last) = digits.split_at(digits.len() - 1);
    let other = DIGITS.find(last).unwrap() + 1;
    format!("{rest}{}{}", &DIGITS[other..=other], &text[digits.len()..])
}

#[test]
fn they_agree_on_base64() {
    let mut matrix = two_spans();
    let key = matrix.image.key.clone();
    // So that the text has padding, and digits that differ in the two alphabets.
    matrix.image.layout().sign_changed(&[&key], |d| d["pad"] = json!("\u{3ffff}~~~???\u{fffd}>>>"));
    while !matrix.image.layout().envelope()["payload"].as_str().unwrap().ends_with('=') {
        matrix.image.layout().sign_changed(&[&key], |d| d["pad"] = json!(d["pad"].as_str().unwrap().to_owned() + "x"));
    }
    let text = matrix.image.layout().envelope().to_string();
    assert!(text.contains('+') || text.contains("/"), "nothing that tells the alphabets apart");
    for (what, expect, respell) in RESPELLINGS {
        let respelled = |value: &Value| json!(respell(value.as_str().unwrap()));
        change(&mut matrix, &format!("payload {what}"), expect, |e| e["payload"] = respelled(&e["payload"]));
        change(&mut matrix, &format!("signature {what}"), expect, |e| {
            e["signatures"][0]["sig"] = respelled(&e["signatures"][0]["sig"]);
        });
        change(&mut matrix, &format!("another signature {what}"), expect, |e| {
            let other = json!({"sig": respell("+/+/AAAA/w==")});
            e["signatures"].as_array_mut().unwrap().push(other);
        });
    }
    change(&mut matrix, "a mixture of alphabets", REFUSED, |e| {
        e["signatures"].as_array_mut().unwrap().push(json!({"sig": "+_AA"}));
    });
    change(&mut matrix, "an empty payload", REFUSED, |e| e["payload"] = json!(""));
    println!("the readers agree on {} spellings of base64", matrix.judge());
}

#[test]
fn they_agree_on_signatures() {
    let mut matrix = two_spans();
    let push = |e: &mut Value, first: bool, signature: Value| {
        let all = e["signatures"].as_array_mut().unwrap();
        all.insert(if first { 0 } else { all.len() }, signature);
    };
    let zeros = json!({"sig": format!("{}==", "A".repeat(86)), "keyid": "x"});
    for (what, signature) in [
        ("an empty one", json!({"sig": ""})),
        ("one of 63 bytes", json!({"sig": "A".repeat(84)})),
        ("one of 66 bytes", json!({"sig": "A".repeat(88)})),
        ("one of zeros", zeros.clone()),
    ] {
        change(&mut matrix, &format!("{what} before"), ACCEPTED, |e| push(e, true, signature.clone()));
        change(&mut matrix, &format!("{what} alone"), REFUSED, |e| e["signatures"] = json!([signature]));
    }
    change(&mut matrix, "one that claims the key's id", ACCEPTED, |e| {
        let mut liar = zeros.clone();
        liar["keyid"] = e["signatures"][0]["keyid"].clone();
        push(e, true, liar);
    });
    change(&mut matrix, "64 signatures", ACCEPTED, |e| (0..63).for_each(|_| push(e, true, zeros.clone())));
    change(&mut matrix, "65 signatures", REFUSED, |e| (0..64).for_each(|_| push(e, true, zeros.clone())));
    matrix.add("S beyond the group's order", REFUSED, plus_order);
    println!("the readers agree on {} envelopes with other signatures", matrix.judge());
}

/// The signature with the group's order added to S: it fits the equation, and RFC 8032 refuses it.
fn plus_order(layout: &Layout) {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    const ORDER: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let mut envelope = layout.envelope();
    let mut signature = BASE64_STANDARD.decode(envelope["signatures"][0]["sig"].as_str().unwrap()).unwrap();
    let mut carry = 0;
    for (byte, order) in signature[32..].iter_mut().zip(ORDER) {
        let sum = u16::from(*byte) + u16::from(order) + carry;
        *byte = sum as u8;
        carry = sum >> 8;
    }
    envelope["signatures"][0]["sig"] = json!(BASE64_STANDARD.encode(signature));
    layout.put_envelope(envelope.to_string().as_bytes());
}
