//! COMPUTE INTERMEDIATE MESSAGE DIGEST (KIMD), the instruction of s390x that takes whole blocks into the state of a
//! digest: whether it is there, what it offers, and calling it (z/Architecture Principles of Operation, SA22-7832).
//!
//! Proven under emulation with SHA-512, which emulators offer. SHA-256 differs in the function code and in what the
//! caller hands over; on hardware nobody has run it yet, which is why its answers are tested before they are used.
#![allow(unsafe_code)] // An instruction that Rust has no name for; each block says why it is sound.

use std::arch::asm;

use super::message::{Code, Function, State};

/// The bit of `AT_HWCAP` that says "message-security assist", without which KIMD ends the process.
const HWCAP_S390_MSA: u64 = 1 << 3;

/// KIMD's function 0 answers with one bit per function.
const QUERY: u64 = 0;

/// Whether this machine computes the function.
pub(super) fn offers(function: &Function) -> bool {
    // SAFETY: reads a number the kernel gave this process at its start.
    let hwcap = unsafe { libc::getauxval(libc::AT_HWCAP) };
    listed(hwcap, query, function.code)
}

/// The functions are asked for only where the instruction exists.
fn listed(hwcap: u64, query: impl FnOnce() -> [u8; 16], code: Code) -> bool {
    let code = usize::from(code as u8);
    hwcap & HWCAP_S390_MSA != 0 && query()[code / 8] & (0x80 >> (code % 8)) != 0
}

/// The functions KIMD has: bit 0, the leftmost, is function 0. For machines with the message-security assist.
fn query() -> [u8; 16] {
    let mut functions = [0u8; 16];
    // SAFETY: function 0 writes 16 bytes at the address in r1, which are ours. It leaves the second operand alone (r2
    // must be an even register other than 0, and is), and changes nothing else but the condition code.
    unsafe {
        asm!(
            "kimd %r0, %r2",
            in("r0") QUERY,
            in("r1") functions.as_mut_ptr(),
            inout("r2") 0u64 => _,
            inout("r3") 0u64 => _,
            options(nostack),
        );
    }
    functions
}

/// Takes whole blocks into the state. The process ends with SIGILL if the machine does not offer the function.
pub(super) fn compress(function: &Function, state: &mut State, blocks: &[u8]) {
    assert!(blocks.len().is_multiple_of(function.block_len), "KIMD takes whole blocks only");
    // SAFETY: KIMD reads `blocks`, whose address and length are in r2 and r3, and reads and writes the parameter block
    // at the address in r1: for the codes there are, 32 or 64 bytes, and the state has 64. It may stop halfway, with
    // condition code 3 and r2 and r3 moved on; then it is simply run again. A function that is missing, or a length
    // that is not whole blocks, is an exception and no wrong access. The compiler is told of all registers, and assumes
    // that memory and the condition code change.
    unsafe {
        asm!(
            "2: kimd %r0, %r2",
            "jo 2b",
            in("r0") u64::from(function.code as u8),
            in("r1") state.0.as_mut_ptr(),
            inout("r2") blocks.as_ptr() => _,
            inout("r3") blocks.len() => _,
            options(nostack),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::{SHA_256, SHA_512};
    use super::*;

    const SHA_512_ONLY: [u8; 16] = [0b1001_0000, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

    #[test]
    fn a_function_is_offered_when_its_bit_is_set() {
        assert!(!listed(u64::MAX, || SHA_512_ONLY, Code::Sha256));
        assert!(listed(u64::MAX, || SHA_512_ONLY, Code::Sha512));
        assert!(listed(HWCAP_S390_MSA, || [0xff; 16], Code::Sha256));
    }

    #[test]
    fn without_the_assist_the_instruction_is_not_tried() {
        let trap = || panic!("KIMD would end the process here");
        assert!(!listed(!HWCAP_S390_MSA, trap, Code::Sha256));
    }

    #[test]
    fn the_query_of_this_machine_lists_itself() {
        // SAFETY: as in `offers`.
        let hwcap = unsafe { libc::getauxval(libc::AT_HWCAP) };
        assert!(hwcap & HWCAP_S390_MSA != 0, "a machine without CPACF: nothing to test it with");
        let functions = query();
        eprintln!("KIMD offers {functions:02x?}");
        assert_eq!(functions[0] & 0x80, 0x80, "function 0, the query, is always listed: {functions:02x?}");
        assert_eq!(offers(&SHA_512), functions[0] & 0x10 != 0);
        assert_eq!(offers(&SHA_256), functions[0] & 0x20 != 0);
    }
}
