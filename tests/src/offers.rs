//! Offers forged images to every command that reads images, and says what must come of it.

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use serde_json::json;

use crate::command::{Done, Run};
use crate::counterfeit::Forgery;
use crate::lab::{Image, Lab};
use crate::{KIB, MIB, Target, exit, sample};

/// The chunks of the image.
pub const CHUNK: u64 = 64 * KIB;
/// Its size: two spans, of sixteen chunks and of nine, the last of them one sector.
pub const SIZE: u64 = 24 * CHUNK + 512;
/// Chunks of data, of which the first is withheld to the end; all others are zeros.
pub const DATA: [usize; 4] = [0, 5, 6, 23];
/// Length of the encrypted region, which begins with chunk 1: its last megabyte is zeros, and a LUKS header takes its place.
pub const ENCRYPTED: u64 = 22 * CHUNK;
/// The last chunk, of data as well.
pub const LAST: usize = 24;

/// A good image, and what has been made of it.
pub struct Offers {
    /// Where all of it lies.
    pub lab: Lab,
    /// The good image.
    pub image: Image,
    /// Its content.
    pub raw: Vec<u8>,
    cases: AtomicU32,
}

impl Default for Offers {
    fn default() -> Self {
        Self::new()
    }
}

impl Offers {
    /// Packs the image.
    pub fn new() -> Self {
        let lab = Lab::new();
        let raw = raw_image();
        let image = lab.pack_bytes(&raw, "--chunk-size 64KiB --span-size 1MiB");
        Offers { lab, image, raw, cases: AtomicU32::new(0) }
    }

    /// The image taken apart, with everything in its descriptor that a descriptor can have.
    pub fn forgery(&self) -> Forgery {
        let mut forgery = Forgery::of(&self.image);
        let luks = json!({"uuid": "6a7e1e3c-0001-4000-8000-000000000001", "header_bytes": MIB});
        forgery.descriptor["expires"] = json!("2999-01-01T00:00:00Z");
        forgery.descriptor["regions"] = json!([
            {"name": "boot", "offset": 0, "length": CHUNK, "encrypt": false},
            {"name": "root", "offset": CHUNK, "length": ENCRYPTED, "encrypt": true, "luks": luks},
            {"name": "end", "offset": CHUNK + ENCRYPTED, "length": SIZE - CHUNK - ENCRYPTED, "encrypt": false},
        ]);
        forgery
    }

    /// A target of the image's size, with old content.
    pub fn target(&self) -> Target {
        Target::file(&self.lab, SIZE)
    }

    /// Tries every case, several at once, and demands that the target that `try_one` is given stays untouched.
    pub fn try_all<T: Sync>(&self, cases: &[T], try_one: impl Fn(&T, &Target) + Sync) {
        // Most of their time is waiting for files and processes.
        let threads = 2 * std::thread::available_parallelism().map_or(2, usize::from);
        std::thread::scope(|scope| {
            for first in 0..threads {
                let try_one = &try_one;
                scope.spawn(move || {
                    let untouched = self.target();
                    cases.iter().skip(first).step_by(threads).for_each(|case| try_one(case, &untouched));
                    untouched.is_untouched();
                });
            }
        });
    }

    /// A command on an image of this key.
    pub fn command(&self, name: &str, dir: impl AsRef<OsStr>) -> Run {
        Run::imgstream().arg(name).arg(dir).arg("--trust").arg(&self.image.key.public)
    }

    /// `imgstream write`.
    pub fn write(&self, dir: &Path, target: &Target) -> Done {
        self.image.write(dir, target.path()).done()
    }

    /// `z-provisioner run`.
    pub fn agent(&self, dir: &Path, target: &Target) -> Done {
        let spec = json!({
            "run": "offers", "target": {"device": target.path()},
            "image": {"name": "sample", "sources": [dir], "trust": [self.image.key.public]},
        });
        let spec = self.lab.file("spec.json", spec.to_string().as_bytes());
        Run::provisioner().args(["run", "--spec"]).arg(spec).done()
    }

    /// `imgstream unpack`; where it fails it leaves nothing.
    ///
    /// # Panics
    /// When it leaves something.
    #[track_caller]
    pub fn unpack(&self, dir: &Path) -> (Done, PathBuf) {
        let out = self.lab.fresh_dir("out").join("raw");
        let done = Run::imgstream().arg("unpack").args([dir, &out]).arg("--trust").arg(&self.image.key.public).done();
        if !done.status.success() {
            let left = crate::lab::listing(out.parent().expect("a directory"));
            assert!(left.is_empty(), "{}\nleft {left:?}", done.line);
        }
        (done, out)
    }

    /// One more case.
    pub fn counts(&self) -> u32 {
        self.cases.fetch_add(1, Relaxed)
    }

    /// No command makes use of the image: each says `why`, and no byte of a target changes.
    #[track_caller]
    pub fn refused(&self, dir: &Path, why: &str) {
        self.counts();
        let target = self.target();
        self.write(dir, &target).exits(exit::IMAGE).says(why);
        self.agent(dir, &target).exits(exit::IMAGE).says(why);
        target.is_untouched();
        self.command("verify", dir).done().exits(exit::IMAGE).says(why);
        self.unpack(dir).0.exits(exit::IMAGE).says(why);
    }

    /// The descriptor is already refused, hence by `inspect` too.
    #[track_caller]
    pub fn refused_at_once(&self, dir: &Path, why: &str) {
        self.refused(dir, why);
        self.command("inspect", dir).done().exits(exit::IMAGE).says(why);
    }

    /// What is wrong is found while the image is being written: the target does not boot and holds nothing wrong.
    #[track_caller]
    pub fn refused_midway(&self, dir: &Path, code: i32, why: &str) {
        self.counts();
        for write in [&Self::write as &dyn Fn(&Self, &Path, &Target) -> Done, &|own, dir, to| own.agent(dir, to)] {
            let target = self.target();
            write(self, dir, &target).exits(code).says(why);
            target.is_unbootable_and_never_wrong(&self.raw, CHUNK);
        }
        self.command("verify", dir).done().exits(code).says(why);
        self.unpack(dir).0.exits(code).says(why);
    }

    /// Nothing is wrong as far as writing goes: the target holds exactly the image.
    #[track_caller]
    pub fn written(&self, dir: &Path) {
        self.counts();
        let target = self.target();
        self.write(dir, &target).ok();
        assert!(target.now() == self.raw, "{} was written wrongly", dir.display());
        let (done, out) = self.unpack(dir);
        done.ok();
        assert!(std::fs::read(out).expect("what was unpacked") == self.raw, "{} was unpacked wrongly", dir.display());
    }

    /// Nothing is wrong at all.
    #[track_caller]
    pub fn accepted(&self, dir: &Path) {
        self.written(dir);
        self.command("verify", dir).done().ok();
    }
}

impl Drop for Offers {
    /// Says how many cases there were, past libtest, which keeps what passing tests print.
    fn drop(&mut self) {
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        let _ = writeln!(std::io::stderr(), "hostile images: {} cases in {name}", self.cases.load(Relaxed));
    }
}

/// A boot record that points to a program table, some data that compresses and some that does not, zeros.
fn raw_image() -> Vec<u8> {
    let mut raw = vec![0; SIZE as usize];
    for chunk in DATA.into_iter().chain([LAST]) {
        let place = &mut raw[chunk * CHUNK as usize..];
        let len = place.len().min(CHUNK as usize);
        place[..len].copy_from_slice(&sample::noise(chunk as u64, len));
    }
    for line in raw[6 * CHUNK as usize..7 * CHUNK as usize].chunks_mut(16) {
        line.copy_from_slice(b"sixteen letters\n");
    }
    raw[..1024].fill(0);
    raw[..4].copy_from_slice(b"zIPL");
    raw[23] = 1;
    raw[24] = 2;
    raw[512..516].copy_from_slice(b"zIPL");
    raw
}
