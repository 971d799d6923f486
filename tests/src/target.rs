//! A target with old content, to see afterwards what became of it.

use std::path::{Path, PathBuf};

use crate::lab::Lab;
use crate::loopdev::Loop;
use crate::sample::noise;

/// A file full of a previous owner's data, perhaps behind a loop device.
pub struct Target {
    file: PathBuf,
    old: Vec<u8>,
    device: Option<Loop>,
}

impl Target {
    /// A regular file.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn file(lab: &Lab, size: u64) -> Self {
        let file = lab.fresh("target");
        let old = noise(0x01d, size as usize);
        std::fs::write(&file, &old).expect("writing a target");
        Target { file, old, device: None }
    }

    /// A loop device with options of losetup.
    pub fn device(lab: &Lab, size: u64, options: &str) -> Self {
        let mut target = Self::file(lab, size);
        target.device = Some(Loop::attach_with(&target.file, options));
        target
    }

    /// What to write to.
    pub fn path(&self) -> &Path {
        self.device.as_ref().map_or(&self.file, Loop::path)
    }

    /// The file that holds the bytes.
    pub fn backing(&self) -> &Path {
        &self.file
    }

    /// The loop device.
    ///
    /// # Panics
    /// When it is a file.
    pub fn loop_device(&self) -> &Loop {
        self.device.as_ref().expect("a target that is a loop device")
    }

    /// Writes back what the page cache holds of the device, so that the file has it.
    ///
    /// # Panics
    /// When it cannot.
    pub fn settle(&self) {
        if let Some(device) = &self.device {
            std::fs::File::open(device.path()).and_then(|device| device.sync_data()).expect("flushing a target");
        }
    }

    /// What it holds now.
    ///
    /// # Panics
    /// When it cannot be read.
    pub fn now(&self) -> Vec<u8> {
        self.settle();
        std::fs::read(&self.file).expect("reading a target")
    }

    /// Whether any byte has changed.
    pub fn was_touched(&self) -> bool {
        self.now() != self.old
    }

    /// Demands that no byte has changed.
    ///
    /// # Panics
    /// When one has.
    #[track_caller]
    pub fn is_untouched(&self) {
        assert!(!self.was_touched(), "{} was touched", self.path().display());
    }

    /// Demands that a run that failed left nothing that boots and nothing that is wrong: the first chunk is zero, and
    /// every other chunk is old, zero, or exactly the image's.
    ///
    /// # Panics
    /// When it is not so.
    #[track_caller]
    pub fn is_unbootable_and_never_wrong(&self, raw: &[u8], chunk: u64) {
        let (now, chunk) = (self.now(), chunk as usize);
        assert!(now[..chunk].iter().all(|byte| *byte == 0), "the first chunk of {} is not zero", self.path().display());
        for (number, right) in raw.chunks(chunk).enumerate() {
            let place = number * chunk..number * chunk + right.len();
            let found = &now[place.clone()];
            let fine = found == right || found == &self.old[place] || found.iter().all(|byte| *byte == 0);
            assert!(fine, "chunk {number} of {} is neither old, zero nor right", self.path().display());
        }
    }

    /// Whether the first `len` bytes are zero.
    pub fn starts_with_zeros(&self, len: u64) -> bool {
        use std::os::unix::fs::FileExt;
        self.settle();
        let mut start = vec![1; len as usize];
        let read = std::fs::File::open(&self.file).and_then(|file| file.read_exact_at(&mut start, 0));
        read.is_ok() && start.iter().all(|byte| *byte == 0)
    }

    /// How many chunks of `raw` it holds already.
    pub fn right_chunks(&self, raw: &[u8], chunk: u64) -> usize {
        let now = self.now();
        raw.chunks(chunk as usize)
            .zip(now.chunks(chunk as usize))
            .filter(|(right, found)| found.starts_with(right))
            .count()
    }
}
