//! Spellings of JSON: section 1, in signed descriptors, where no lenience can be blamed on somebody else's document.

use e2e::second_reader::{ACCEPTED, Expect, Matrix, REFUSED};

use super::two_spans;

/// Adds a descriptor in which the first `from` is `to`.
fn respell(matrix: &mut Matrix, what: &str, expect: Expect, from: &[u8], to: &[u8]) {
    let key = matrix.image.key.clone();
    matrix.add(what, expect, |layout| {
        let mut payload = layout.payload();
        let at = payload.windows(from.len()).position(|window| window == from).expect("what is to be replaced");
        payload.splice(at..at + from.len(), to.iter().copied());
        layout.sign_payload(&[&key], &payload);
    });
}

#[test]
fn they_agree_on_how_integers_are_spelled() {
    let mut matrix = two_spans();
    for spelling in
        ["1.0", "1e0", "1E0", "10e-1", "-1", "+1", "01", "1.", ".1", "0x1", "\"1\"", "1_0", "-0", "", "\u{661}"]
    {
        respell(&mut matrix, spelling, REFUSED, br#""format":1"#, format!(r#""format":{spelling}"#).as_bytes());
    }
    for spelling in ["0", "18446744073709551615"] {
        let text = format!(r#""image_version":{spelling}"#);
        respell(&mut matrix, spelling, ACCEPTED, br#""image_version":7"#, text.as_bytes());
    }
    for spelling in ["18446744073709551616", "-0", "7.0", "1e2", "-1", "99999999999999999999999999"] {
        let text = format!(r#""image_version":{spelling}"#);
        respell(&mut matrix, spelling, REFUSED, br#""image_version":7"#, text.as_bytes());
    }
    println!("the readers agree on {} spellings of integers", matrix.judge());
}

#[test]
fn they_agree_on_what_ignored_members_may_hold() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let objects = |depth: usize| format!("{}0{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    let digits = format!("1{}", "0".repeat(308));
    let mut matrix = two_spans();
    let mut value = |expect, text: &str| {
        let what: String = text.chars().take(60).collect();
        respell(&mut matrix, &what, expect, b"{", format!(r#"{{"unknown":{text},"#).as_bytes());
    };
    for text in [
        "1e308",
        "-1.5e-7",
        "1e-400",
        "0e999",
        "-0",
        "-0.0",
        "1E+2",
        "123456789012345678901234567890",
        &digits,
        "1.7976931348623157e308",
        "0.1000000000000000000000000000000000000000000001",
        "[]",
        "{}",
        "[ ]",
        "{ }",
        r#""\u0000\n\ud83d\ude00""#,
        "\"\u{7f}\u{10ffff}\u{2028}\u{feff}\"",
        r#""\/\b\f\r\t""#,
        "[1 , 2]\t\n\r",
        r#"{"a":{"b":1},"b":1}"#,
        r#"[{"a":1},{"a":1}]"#,
        r#"{"":1}"#,
        &nested(126),
        &objects(126),
        "true",
        "null",
    ] {
        value(ACCEPTED, text);
    }
    for text in [
        "NaN",
        "Infinity",
        "-Infinity",
        "nan",
        "1e309",
        "-1e309",
        &(digits.clone() + "0"),
        "1e99999999999",
        "- 1",
        "1e",
        "1e+",
        "0.",
        "00",
        "-",
        "'a'",
        "True",
        "nul",
        "[1,]",
        "[,1]",
        r#"{"a":1,}"#,
        r#"{"a"}"#,
        "{a:1}",
        "{1:1}",
        "[1 2]",
        "1/**/",
        "1//\n",
        "\"\t\"",
        "\"\n\"",
        "\"\0\"",
        r#""\x41""#,
        r#""\u12g4""#,
        r#""\u+123""#,
        r#""\u12""#,
        r#""\ud800""#,
        r#""\udc00""#,
        r#""\ud800\u0041""#,
        r#""\ud800x""#,
        r#""\udc00\ud800""#,
        r#"{"\ud800":1}"#,
        r#"{"a":1,"a":1}"#,
        r#"{"a":1,"\u0061":2}"#,
        r#"[[{"b":{"a":1,"c":2,"a":null}}]]"#,
        r#"{"":1,"":1}"#,
        &nested(127),
        &objects(127),
        &nested(200),
        &nested(5000),
        &"[".repeat(100_000),
        "\u{a0}1",
        "\u{b}1",
        "\u{c}1",
        "",
    ] {
        value(REFUSED, text);
    }
    println!("the readers agree on {} values of members they do not know", matrix.judge());
}

#[test]
fn they_agree_on_what_stands_around_and_between() {
    let mut matrix = two_spans();
    let first: &[u8] = br#"{"format""#;
    for (what, expect, from, to) in [
        ("space before", ACCEPTED, first, &b" \t\r\n{\"format\""[..]),
        ("byte order mark", REFUSED, first, b"\xef\xbb\xbf{\"format\""),
        ("UTF-16", REFUSED, first, b"\xff\xfe{\0\"\0f\0"),
        ("no-break space before", REFUSED, first, b"\xc2\xa0{\"format\""),
        ("null byte before", REFUSED, first, b"\0{\"format\""),
        ("an array", REFUSED, first, b"[{\"format\""),
        ("an empty document", REFUSED, first, b""),
        ("an escaped name", ACCEPTED, first, b"{\"\\u0066ormat\""),
        ("a name of other case", REFUSED, first, b"{\"Format\""),
        ("a name twice, escaped", REFUSED, first, b"{\"form\\u0061t\":1,\"format\""),
        ("a name twice", REFUSED, first, b"{\"format\":1,\"format\""),
        ("an unknown name twice", REFUSED, first, b"{\"x\":1,\"x\":1,\"format\""),
        ("a byte that is not UTF-8", REFUSED, b"sample", b"sampl\xff"),
        ("an overlong letter", REFUSED, b"sample", b"sampl\xc1\xa5"),
        ("an overlong letter where it is ignored", REFUSED, first, b"{\"x\":\"\xc0\x80\",\"format\""),
        ("a surrogate in UTF-8", REFUSED, first, b"{\"x\":\"\xed\xa0\x80\",\"format\""),
        ("beyond U+10FFFF", REFUSED, first, b"{\"x\":\"\xf4\x90\x80\x80\",\"format\""),
        ("an escaped value", ACCEPTED, b"sample", b"\\u0073ample"),
        ("a nested name twice", REFUSED, b"\"encrypt\"", b"\"encrypt\":false,\"encrypt\""),
        ("a name twice in a span", REFUSED, b"\"raw_offset\"", b"\"raw_offset\":0,\"raw_offset\""),
    ] {
        respell(&mut matrix, what, expect, from, to);
    }
    let key = matrix.image.key.clone();
    for (what, expect, end) in [
        ("space behind", ACCEPTED, &b" \t\r\n"[..]),
        ("another value behind", REFUSED, b"{}"),
        ("a comma behind", REFUSED, b","),
        ("a null byte behind", REFUSED, b"\0"),
        ("a form feed behind", REFUSED, b"\x0c"),
        ("6 MiB of space behind", REFUSED, &[b' '; 6 << 20]),
    ] {
        matrix.add(what, expect, |layout| layout.sign_payload(&[&key], &[&layout.payload(), end].concat()));
    }
    // Section 10: what leaves room for 64 signatures; an envelope has no room for 6 MiB and a signature.
    for (what, expect, len) in [("the most", ACCEPTED, 6_225_920), ("6 MiB and a byte", REFUSED, (6 << 20) + 1)] {
        matrix.add(what, expect, |layout| {
            let mut payload = layout.payload();
            payload.resize(len, b' ');
            layout.sign_payload(&[&key], &payload);
        });
    }
    println!("the readers agree on {} documents", matrix.judge());
}
