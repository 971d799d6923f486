//! The second reader of images, `tests/reader/imgread.py`, and what it and `imgstream` say of the same images.

use std::fs::File;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::command::Run;
use crate::exit;
use crate::lab::{Image, Lab, demand};
use crate::layout::Layout;

/// The script.
pub fn script() -> PathBuf {
    demand(&["python3", "openssl", "zstd"]);
    Path::new(env!("CARGO_MANIFEST_DIR")).join("reader/imgread.py")
}

/// The script, to be given a command.
pub fn imgread() -> Run {
    Run::tool("python3").arg(script())
}

/// What is expected of both readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// That they end with this exit code.
    Code(i32),
    /// That neither accepts it.
    AnyError,
    /// That they end with the same exit code, whichever it is.
    Agreement,
    /// The same, but that the decoder of one may be less strict than that of the other: zstd 1.5.4 takes reserved bits
    /// inside a block that 1.5.7 refuses.
    AgreementButForDecoders,
}

/// The image is accepted.
pub const ACCEPTED: Expect = Expect::Code(0);
/// The image is refused.
pub const REFUSED: Expect = Expect::Code(exit::IMAGE);
/// Bytes are missing, or are not those their digest promises.
pub const CORRUPT: Expect = Expect::Code(exit::SOURCE);
/// The command line makes no sense.
pub const USAGE: Expect = Expect::Code(exit::USAGE);

/// The image is not accepted, and the document leaves open how that is said.
pub const NOT_ACCEPTED: Expect = Expect::AnyError;

struct Case {
    what: String,
    dir: PathBuf,
    arguments: Vec<String>,
    expect: Expect,
}

/// Variations of one image, each of which both readers judge.
pub struct Matrix {
    /// Where all of it lies.
    pub lab: Lab,
    /// The image that varies; it stays as it is.
    pub image: Image,
    cases: Vec<Case>,
}

impl Matrix {
    /// Variations of an image packed from these bytes.
    pub fn new(raw: &[u8], options: &str) -> Self {
        let lab = Lab::new();
        let image = lab.pack_bytes(raw, options);
        Matrix { lab, image, cases: Vec::new() }
    }

    /// Adds a changed image, whose key is trusted.
    pub fn add(&mut self, what: &str, expect: Expect, change: impl FnOnce(&Layout)) {
        self.add_with(what, expect, &[], change);
    }

    /// Adds a changed image, whose key is trusted, and options for both readers.
    pub fn add_with(&mut self, what: &str, expect: Expect, options: &[&str], change: impl FnOnce(&Layout)) {
        let trusted = self.image.key.public.display().to_string();
        self.add_trusting(what, expect, &[&[trusted.as_str()], options].concat(), change);
    }

    /// Adds a changed image and all that follows `--trust`.
    pub fn add_trusting(&mut self, what: &str, expect: Expect, options: &[&str], change: impl FnOnce(&Layout)) {
        let dir = self.lab.copy(&self.image.dir);
        change(&Layout::new(&dir));
        self.push(what, expect, dir, options);
    }

    /// Adds a directory that was made before.
    pub fn add_dir(&mut self, what: &str, expect: Expect, dir: PathBuf) {
        let trusted = self.image.key.public.display().to_string();
        self.push(what, expect, dir, &[&trusted]);
    }

    fn push(&mut self, what: &str, expect: Expect, dir: PathBuf, options: &[&str]) {
        let arguments = ["--trust"].iter().chain(options).map(ToString::to_string).collect();
        self.cases.push(Case { what: what.to_owned(), dir, arguments, expect });
    }

    /// Lets both readers judge what was added since the last time; how many cases that were.
    ///
    /// # Panics
    /// When they disagree, or another verdict was expected.
    #[track_caller]
    pub fn judge(&mut self) -> usize {
        let cases = std::mem::take(&mut self.cases);
        let requests = self.lab.fresh("requests");
        let line = |case: &Case| {
            let words = [case.dir.display().to_string()].into_iter().chain(case.arguments.iter().cloned());
            json!(words.collect::<Vec<_>>()).to_string() + "\n"
        };
        std::fs::write(&requests, cases.iter().map(line).collect::<String>()).expect("writing requests");
        let second = imgread().arg("verify-many").stdin(File::open(&requests).expect("requests")).limit(600).start();
        let first: Vec<_> = cases.iter().map(imgstream).collect();
        let second = second.finish().ok().stdout;
        let second: Vec<_> = second.lines().map(verdict).collect();
        assert_eq!(second.len(), cases.len(), "the second reader did not judge all of them");
        let wrong: Vec<_> =
            cases.iter().zip(first.iter().zip(&second)).filter_map(|(case, (a, b))| compare(case, a, b)).collect();
        assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
        for case in &cases {
            std::fs::remove_dir_all(&case.dir).expect("removing an image");
        }
        cases.len()
    }
}

/// An exit code and why.
type Verdict = (i32, String);

fn verdict(line: &str) -> Verdict {
    let (code, why) = line.split_once(' ').expect("a code and a reason");
    (code.parse().expect("a number"), why.to_owned())
}

fn imgstream(case: &Case) -> Verdict {
    let done = Run::imgstream().arg("verify").arg(&case.dir).args(&case.arguments).done();
    (done.status.code().unwrap_or(-1), done.stderr.trim().replace('\n', " "))
}

/// What is wrong, if anything.
fn compare(case: &Case, first: &Verdict, second: &Verdict) -> Option<String> {
    let codes = [first.0, second.0];
    let fine = match case.expect {
        Expect::Code(code) => codes == [code; 2],
        Expect::AnyError => codes.iter().all(|code| [exit::USAGE, exit::IMAGE, exit::SOURCE].contains(code)),
        Expect::Agreement => codes[0] == codes[1],
        Expect::AgreementButForDecoders => {
            let undecodable = first.1.contains("zstd says") || second.1.contains("does not decode");
            codes[0] == codes[1] || (undecodable && codes.contains(&0) && codes.contains(&exit::IMAGE))
        }
    };
    let Case { what, arguments, expect, .. } = case;
    (!fine).then(|| format!("{what} {arguments:?}: {expect:?}\n  imgstream {first:?}\n  imgread   {second:?}"))
}
