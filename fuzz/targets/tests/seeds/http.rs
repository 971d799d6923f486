//! Answers of servers.

use fuzz_targets::{BLOB, NEXT_REPLY, PART};

use super::Seeds;
use super::packed::Packed;

/// What is asked for, in the lowest bits of an input's first byte; and how the server behaves.
const A_PART: u8 = 0;
const THE_BLOB: u8 = 1;
const A_LAYOUT: u8 = 2;
const A_REGISTRY: u8 = 3;
const KEEP_OPEN: u8 = 4;
const IN_PIECES: u8 = 8;

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 {status}\r\n{headers}\r\n").as_bytes(), body].concat()
}

fn sized(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    answer(status, &format!("{headers}Content-Length: {}\r\n", body.len()), body)
}

/// Adds them.
pub fn add(seeds: &mut Seeds, image: &Packed) {
    parts(seeds);
    blobs(seeds);
    let mut add = |name: &str, how: u8, replies: &[&[u8]]| {
        seeds.add("http", name, [&[how][..], &replies.join(NEXT_REPLY)].concat());
    };
    let index = sized("200 OK", "", &image.index_json);
    let manifest = sized("200 OK", "Content-Type: application/json\r\n", &image.manifest);
    add("layout", A_LAYOUT, &[&index, &manifest]);
    add("layout-kept-open", A_LAYOUT | KEEP_OPEN, &[&index, &manifest]);
    add("layout-in-pieces", A_LAYOUT | IN_PIECES, &[&index, &manifest]);
    add("layout-that-ends", A_LAYOUT, &[&index]);
    add("layout-is-not-there", A_LAYOUT, &[&sized("404 Not Found", "", b"none")]);
    add("registry", A_REGISTRY, &[&manifest]);
    let challenge = |value: &str| sized("401 Unauthorized", &format!("WWW-Authenticate: {value}\r\n"), b"");
    let bearer = challenge(r#"Bearer realm="http://t/token",service="a, b",scope="repository:x:pull""#);
    let token = sized("200 OK", "", br#"{"token":"abc","expires_in":300}"#);
    add("registry-with-token", A_REGISTRY | KEEP_OPEN, &[&bearer, &token, &manifest]);
    add("registry-with-empty-token", A_REGISTRY, &[&bearer, &sized("200 OK", "", b"{}"), &manifest]);
    add("registry-with-password", A_REGISTRY, &[&challenge("Basic realm=\"x\""), &manifest]);
    let odd = challenge(r#"Bearer a="b" realm = "http://t/x?y#z", =,"#);
    add("registry-with-odd-challenge", A_REGISTRY, &[&odd, &token, &bearer]);
    add("registry-index", A_REGISTRY, &[&sized("200 OK", "", &image.index_json), &manifest]);
}

fn parts(seeds: &mut Seeds) {
    let body = &BLOB[PART.start as usize..PART.end as usize];
    let range = "Content-Range: bytes 16-47/64\r\n";
    let mut add = |name: &str, how: u8, reply: &[u8]| seeds.add("http", name, [&[A_PART | how][..], reply].concat());
    let good = sized("206 Partial Content", range, body);
    add("part", 0, &good);
    add("part-in-pieces", IN_PIECES, &good);
    add("part-and-more", KEEP_OPEN, &[&good[..], &good].concat());
    add("part-with-unknown-total", 0, &sized("206 Partial Content", "Content-Range: bytes 16-47/*\r\n", body));
    add("another-part", 0, &sized("206 Partial Content", "Content-Range: bytes 0-31/64\r\n", body));
    add("another-total", 0, &sized("206 Partial Content", "Content-Range: bytes 16-47/65\r\n", body));
    add("part-unsaid", 0, &sized("206 Partial Content", "", body));
    add("too-short", 0, &sized("206 Partial Content", range, &body[1..]));
    add("too-long", 0, &sized("206 Partial Content", range, &[body, b"!"].concat()));
    add("until-closed", 0, &answer("206 Partial Content", range, body));
    add("endless", 0, &answer("206 Partial Content", range, &[body, body, body, body].concat()));
    add("all-of-it", 0, &sized("200 OK", "", BLOB));
    add("http-1.0", 0, &[b"HTTP/1.0 206 P\r\n", range.as_bytes(), b"\r\n", body].concat());
    let chunked = format!("{range}Transfer-Encoding: chunked\r\nTrailer: X\r\n");
    let pieces = [b"10\r\n", &body[..16], b"\r\n0010;x=y\r\n", &body[16..], b"\r\n0\r\nX: y\r\n\r\n"].concat();
    add("in-chunks", 0, &answer("206 Partial Content", &chunked, &pieces));
    add("huge-chunk", 0, &answer("206 Partial Content", &chunked, b"ffffffffffffffff\r\nx"));
    add("two-lengths", 0, &answer("206 Partial Content", &format!("{range}Content-Length: 32, 33\r\n"), body));
    add("encoded", 0, &sized("206 Partial Content", &format!("{range}Content-Encoding: gzip\r\n"), body));
    add("busy", 0, &sized("503 Service Unavailable", "Retry-After: 1\r\n", b""));
    add("continue-first", 0, &[b"HTTP/1.1 100 Continue\r\n\r\n", &good[..]].concat());
    add("switching", 0, &answer("101 Switching Protocols", "Upgrade: x\r\nConnection: upgrade\r\n", b"x"));
    add("not-http", 0, b"SSH-2.0-OpenSSH_9.2\r\n");
    add("nothing", 0, b"");
}

fn blobs(seeds: &mut Seeds) {
    let good = sized("200 OK", "", BLOB);
    let mut add = |name: &str, replies: &[&[u8]]| {
        seeds.add("http", name, [&[THE_BLOB | KEEP_OPEN][..], &replies.join(NEXT_REPLY)].concat());
    };
    add("blob", &[&good]);
    add("blob-as-a-part", &[&sized("206 Partial Content", "Content-Range: bytes 0-63/64\r\n", BLOB)]);
    add("another-blob", &[&sized("200 OK", "", &[b'x'; 64])]);
    let moved = |to: &str| sized("307 Temporary Redirect", &format!("Location: {to}\r\n"), b"");
    add("moved", &[&moved("/b/other"), &good]);
    add("moved-far", &[&moved("http://elsewhere/b?c#d"), &good]);
    let round: Vec<Vec<u8>> = (0..8).map(|_| moved("/round")).collect();
    add("moved-for-ever", &round.iter().map(Vec::as_slice).collect::<Vec<_>>());
    add("moved-nowhere", &[&sized("302 Found", "", b"")]);
}
