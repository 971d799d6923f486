//! Disks for tests, with a boot record as zIPL writes it (zipl/src/bootmap.c, `add_ipl_program`).

/// Where the boot partition begins.
pub(super) const BOOT: u64 = 1 << 20;
/// Where it ends; what follows is encrypted.
pub(super) const END: u64 = 2 << 20;
/// The parameters of [`Plan::default`].
pub(super) const PARAMETERS: &str =
    "root=/dev/mapper/root rd.luks.uuid=luks-7A707276-0000-4000-8000-000000000003 quiet";

/// What is to lie on a disk.
pub(super) struct Plan {
    pub(super) block_size: u32,
    pub(super) kernel: Vec<u8>,
    pub(super) kernel_address: u64,
    pub(super) initramfs: Option<Vec<u8>>,
    pub(super) parameters: Option<Vec<u8>>,
    pub(super) menu: usize,
    pub(super) signed: bool,
}

impl Default for Plan {
    fn default() -> Self {
        let mut kernel = vec![7; 70_001];
        kernel[0x10008..0x1000e].copy_from_slice(b"S390EP");
        let initramfs = [&b"070701"[..], &[1; 40_000]].concat();
        Plan {
            block_size: 512,
            kernel,
            kernel_address: 0x10000,
            initramfs: Some(initramfs),
            parameters: Some(PARAMETERS.as_bytes().to_vec()),
            menu: 0,
            signed: false,
        }
    }
}

/// A disk, and where on it what lies, in bytes.
pub(super) struct Disk {
    pub(super) bytes: Vec<u8>,
    block_size: usize,
    /// Bytes that are taken.
    taken: usize,
    pub(super) program_table: usize,
    pub(super) component_table: usize,
    /// The first segment table of each component.
    pub(super) segments: Vec<usize>,
    /// The entry that says where execution begins.
    pub(super) execute: usize,
}

impl Plan {
    pub(super) fn build(&self) -> Disk {
        let block_size = self.block_size as usize;
        let mut disk = Disk {
            bytes: vec![0; END as usize + (64 << 10)],
            block_size,
            taken: BOOT as usize,
            program_table: 0,
            component_table: 0,
            segments: Vec::new(),
            execute: 0,
        };
        let mut entries = Vec::new();
        let mut load = |disk: &mut Disk, kind, content: &[u8], address| {
            let table = disk.content(content);
            entries.push((kind, table, address));
        };
        load(&mut disk, 2, &[0; 0x4000], 0x2000);
        load(&mut disk, 2, &[0; 0x1000], 0xf000);
        if self.signed {
            load(&mut disk, 3, &[9; 600], 0x0100_0000_0000_0258);
        }
        load(&mut disk, 2, &[0x0d; 0x3000], 0xa000);
        let len = self.initramfs.as_ref().map_or(0, Vec::len) as u64;
        let told = [
            0x84_3000,
            if len == 0 { 0 } else { 0x86_0000 },
            len,
            0x0008_0000_8001_0000,
            0,
            1 << 48,
            self.kernel.len() as u64,
        ];
        load(&mut disk, 2, &told.map(u64::to_be_bytes).concat(), 0x9000);
        load(&mut disk, 2, &self.kernel, self.kernel_address);
        if let Some(parameters) = &self.parameters {
            load(&mut disk, 2, &[parameters, &b"\0"[..]].concat(), 0x84_3000);
        }
        if let Some(initramfs) = &self.initramfs {
            load(&mut disk, 2, initramfs, 0x86_0000);
        }
        disk.tables(&entries, self.menu);
        disk
    }
}

impl Disk {
    /// Writes whole blocks of the boot partition.
    fn add(&mut self, bytes: &[u8]) -> usize {
        let at = self.taken;
        self.put(at, bytes);
        self.taken += bytes.len().next_multiple_of(self.block_size);
        at
    }

    pub(super) fn put(&mut self, at: usize, bytes: &[u8]) {
        self.bytes[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// A pointer to `blocks` blocks at a byte.
    pub(super) fn pointer(&self, at: usize, blocks: usize) -> [u8; 16] {
        let mut pointer = [0; 16];
        pointer[..8].copy_from_slice(&((at / self.block_size) as u64).to_be_bytes());
        pointer[8..10].copy_from_slice(&(self.block_size as u16).to_be_bytes());
        pointer[10..12].copy_from_slice(&(blocks as u16 - 1).to_be_bytes());
        pointer
    }

    /// Content in runs of three blocks, and the chain of segment tables that leads there.
    fn content(&mut self, content: &[u8]) -> usize {
        let at = self.add(content);
        let blocks = content.len().div_ceil(self.block_size);
        let runs = (0..blocks).step_by(3).map(|first| (at + first * self.block_size, (blocks - first).min(3)));
        let pointers: Vec<_> = runs.map(|(at, blocks)| self.pointer(at, blocks)).collect();
        let mut next = None;
        for part in pointers.chunks(self.block_size / 16 - 1).rev() {
            let mut table = vec![0; self.block_size];
            table[..part.len() * 16].copy_from_slice(part.as_flattened());
            if let Some(next) = next {
                let end = self.block_size - 16;
                table[end..].copy_from_slice(&self.pointer(next, 1));
            }
            next = Some(self.add(&table));
        }
        next.unwrap()
    }

    fn tables(&mut self, entries: &[(u8, usize, u64)], menu: usize) {
        let mut components = [&b"zIPL"[..], &[0; 28]].concat();
        for (kind, segments, value) in entries {
            self.segments.push(*segments);
            components.extend([&self.pointer(*segments, 1)[..], &[0; 7], &[*kind], &value.to_be_bytes()].concat());
        }
        let execute = components.len();
        components.extend([&[0; 23][..], &[1], &0x0008_0000_8000_a000u64.to_be_bytes()].concat());
        self.component_table = self.add(&components);
        self.execute = self.component_table + execute;
        let programs = self.pointer(self.component_table, 1).repeat(1 + menu);
        self.program_table = self.add(&[&b"zIPL"[..], &[0; 12], &programs].concat());
        let record = [&b"zIPL\0\0\0\x01"[..], &[0; 8], &self.pointer(self.program_table, 1)].concat();
        self.put(0, &record);
        self.put(510, b"\x55\xaa");
    }
}
