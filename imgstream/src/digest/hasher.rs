//! A digest in the making. Which implementation makes it is decided once per process.
//!
//! On s390x `ring` is portable code, and CPACF, the instructions for cryptography that every machine of the family has,
//! is much faster. It is used only after it has given right answers; otherwise `ring` does the work, and a warning says
//! so. Emulators lack the function for SHA-256; how the choice is made does not depend on the function, so that it can
//! be tested there with SHA-512.

#[cfg(target_arch = "s390x")]
use super::cpacf;
#[cfg(any(test, target_arch = "s390x"))]
use super::message::{Compress, Function};
#[cfg(target_arch = "s390x")]
use super::message::{Message, SHA_256};
use super::{Digest, prefetch};

/// A digest in the making.
#[derive(Clone)]
pub struct Hasher(Running);

#[derive(Clone)]
enum Running {
    Ring(ring::digest::Context),
    #[cfg(target_arch = "s390x")]
    Cpacf(Message),
}

impl Hasher {
    /// Of no bytes yet.
    pub fn new() -> Self {
        #[cfg(target_arch = "s390x")]
        if choice() == Choice::Cpacf {
            return Hasher(Running::Cpacf(Message::new(&SHA_256, cpacf::compress)));
        }
        Hasher(Running::Ring(ring::digest::Context::new(&ring::digest::SHA256)))
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Running::Ring(context) => prefetch::in_pieces(bytes, |piece| context.update(piece)),
            #[cfg(target_arch = "s390x")]
            Running::Cpacf(message) => message.update(bytes),
        }
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> Digest {
        let mut bytes = [0; Digest::LEN];
        match self.0 {
            Running::Ring(context) => bytes.copy_from_slice(context.finish().as_ref()),
            #[cfg(target_arch = "s390x")]
            Running::Cpacf(message) => bytes.copy_from_slice(message.finish().of(&SHA_256)),
        }
        Digest(bytes)
    }
}

impl Default for Hasher {
    fn default() -> Self {
        Self::new()
    }
}

/// What computes the digests of this process: `ring`, or `CPACF KIMD-SHA-256`.
pub fn implementation() -> &'static str {
    #[cfg(target_arch = "s390x")]
    match choice() {
        Choice::Cpacf => return "CPACF KIMD-SHA-256",
        Choice::NoCpacf => {}
        Choice::WrongCpacf => return "ring (CPACF KIMD-SHA-256 failed its self-test)",
    }
    "ring"
}

/// Who computes a digest function, and why.
#[cfg(any(test, target_arch = "s390x"))]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Choice {
    /// The instruction: it is there and right.
    Cpacf,
    /// Portable code: this machine has no such instruction, or the instruction no such function.
    NoCpacf,
    /// Portable code: the instruction is there and gave a wrong answer.
    WrongCpacf,
}

/// The choice for one function, from whether the instruction offers it and from what it answers.
#[cfg(any(test, target_arch = "s390x"))]
fn choose(function: &'static Function, offered: bool, compress: Compress) -> Choice {
    if !offered {
        Choice::NoCpacf
    } else if function.answers_right(compress) {
        Choice::Cpacf
    } else {
        Choice::WrongCpacf
    }
}

/// The choice for SHA-256, made and told once.
#[cfg(target_arch = "s390x")]
fn choice() -> Choice {
    static CHOICE: std::sync::OnceLock<Choice> = std::sync::OnceLock::new();
    *CHOICE.get_or_init(|| {
        let choice = choose(&SHA_256, cpacf::offers(&SHA_256), cpacf::compress);
        match choice {
            Choice::Cpacf => tracing::debug!("SHA-256 is computed by CPACF (KIMD), which passed its self-test"),
            Choice::NoCpacf => {
                tracing::warn!("this machine's CPACF has no SHA-256 (KIMD): portable code computes it, more slowly");
            }
            Choice::WrongCpacf => tracing::error!(
                "CPACF's SHA-256 (KIMD) gave a WRONG digest in its self-test and is not used: portable code computes \
                 SHA-256, more slowly; this processor or its emulation is broken, have it looked at"
            ),
        }
        choice
    })
}

#[cfg(test)]
mod tests {
    use super::super::message::{SHA_256, SHA_512, State};
    use super::super::portable;
    use super::*;

    /// Right in everything but one bit of each block's result.
    fn one_bit_off(function: &Function, state: &mut State, blocks: &[u8]) {
        portable::compress(function, state, blocks);
        state.0[3] ^= 0x10;
    }

    /// Right as long as there is one block: a loop that ends too early.
    fn first_block_only(function: &Function, state: &mut State, blocks: &[u8]) {
        portable::compress(function, state, &blocks[..function.block_len]);
    }

    fn must_not_be_called(_: &Function, _: &mut State, _: &[u8]) {
        panic!("what is not offered must not be tried: it would end the process");
    }

    #[test]
    fn only_an_instruction_that_is_there_and_right_is_used() {
        for function in [&SHA_256, &SHA_512] {
            assert_eq!(choose(function, true, portable::compress), Choice::Cpacf);
            assert_eq!(choose(function, true, one_bit_off), Choice::WrongCpacf);
            assert_eq!(choose(function, true, first_block_only), Choice::WrongCpacf);
            assert_eq!(choose(function, false, must_not_be_called), Choice::NoCpacf);
        }
    }

    #[test]
    fn the_implementation_in_use_is_told() {
        #[cfg(target_arch = "s390x")]
        let expected = if cpacf::offers(&SHA_256) { "CPACF KIMD-SHA-256" } else { "ring" };
        #[cfg(not(target_arch = "s390x"))]
        let expected = "ring";
        eprintln!("SHA-256 is computed by {}", implementation());
        assert_eq!(implementation(), expected);
    }

    /// Under an emulator that knows only SHA-512 this is the whole path: detection, self-test, choice.
    #[cfg(target_arch = "s390x")]
    #[test]
    fn the_instruction_of_this_machine_is_found_tested_and_chosen() {
        assert_eq!(choose(&SHA_512, cpacf::offers(&SHA_512), cpacf::compress), Choice::Cpacf);
        let expected = if cpacf::offers(&SHA_256) { Choice::Cpacf } else { Choice::NoCpacf };
        assert_eq!(choice(), expected);
    }

    #[test]
    fn a_clone_goes_its_own_way() {
        let mut one = Hasher::new();
        one.update(b"a");
        let mut other = one.clone();
        one.update(b"bc");
        other.update(b"x");
        assert_eq!(one.finish(), Digest::of(b"abc"));
        assert_eq!(other.finish(), Digest::of(b"ax"));
    }
}
