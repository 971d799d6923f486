//! A key as it is stored: the engine knows whether anything of it is elsewhere, and nothing more.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A key that the service has made, as whoever keeps keys has sealed it: text that means nothing to anybody else.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Sealed {
    /// The key itself, encrypted. Whoever forgets this text has destroyed it.
    Here(String),
    /// The place where it is kept. It must be destroyed there as well.
    Elsewhere {
        /// The place.
        elsewhere: String,
    },
}

impl Sealed {
    /// The key itself, encrypted.
    pub fn new(text: String) -> Self {
        Sealed::Here(text)
    }

    /// The text.
    pub fn text(&self) -> &str {
        match self {
            Sealed::Here(text) | Sealed::Elsewhere { elsewhere: text } => text,
        }
    }

    /// Whether something remains when the text is forgotten.
    pub fn is_elsewhere(&self) -> bool {
        matches!(self, Sealed::Elsewhere { .. })
    }

    /// What is kept at this place.
    pub fn at(place: &str) -> Self {
        Sealed::Elsewhere { elsewhere: place.to_owned() }
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_key_is_written_as_ever_and_a_place_is_told_from_it() {
        let (here, there) = (Sealed::new("text".into()), Sealed::at("place"));
        let written = |sealed: &Sealed| serde_json::to_string(sealed).unwrap();
        assert_eq!((written(&here).as_str(), written(&there).as_str()), (r#""text""#, r#"{"elsewhere":"place"}"#));
        for sealed in [here, there] {
            assert_eq!(serde_json::from_str::<Sealed>(&written(&sealed)).unwrap(), sealed);
            assert!(!format!("{sealed:?}").contains(sealed.text()));
        }
        assert!(Sealed::at("text") != Sealed::new("text".into()));
    }
}
