//! Random numbers: for the nonce of a process, and so that many agents do not do the same thing at once.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use imgstream::error::{Error, Result};
use protocol::Token;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// Random bytes of a token.
const BYTES: usize = 32;

/// A new token.
///
/// # Errors
/// `Device` when the kernel gives no random numbers.
pub(super) fn token() -> Result<Token> {
    let none = |_| Error::device("getting random bytes for a nonce: the kernel gives none");
    let mut bytes = Zeroizing::new([0; BYTES]);
    SystemRandom::new().fill(&mut *bytes).map_err(none)?;
    Token::try_from(URL_SAFE_NO_PAD.encode(*bytes)).map_err(|error| Error::device(format!("making a nonce: {error}")))
}

/// A number from 0 to 255. Without randomness it is always the same, and pauses are merely not jittered.
pub(super) fn byte() -> u8 {
    let mut byte = [0];
    let _ = SystemRandom::new().fill(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_tokens_are_alike() {
        let (one, other) = (token().unwrap(), token().unwrap());
        assert_eq!(one.reveal().len(), Token::LEN);
        assert_ne!(one.reveal(), other.reveal());
    }
}
