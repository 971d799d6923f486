//! What every reader of untrusted bytes promises, one function per reader: any bytes at all may be given to it, it says
//! whether the reader accepted them, and a broken promise is a panic. Coverage-guided fuzzing (`fuzz/fuzz_targets`) and the bounded run in the ordinary tests
//! (`tests/bounded.rs`) call the same functions.
// A broken promise is reported by panicking: that is what a fuzzer looks for.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod agent;
mod chunk;
mod descriptor;
mod envelope;
mod home;
mod http;
mod index;
mod mutate;
mod oci;

pub mod corpus;
pub mod keys;

pub use self::agent::{enrol, lease, report};
pub use self::chunk::chunk;
pub use self::descriptor::descriptor;
pub use self::envelope::{SIGNED, envelope};
pub use self::http::{BLOB, NEXT_REPLY, PART, http};
pub use self::index::index;
pub use self::mutate::Mutator;
pub use self::oci::oci;

/// A reader and how to try it.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name: that of the function, the fuzzing binary and the folder of its corpus.
    pub name: &'static str,
    /// The function.
    pub run: fn(&[u8]) -> bool,
    /// Words of its language, which bit flips alone would hardly ever make.
    pub words: &'static [&'static str],
}

const JSON: &[&str] = &[
    "null",
    "true",
    "-1",
    "-0",
    "1e0",
    "1.5",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775807",
    "{}",
    "[]",
    "\"\"",
    "\\u0000",
    "\\ud800",
    "{\"a\":1,\"a\":1}",
    "sha256:",
    "\"size\":",
    "\"digest\":",
    "[[[[[[[[",
];

const EVENTS: &[&str] = &[
    "run-started",
    "run-finished",
    "run-failed",
    "phase-started",
    "phase-finished",
    "step-started",
    "\"kind\":\"progress\"",
    "\"index\":9007199254740992",
    "\"index\":3",
    "\"attempt\":1",
    "\"attempt\":2",
    "\"retryable\":true",
    "cancelled",
    "1e999",
    "-1",
    "null",
    "{\"events\":[",
];

/// All of them.
pub const TARGETS: [Target; 9] = [
    Target { name: "envelope", run: envelope, words: JSON },
    Target { name: "descriptor", run: descriptor, words: JSON },
    Target { name: "index", run: index, words: &["ZPINDEX\x01"] },
    Target { name: "oci", run: oci, words: JSON },
    Target {
        name: "http",
        run: http,
        words: &[
            "HTTP/1.1 206 Partial Content\r\n",
            "HTTP/1.1 200 OK\r\n",
            "HTTP/1.0 ",
            "Content-Length: ",
            "Content-Range: bytes ",
            "Transfer-Encoding: chunked\r\n",
            "Content-Encoding: gzip\r\n",
            "Location: /",
            "WWW-Authenticate: Bearer realm=\"",
            "Connection: close\r\n",
            "\r\n\r\n",
            "0\r\n\r\n",
            "ffffffffffffffff\r\n",
            "18446744073709551615",
            "307 ",
            "401 ",
        ],
    },
    Target { name: "chunk", run: chunk, words: &["\x28", "P*M\x18"] },
    Target { name: "enrol", run: enrol, words: JSON },
    Target { name: "report", run: report, words: EVENTS },
    Target { name: "lease", run: lease, words: JSON },
];

/// The target of this name.
///
/// # Panics
/// When there is none.
pub fn target(name: &str) -> Target {
    TARGETS.into_iter().find(|target| target.name == name).unwrap_or_else(|| panic!("no target is called {name}"))
}
