//! One memory image of kernel, parameters and file system, as firmware loads it to address 0 and starts it: from a CD (El Torito),
//! through an `.ins` file, over the network.
//!
//! The kernel's own places are told in its `arch/s390/boot/head.S` and `include/asm/setup.h` ("parmarea").

use std::io;

/// Where the kernel says that it is one: `S390EP`.
pub const KERNEL_MAGIC: (usize, &[u8]) = (0x10008, b"S390EP");
/// Eight bytes: where the file system begins.
pub const INITRD_START: usize = 0x10408;
/// Eight bytes: how long it is.
pub const INITRD_SIZE: usize = 0x10410;
/// Eight bytes: how long the parameters may be, with the zero at their end. Set by the kernel.
const MAX_PARAMETERS: usize = 0x10430;
/// The parameters, with a zero at their end.
pub const PARAMETERS: usize = 0x10480;

/// The first program status word: 31-bit mode, at the kernel's entry.
const IPL_PSW: [u8; 8] = [0x00, 0x08, 0x00, 0x00, 0x80, 0x01, 0x00, 0x00];

const MIB: usize = 1 << 20;

/// Puts kernel, file system and parameters into one image.
///
/// # Errors
/// When the kernel is none for this machine, or has no room for the parameters.
pub fn assemble(kernel: &[u8], filesystem: &[u8], parameters: &str) -> io::Result<Vec<u8>> {
    let (at, magic) = KERNEL_MAGIC;
    if kernel.get(at..at + magic.len()) != Some(magic) {
        return Err(io::Error::other("the kernel is none for s390x: it does not say S390EP"));
    }
    let start = kernel.len().next_multiple_of(MIB);
    let mut image = Vec::with_capacity(start + filesystem.len());
    image.extend_from_slice(kernel);
    image[..IPL_PSW.len()].copy_from_slice(&IPL_PSW);
    put(&mut image, INITRD_START, start as u64);
    put(&mut image, INITRD_SIZE, filesystem.len() as u64);
    set_parameters(&mut image, parameters)?;
    image.resize(start, 0);
    image.extend_from_slice(filesystem);
    Ok(image)
}

/// Sets the parameters of an image, or of the head of one.
///
/// # Errors
/// When there is no room for them.
pub fn set_parameters(image: &mut [u8], parameters: &str) -> io::Result<()> {
    let room = usize::try_from(get(image, MAX_PARAMETERS).unwrap_or(0)).unwrap_or(0);
    // Before 5.16 the kernel did not say.
    let room = if room == 0 { 896 } else { room };
    if parameters.len() >= room || parameters.contains('\0') {
        let length = parameters.len();
        return Err(io::Error::other(format!(
            "the kernel's parameters have {length} bytes, and there is room for {}",
            room - 1
        )));
    }
    let place =
        image.get_mut(PARAMETERS..PARAMETERS + room).ok_or_else(|| io::Error::other("the kernel is cut short"))?;
    place.fill(0);
    place[..parameters.len()].copy_from_slice(parameters.as_bytes());
    Ok(())
}

/// The parameters of an image.
pub fn parameters(image: &[u8]) -> Option<&str> {
    let rest = image.get(PARAMETERS..)?;
    let length = rest.iter().take(4096).position(|byte| *byte == 0)?;
    std::str::from_utf8(&rest[..length]).ok()
}

/// A big-endian number of an image.
pub fn get(image: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(image.get(at..at + 8)?.try_into().ok()?))
}

fn put(image: &mut [u8], at: usize, number: u64) {
    image[at..at + 8].copy_from_slice(&number.to_be_bytes());
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn kernel() -> Vec<u8> {
        let mut kernel = vec![0x5a; MIB + 4097];
        kernel[KERNEL_MAGIC.0..KERNEL_MAGIC.0 + 6].copy_from_slice(KERNEL_MAGIC.1);
        put(&mut kernel, MAX_PARAMETERS, 4096);
        kernel
    }

    #[test]
    fn parts_lie_where_the_kernel_looks_for_them() {
        let image = assemble(&kernel(), b"archive", "console=ttysclp0 quiet").unwrap();
        assert_eq!(image[..8], IPL_PSW);
        assert_eq!(image[8..32], [0x5a; 24], "firmware looks at these");
        assert_eq!((get(&image, INITRD_START), get(&image, INITRD_SIZE)), (Some(2 * MIB as u64), Some(7)));
        assert_eq!(&image[2 * MIB..], b"archive");
        assert_eq!(parameters(&image), Some("console=ttysclp0 quiet"));
    }

    #[test]
    fn what_cannot_be_started_is_refused() {
        assert!(assemble(&vec![0; MIB], b"", "").unwrap_err().to_string().contains("S390EP"));
        assert!(assemble(b"short", b"", "").is_err());
        let long = "x".repeat(4096);
        assert!(assemble(&kernel(), b"", &long).unwrap_err().to_string().contains("room for 4095"));
        assert!(assemble(&kernel(), b"", &long[1..]).is_ok());
    }
}
