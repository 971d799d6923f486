//! What is measured beside what.

/// The device without encryption.
pub const PLAIN: &str = "plain, two paths";
/// As the kernel opens a container by itself.
const USUAL: &str = "LUKS";

const NO_QUEUES: &[&str] = &["--perf-no_read_workqueue", "--perf-no_write_workqueue"];

/// One way to the disk.
pub struct Way {
    /// As the tables have it.
    pub name: &'static str,
    /// How many paths lead to the disk; one without a multipath map.
    pub paths: Paths,
    /// What is opened on it.
    pub luks: Option<Luks>,
    /// `imgstream bench --largest-write`.
    pub largest_write: Option<&'static str>,
    /// The name of the way it is held against.
    pub beside: Option<&'static str>,
}

/// How the disk is reached.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Paths {
    /// The SCSI disk itself.
    One,
    /// A multipath map over two.
    Two,
}

/// A container.
#[derive(Clone, Copy)]
pub struct Luks {
    /// Bytes that are encrypted at a time.
    pub sector: u32,
    /// More options of `cryptsetup open`.
    pub flags: &'static [&'static str],
}

const fn luks(
    name: &'static str,
    sector: u32,
    flags: &'static [&'static str],
    largest_write: Option<&'static str>,
    beside: &'static str,
) -> Way {
    Way { name, paths: Paths::Two, luks: Some(Luks { sector, flags }), largest_write, beside: Some(beside) }
}

/// All ways, in the order of the tables.
pub const WAYS: [Way; 6] = [
    Way { name: "plain, one path", paths: Paths::One, luks: None, largest_write: None, beside: None },
    Way { name: PLAIN, paths: Paths::Two, luks: None, largest_write: None, beside: Some("plain, one path") },
    luks(USUAL, 512, &[], None, PLAIN),
    luks("LUKS, no queues", 512, NO_QUEUES, None, USUAL),
    luks("LUKS, writes of 128 KiB", 512, &[], Some("128KiB"), USUAL),
    luks("LUKS, sectors of 4096", 4096, &[], None, USUAL),
];
