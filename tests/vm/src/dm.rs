//! Device mapper targets that fail, or are slow, on top of a device.

use crate::guest::Guest;

/// A mapped device.
pub struct Mapped<'g> {
    guest: &'g Guest,
    name: String,
    below: String,
    sectors: u64,
}

impl Guest {
    /// A mapped device that is the one below, for now.
    ///
    /// # Panics
    /// When it cannot be made.
    #[track_caller]
    pub fn map(&self, name: &str, below: &str) -> Mapped<'_> {
        self.sh("modprobe -a dm-mod dm-flakey dm-delay");
        let sectors = self.sh(&format!("blockdev --getsz {below}")).parse().expect("a number of sectors");
        let mapped = Mapped { guest: self, name: name.into(), below: below.into(), sectors };
        self.sh(&format!("dmsetup create {name} {} --table '{}'", mapped.sync(), mapped.linear(0, sectors)));
        self.sh(&format!("[ -b /dev/mapper/{name} ] || dmsetup mknodes {name}"));
        mapped
    }
}

impl Mapped<'_> {
    /// Its device, `/dev/mapper/NAME`.
    pub fn device(&self) -> String {
        format!("/dev/mapper/{}", self.name)
    }

    /// Makes it work again.
    ///
    /// # Panics
    /// When it cannot be changed.
    #[track_caller]
    pub fn heal(&self) {
        self.become_table(&self.linear(0, self.sectors));
    }

    /// Makes so many 512-byte sectors from `first` on fail, to read and to write.
    ///
    /// # Panics
    /// When it cannot be changed.
    #[track_caller]
    pub fn fail_at(&self, first: u64, sectors: u64) {
        let end = first + sectors;
        assert!(end <= self.sectors, "the device has {} sectors", self.sectors);
        let parts = [
            (first > 0).then(|| self.linear(0, first)),
            Some(format!("{first} {sectors} error")),
            (end < self.sectors).then(|| self.linear(end, self.sectors - end)),
        ];
        self.become_table(&parts.into_iter().flatten().collect::<Vec<_>>().join("\n"));
    }

    /// Makes it work for `up` seconds and fail for `down` seconds, in turns.
    ///
    /// # Panics
    /// When it cannot be changed.
    #[track_caller]
    pub fn flake(&self, up: u32, down: u32) {
        self.become_table(&format!("0 {} flakey {} 0 {up} {down}", self.sectors, self.below));
    }

    /// Makes every read and write take so many milliseconds longer.
    ///
    /// # Panics
    /// When it cannot be changed.
    #[track_caller]
    pub fn delay(&self, milliseconds: u32) {
        self.become_table(&format!("0 {} delay {} 0 {milliseconds}", self.sectors, self.below));
    }

    #[track_caller]
    fn become_table(&self, table: &str) {
        let (name, sync) = (&self.name, self.sync());
        // What is under way is finished, or fails, as the old table has it.
        let line =
            format!("dmsetup suspend --noflush {sync} {name} && dmsetup load {name} && dmsetup resume {sync} {name}");
        self.guest.run(&line).stdin(format!("{table}\n")).done().ok();
    }

    fn linear(&self, first: u64, sectors: u64) -> String {
        format!("{first} {sectors} linear {} {first}", self.below)
    }

    /// Without udev nobody answers dmsetup.
    fn sync(&self) -> &'static str {
        if self.guest.run("[ -S /run/udev/control ]").done().end == crate::End::Exit(0) { "" } else { "--noudevsync" }
    }
}
