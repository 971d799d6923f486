//! Servers that answer a range with something else: other bytes, other lengths, other encodings, too late or never.

use std::time::Duration;

use e2e::hostile::Part::{Data, Envelope, Index, Manifest, SpanIndex};
use e2e::hostile::{Act, Answer, Case, Hostile, Setting, Step, readable};
use e2e::{MIB, exit};

/// Steps of a drip: a few bytes in each second.
const DRIP: Duration = Duration::from_millis(200);

#[test]
fn a_server_without_ranges_is_named_as_such() {
    Setting::new().hold(vec![
        Case::always("200 and the whole blob", Data, Answer::whole)
            .says("ignores ranges")
            .says("hint: serve the image"),
        Case::always("and Accept-Ranges: none", Data, |honest| honest.whole().header("Accept-Ranges", "none"))
            .says("ignores ranges"),
        Case::always("200 for a 206", Data, |honest| honest.status("200 OK")).says("ignores ranges"),
        Case::always("200 for all of it", Envelope, Answer::whole).arrives(),
        Case::always("200 for all of it", SpanIndex, Answer::whole).arrives(),
    ]);
}

#[test]
fn a_part_that_is_not_the_one_asked_for_is_refused() {
    type Lie = fn(u64, u64, usize) -> String;
    let lies: [(&str, Lie); 12] = [
        ("start shifted", |first, last, total| format!("bytes {}-{last}/{total}", first + 1)),
        ("end shifted", |first, last, total| format!("bytes {first}-{}/{total}", last - 1)),
        ("both shifted", |first, last, total| format!("bytes {}-{}/{total}", first + 1, last + 1)),
        ("another total", |first, last, total| format!("bytes {first}-{last}/{}", total + 1)),
        ("a total beyond 64 bits", |first, last, _| format!("bytes {first}-{last}/99999999999999999999999")),
        ("numbers beyond 64 bits", |_, _, _| {
            "bytes 18446744073709551616-18446744073709551617/18446744073709551618".into()
        }),
        ("a negative start", |_, last, total| format!("bytes -{last}/{total}")),
        ("another unit", |first, last, total| format!("chunks {first}-{last}/{total}")),
        ("no part", |_, _, total| format!("bytes */{total}")),
        ("garbage", |_, _, _| "lorem ipsum".into()),
        ("nothing", |_, _, _| String::new()),
        ("control characters", |_, _, _| "\u{9b}31mbytes\u{85}0-1".into()),
    ];
    let mut cases = Vec::new();
    for (name, lie) in lies {
        for part in [Data, Envelope] {
            let twist = move |honest: Answer| {
                let (range, total) = (honest.range(), honest.file().len());
                honest.header("Content-Range", &lie(range.start, range.end - 1, total))
            };
            cases.push(Case::always(name, part, twist).says("sends the part").says("instead of bytes"));
        }
    }
    for part in [Data, Envelope] {
        cases.push(Case::always("none", part, |honest| honest.without("Content-Range")).says("no Content-Range"));
    }
    cases.push(Case::always("one byte of the whole", Envelope, |honest| {
        let total = honest.file().len();
        honest.header("Content-Range", &format!("bytes 0-0/{total}"))
    }));
    Setting::new().hold(cases);
}

#[test]
fn multipart_byteranges_are_refused() {
    let multipart = |honest: Answer| {
        let (range, total) = (honest.range(), honest.file().len());
        let head = format!(
            "\r\n--x\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {}-{}/{total}\r\n\r\n",
            range.start,
            range.end - 1
        );
        let body = [head.as_bytes(), honest.content(), b"\r\n--x--\r\n"].concat();
        honest.body(body).without("Content-Range").header("Content-Type", "multipart/byteranges; boundary=x")
    };
    Setting::new().hold(vec![
        Case::always("multipart", Data, multipart).says("no Content-Range"),
        Case::always("multipart", Envelope, multipart).says("no Content-Range"),
    ]);
}

#[test]
fn the_right_header_with_other_bytes_is_corruption() {
    let flipped = |honest: Answer| honest.twisted(|body| body[7] ^= 1);
    let neighbour = |honest: Answer| {
        let (range, file) = (honest.range(), honest.file().to_vec());
        let from = if range.start == 0 { 1 } else { range.start as usize - 1 };
        honest.twisted(|body| body.copy_from_slice(&file[from..from + (range.end - range.start) as usize]))
    };
    Setting::new().hold(vec![
        Case::always("a flipped bit", Data, flipped).says("came corrupted"),
        Case::once("a flipped bit", Data, flipped).says("it is fetched once more"),
        Case::always("the bytes beside them", Data, neighbour).says("came corrupted"),
        Case::always("zeros", Data, |honest| honest.twisted(|body| body.fill(0))).says("came corrupted"),
        Case::always("a flipped bit", Manifest, flipped).says("digest"),
        Case::always("a flipped bit", Envelope, flipped).says("digest"),
        Case::always("a flipped bit", SpanIndex, flipped).says("digest"),
        Case::always("a flipped bit", Index, |honest| honest.twisted(|body| body[0] ^= 1)).refused(),
    ]);
}

/// The first half of an answer's body, and the end of the connection.
fn half(honest: &Answer) -> Act {
    honest.up_to(honest.content().len() / 2, [Step::Close])
}

#[test]
fn a_truncated_body_is_never_taken_for_a_whole_one() {
    let mut cases = vec![
        Case::always("half a body", Index, |honest| half(&honest)).says("broke off"),
        Case::always("half a body", Data, |honest| half(&honest)).says("broke off"),
        Case::always("half a body that is ended by closing", Envelope, |honest| {
            half(&honest.without("Content-Length"))
        })
        .says("too early"),
        Case::always("half an index.json that is ended by closing", Index, |honest| {
            half(&honest.without("Content-Length"))
        })
        .refused(),
        Case::always("all chunks but no last one", Data, |honest| {
            honest.chunks(|len| format!("{len:x}")).then([Step::Close])
        })
        .arrives(),
        Case::always("all chunks but no last one", Envelope, |honest| {
            honest.chunks(|len| format!("{len:x}")).then([Step::Close])
        })
        .says("broke off"),
    ];
    for part in [Index, Envelope, SpanIndex, Data] {
        cases.push(Case::once("half a body", part, |honest| half(&honest)));
        cases.push(Case::once("half of the chunks", part, |honest| half(&honest.chunked())));
        cases.push(Case::once("all but one byte", part, |honest| {
            honest.up_to(honest.content().len() - 1, [Step::Close])
        }));
    }
    for part in [Envelope, Data] {
        cases.push(Case::once("half a body ended by closing", part, |honest| half(&honest.without("Content-Length"))));
    }
    Setting::new().hold(cases);
}

/// Chunked coding without end, after `body`.
fn endless(honest: Answer) -> Act {
    let chunk = [b"10000\r\n".to_vec(), vec![b'x'; 0x10000], b"\r\n".to_vec()].concat();
    honest.chunks(|len| format!("{len:x}")).then([Step::ForEver(chunk)])
}

/// Far more bytes than anything has, announced and sent.
fn enormous(honest: Answer) -> Act {
    honest.header("Content-Length", "1000000000000000").then([Step::ForEver(vec![b'x'; 0x10000])])
}

#[test]
fn a_body_without_end_ends_at_its_limit() {
    let unannounced = |honest: Answer| honest.without("Content-Length").then([Step::ForEver(vec![b' '; 0x10000])]);
    Setting::new().hold(vec![
        Case::always("chunked for ever", Index, endless).says("sends more than the 67108864 bytes"),
        Case::always("no length, for ever", Index, unannounced).says("sends more than"),
        Case::always("an enormous length", Index, enormous).says("sends more than"),
        Case::always("chunked for ever", Manifest, endless).says("more bytes than were asked for"),
        Case::always("an enormous length", Envelope, enormous).says("announces 1000000000000000 bytes"),
        Case::always("no length, for ever", SpanIndex, unannounced).says("more bytes than were asked for"),
        // Nothing is wrong with the bytes that were asked for, and nobody waits for the others.
        Case::always("chunked for ever", Data, endless).arrives(),
        Case::always("an enormous length", Data, enormous).says("announces"),
        Case::always("garbage for ever", Data, |honest| endless(honest.twisted(|body| body.fill(b'x'))))
            .says("came corrupted"),
    ]);
}

#[test]
fn a_body_without_end_does_not_fill_memory() {
    let setting = Setting::new();
    let script = |request: &e2e::hostile::Request, honest: Answer| match request.part {
        Index => endless(honest),
        _ => honest.into(),
    };
    let server = Hostile::start(&setting.image.dir, std::sync::Arc::new(script));
    let target = setting.target();
    let done = setting.write(&server.url(), &target).measured().done().exits(exit::SOURCE);
    readable(&done);
    target.is_untouched();
    assert!(done.peak < 256 * MIB, "{} bytes", done.peak);
}

#[test]
fn a_wrong_content_length_is_refused() {
    let mut cases = Vec::new();
    for part in [Envelope, Data] {
        cases.push(Case::always("one too small", part, |honest| {
            let len = honest.content().len();
            honest.header("Content-Length", &(len - 1).to_string())
        }));
        cases.push(Case::always("one too large", part, |honest| {
            let len = honest.content().len();
            honest.header("Content-Length", &(len + 1).to_string())
        }));
        cases = cases.into_iter().map(|case| case.says("announces")).collect();
    }
    for part in [Index, Envelope, Data] {
        for value in ["-5", "+5", "garbage", "0x40", "1e3", "", "99999999999999999999999"] {
            let twist = move |honest: Answer| honest.header("Content-Length", value);
            cases.push(Case::always(&format!("{value:?}"), part, twist).says("content-length"));
        }
        let most = |honest: Answer| honest.header("Content-Length", "18446744073709551615");
        cases.push(Case::always("the largest number there is", part, most));
        let two = |honest: Answer| honest.also("Content-Length", "17");
        cases.push(Case::always("two that differ", part, two).says("content-length"));
    }
    cases
        .push(Case::always("an index.json cut short", Index, |honest| honest.header("Content-Length", "20")).refused());
    cases.push(Case::once("one too large, then closed", Index, |honest| {
        let len = honest.content().len();
        honest.header("Content-Length", &(len + 1).to_string()).then([Step::Close])
    }));
    Setting::new().hold(cases);
}

/// The line before a chunk.
type SizeLine = fn(usize) -> String;

#[test]
fn garbage_in_a_chunked_body_is_refused() {
    let mut cases = Vec::new();
    for part in [Envelope, Data] {
        let lines: [(&str, SizeLine); 6] = [
            ("no number", |_| "zz".into()),
            ("a negative size", |len| format!("-{len:x}")),
            ("a C number", |len| format!("0x{len:x}")),
            ("a size beyond 64 bits", |_| "ffffffffffffffffff".into()),
            ("no size", |_| String::new()),
            ("an endless extension", |len| format!("{len:x};{}", "x".repeat(1 << 20))),
        ];
        for (name, line) in lines {
            cases.push(Case::always(name, part, move |honest| honest.chunks(line)).says("broke off"));
        }
        cases.push(Case::always("no line end after a chunk", part, |honest| {
            honest.chunks(|len| format!("{:x}", len - 1))
        }));
        let fine = |honest: Answer| {
            honest.chunks(|len| format!("{len:X};a=\"b\";c")).twisted(|body| body.extend(b"0\r\n\r\n"))
        };
        cases.push(Case::always("extensions, which are fine", part, fine).arrives());
        let trailers =
            |honest: Answer| honest.chunks(|len| format!("{len:x}")).twisted(|body| body.extend(b"0\r\nA: b\r\n\r\n"));
        cases.push(Case::always("trailers, which are fine", part, trailers).arrives());
    }
    Setting::new().hold(cases);
}

#[test]
fn encoded_bodies_are_refused() {
    let mut cases = Vec::new();
    for part in [Index, Envelope, Data] {
        for coding in ["gzip", "br", "zstd", "identity, gzip", "x-made-up"] {
            let twist = move |honest: Answer| honest.header("Content-Encoding", coding);
            let case = Case::always(&format!("Content-Encoding: {coding}"), part, twist);
            cases.push(case.says("sends an encoded body (content-encoding: ").says("hint: turn compression off"));
        }
        let doubled = |honest: Answer| honest.header("Content-Encoding", "identity").also("Content-Encoding", "gzip");
        cases.push(Case::always("identity and then gzip", part, doubled).says("encoded body"));
        for coding in ["gzip", "x-made-up"] {
            let twist = move |honest: Answer| {
                honest.without("Content-Length").header("Transfer-Encoding", coding).then([Step::Close])
            };
            let case = Case::always(&format!("Transfer-Encoding: {coding}"), part, twist);
            cases.push(case.says("sends an encoded body (transfer-encoding: "));
        }
        let both = |honest: Answer| honest.chunked().header("Transfer-Encoding", "gzip, chunked");
        cases.push(Case::always("Transfer-Encoding: gzip, chunked", part, both).says("encoded body"));
        cases.push(Case::always("identity", part, |honest| honest.header("Content-Encoding", "Identity")).arrives());
    }
    Setting::new().hold(cases);
}

/// The head at once and the body in a drip.
fn body_drips(honest: Answer) -> Act {
    vec![Step::Send(honest.head()), Step::Drip(honest.content().to_vec(), DRIP)]
}

#[test]
fn a_drip_is_given_up() {
    let head_drips = |honest: Answer| vec![Step::Drip(honest.bytes(), DRIP)];
    Setting::new().hold(vec![
        Case::always("the head drips", Index, head_drips).stalls().says("waiting for an answer: not done in 1 s"),
        Case::always("the body drips", Envelope, body_drips)
            .stalls()
            .says("the body stalled: only ")
            .says("bytes in 1 s"),
        Case::always("the body drips", Data, body_drips).stalls().says("bytes in 1 s").says("hint: look at the server"),
        Case::once("the head drips", Index, head_drips).stalls(),
        Case::once("the head drips", Data, head_drips).stalls(),
        Case::once("the body drips", Index, body_drips).stalls(),
        Case::once("the body drips", Data, body_drips).stalls(),
        Case::once("chunks drip", Data, |honest| body_drips(honest.chunked())).stalls(),
    ]);
}

#[test]
fn silence_is_given_up_at_every_phase() {
    let silence = || vec![Step::Silence];
    let mut cases = vec![
        Case::greeting("silence on every connection", move |_| Some(silence()))
            .untouched()
            .stalls()
            .says("not done in 1 s"),
        Case::greeting("silence on the first connection", move |nth| (nth == 0).then(silence)).stalls(),
        Case::always("silence after the request", Data, move |_| silence()).stalls().says("not done in 1 s"),
        Case::always("silence after the head", Index, |honest| honest.up_to(0, [Step::Silence]))
            .stalls()
            .says("the body stalled: nothing for 1 s"),
    ];
    for part in [Index, Envelope, Data] {
        cases.push(Case::once("silence after the request", part, move |_| silence()).stalls());
        cases.push(
            Case::once("silence in the head", part, |honest| {
                vec![Step::Send(honest.head()[..20].to_vec()), Step::Silence]
            })
            .stalls(),
        );
        for at in [0, 100] {
            let name = format!("silence after {at} bytes of the body");
            cases.push(Case::once(&name, part, move |honest| honest.up_to(at, [Step::Silence])).stalls());
        }
    }
    Setting::new().hold(cases);
}

#[test]
fn a_reset_at_any_phase_is_survived() {
    type Phase = fn(Answer) -> Act;
    let phases: [(&str, Phase); 5] = [
        ("reset after the request", |_| vec![Step::Reset]),
        ("reset in the head", |honest| vec![Step::Send(honest.head()[..20].to_vec()), Step::Reset]),
        ("reset after the head", |honest| honest.up_to(0, [Step::Reset])),
        ("reset in the body", |honest| honest.up_to(honest.content().len() / 2, [Step::Reset])),
        ("reset before the last byte", |honest| honest.up_to(honest.content().len() - 1, [Step::Reset])),
    ];
    let reset = || vec![Step::Reset];
    let mut cases = vec![
        Case::greeting("reset at accept, once", move |nth| (nth == 0).then(reset)),
        Case::greeting("reset at accept, every other time", move |nth| (nth % 2 == 0).then(reset)),
        Case::always("closed after each answer", Data, |honest| honest.then([Step::Close])).arrives(),
        Case::always("reset after each answer", Data, |honest| honest.then([Step::Reset])).arrives(),
    ];
    for (name, phase) in phases {
        for part in [Index, Envelope, SpanIndex, Data] {
            cases.push(Case::once(name, part, phase));
        }
    }
    Setting::new().hold(cases);
}

#[test]
fn a_reset_each_time_is_an_error_in_the_end() {
    Setting::new().hold(vec![
        Case::greeting("reset at accept", |_| Some(vec![Step::Reset])).untouched(),
        Case::always("reset after the request", Index, |_| vec![Step::Reset]).says("waiting for an answer"),
        Case::always("reset in the body", SpanIndex, |honest| honest.up_to(9, [Step::Reset]))
            .says("the body broke off"),
        Case::always("reset in the body", Data, |honest| honest.up_to(9, [Step::Reset])).says("the body broke off"),
        Case::always("reset after the request", Data, |_| vec![Step::Reset]).says("waiting for an answer"),
    ]);
}
