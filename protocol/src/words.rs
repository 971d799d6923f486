//! Words: each list is closed for whoever writes them, and open for whoever reads them.

/// A closed list of words today, an open one for old readers.
macro_rules! words {
    ($(#[doc = $doc:literal])* $name:ident { $($(#[doc = $word_doc:literal])* $variant:ident = $word:literal,)+ }) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
        #[serde(from = "String", into = "String")]
        pub enum $name {
            $($(#[doc = $word_doc])* $variant,)+
            /// A word this reader does not know.
            Unknown(String),
        }

        impl $name {
            /// Every word that is known here.
            pub const ALL: &'static [Self] = &[$($name::$variant,)+];

            /// The word on the wire.
            pub fn name(&self) -> &str {
                match self {
                    $($name::$variant => $word,)+
                    $name::Unknown(word) => word,
                }
            }
        }

        impl From<String> for $name {
            fn from(word: String) -> Self {
                match word.as_str() {
                    $($word => $name::$variant,)+
                    _ => $name::Unknown(word),
                }
            }
        }

        impl From<$name> for String {
            fn from(word: $name) -> String {
                word.name().to_owned()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        #[cfg(feature = "schema")]
        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                $crate::schema::words(concat!($($doc),*), &[$(($word, concat!($($word_doc),*)),)+])
            }
        }

        #[cfg(feature = "schema")]
        impl utoipa::ToSchema for $name {}
    };
}

pub(crate) use words;
