//! Messages of vici: sections of named values, lists and further sections. Written and read as strongSwan's
//! `src/libcharon/plugins/vici/README.md` says.

use zeroize::Zeroizing;

const SECTION_START: u8 = 1;
const SECTION_END: u8 = 2;
const KEY_VALUE: u8 = 3;
const LIST_START: u8 = 4;
const LIST_ITEM: u8 = 5;
const LIST_END: u8 = 6;

/// Sections within sections that are read.
const DEEPEST: usize = 16;

/// A message, or a section of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message(Vec<(String, Element)>);

/// Bytes of a value, wiped when they are not needed any more: some are keys.
type Bytes = Zeroizing<Vec<u8>>;

#[derive(Clone, PartialEq, Eq)]
enum Element {
    Value(Bytes),
    List(Vec<Bytes>),
    Section(Message),
}

/// Values may be keys, and are not shown.
impl std::fmt::Debug for Element {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Element::Value(value) => write!(f, "{} bytes", value.len()),
            Element::List(items) => write!(f, "[{} items]", items.len()),
            Element::Section(section) => section.fmt(f),
        }
    }
}

impl Message {
    /// With nothing in it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a value.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.0.push((name.into(), Element::Value(Zeroizing::new(value.as_ref().to_vec()))));
        self
    }

    /// Adds a list.
    #[must_use]
    pub fn list<V: AsRef<[u8]>>(mut self, name: &str, items: impl IntoIterator<Item = V>) -> Self {
        let items = items.into_iter().map(|item| Zeroizing::new(item.as_ref().to_vec())).collect();
        self.0.push((name.into(), Element::List(items)));
        self
    }

    /// Adds a section.
    #[must_use]
    pub fn section(mut self, name: &str, section: Message) -> Self {
        self.0.push((name.into(), Element::Section(section)));
        self
    }

    /// A value as text.
    pub fn text(&self, name: &str) -> Option<String> {
        self.0.iter().find_map(|(own, element)| match element {
            Element::Value(value) if own == name => Some(String::from_utf8_lossy(value).into_owned()),
            _ => None,
        })
    }

    /// A list's items as text; none where there is no such list.
    pub fn texts(&self, name: &str) -> Vec<String> {
        let items = self.0.iter().find_map(|(own, element)| match element {
            Element::List(items) if own == name => Some(items),
            _ => None,
        });
        items.into_iter().flatten().map(|item| String::from_utf8_lossy(item).into_owned()).collect()
    }

    /// All sections, with their names.
    pub fn sections(&self) -> impl Iterator<Item = (&str, &Message)> {
        self.0.iter().filter_map(|(name, element)| match element {
            Element::Section(section) => Some((name.as_str(), section)),
            _ => None,
        })
    }

    /// Writes it behind what is there already, which must have room: a buffer that grows leaves keys behind. `None` where a name or
    /// a value is too long.
    pub(super) fn encode(&self, to: &mut Vec<u8>) -> Option<()> {
        for (name, element) in &self.0 {
            match element {
                Element::Value(value) => {
                    to.push(KEY_VALUE);
                    write_name(name, to)?;
                    write_value(value, to)?;
                }
                Element::List(items) => {
                    to.push(LIST_START);
                    write_name(name, to)?;
                    for item in items {
                        to.push(LIST_ITEM);
                        write_value(item, to)?;
                    }
                    to.push(LIST_END);
                }
                Element::Section(section) => {
                    to.push(SECTION_START);
                    write_name(name, to)?;
                    section.encode(to)?;
                    to.push(SECTION_END);
                }
            }
        }
        Some(())
    }

    /// How many bytes it takes at most.
    pub(super) fn room(&self) -> usize {
        let elements = self.0.iter().map(|(name, element)| {
            let content = match element {
                Element::Value(value) => value.len(),
                Element::List(items) => items.iter().map(|item| item.len() + 3).sum(),
                Element::Section(section) => section.room(),
            };
            name.len() + content + 8
        });
        elements.sum()
    }

    /// Reads one. `None` where the bytes are none.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes;
        let message = read_section(&mut rest, 0)?;
        rest.is_empty().then_some(message)
    }
}

pub(super) fn write_name(name: &str, to: &mut Vec<u8>) -> Option<()> {
    to.push(u8::try_from(name.len()).ok()?);
    to.extend(name.as_bytes());
    Some(())
}

fn write_value(value: &[u8], to: &mut Vec<u8>) -> Option<()> {
    to.extend(u16::try_from(value.len()).ok()?.to_be_bytes());
    to.extend(value);
    Some(())
}

/// Reads until the end of the section, or at depth 0 of the bytes.
fn read_section(rest: &mut &[u8], depth: usize) -> Option<Message> {
    let mut section = Message::new();
    loop {
        let Some((kind, more)) = rest.split_first() else { return (depth == 0).then_some(section) };
        *rest = more;
        match *kind {
            SECTION_END => return (depth > 0).then_some(section),
            SECTION_START if depth < DEEPEST => {
                let name = read_name(rest)?;
                section.0.push((name, Element::Section(read_section(rest, depth + 1)?)));
            }
            KEY_VALUE => {
                let name = read_name(rest)?;
                section.0.push((name, Element::Value(read_value(rest)?)));
            }
            LIST_START => {
                let name = read_name(rest)?;
                section.0.push((name, Element::List(read_list(rest)?)));
            }
            _ => return None,
        }
    }
}

fn read_list(rest: &mut &[u8]) -> Option<Vec<Bytes>> {
    let mut items = Vec::new();
    loop {
        match take(rest, 1)? {
            [LIST_ITEM] => items.push(read_value(rest)?),
            [LIST_END] => return Some(items),
            _ => return None,
        }
    }
}

pub(super) fn read_name(rest: &mut &[u8]) -> Option<String> {
    let len = take(rest, 1)?[0];
    Some(String::from_utf8_lossy(take(rest, len.into())?).into_owned())
}

fn read_value(rest: &mut &[u8]) -> Option<Bytes> {
    let len = u16::from_be_bytes(*take(rest, 2)?.first_chunk()?);
    Some(Zeroizing::new(take(rest, len.into())?.to_vec()))
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (taken, more) = rest.split_at_checked(len)?;
    *rest = more;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(message: &Message) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(message.room());
        message.encode(&mut bytes).unwrap();
        assert!(bytes.len() <= message.room());
        bytes
    }

    /// The example of the specification.
    #[test]
    fn it_is_written_and_read_as_the_specification_shows() {
        let sub = Message::new().with("key2", "value2");
        let section = Message::new().section("sub-section", sub).list("list1", ["item1", "item2"]);
        let message = Message::new().with("key1", "value1").section("section1", section);
        let expected = b"\x03\x04key1\x00\x06value1\x01\x08section1\x01\x0bsub-section\x03\x04key2\x00\x06value2\x02\
            \x04\x05list1\x05\x00\x05item1\x05\x00\x05item2\x06\x02";
        assert_eq!(encoded(&message), expected);
        let read = Message::decode(expected).unwrap();
        assert_eq!(read, message);
        assert_eq!(read.text("key1").as_deref(), Some("value1"));
        let (name, section) = read.sections().next().unwrap();
        assert_eq!((name, section.texts("list1")), ("section1", vec!["item1".to_owned(), "item2".to_owned()]));
        assert_eq!((read.text("none"), read.texts("none")), (None, Vec::new()));
        for len in 1..expected.len() {
            // It may end before a new element of the outermost level only.
            assert_eq!(Message::decode(&expected[..len]).is_some(), len == 14, "{len}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for wrong in
            [&[2][..], &[5, 0, 0], &[6], &[9], &[1, 1, b'a', 5, 0, 0], &[4, 1, b'a', 3], &[3, 1, b'a', 0, 9, 1]]
        {
            assert_eq!(Message::decode(wrong), None, "{wrong:?}");
        }
        let deep = |levels| [[1, 1, b'a'].repeat(levels), vec![2; levels]].concat();
        assert!(Message::decode(&deep(DEEPEST)).is_some() && Message::decode(&deep(DEEPEST + 1)).is_none());
        assert_eq!(Message::new().with("a", vec![0; 1 << 16]).encode(&mut Vec::new()), None);
        assert_eq!(Message::new().with(&"a".repeat(256), "").encode(&mut Vec::new()), None);
    }

    #[test]
    fn values_are_not_shown() {
        let message = Message::new().with("data", "secret").list("owners", ["secret"]);
        assert!(!format!("{message:?}").contains("secret"));
    }

    fn message() -> impl Strategy<Value = Message> {
        let bytes = || proptest::collection::vec(any::<u8>(), 0..20);
        let leaf = prop_oneof![
            ("[a-z-]{0,9}", bytes()).prop_map(|(name, value)| Message::new().with(&name, value)),
            ("[a-z-]{0,9}", proptest::collection::vec(bytes(), 0..4))
                .prop_map(|(name, items)| Message::new().list(&name, items)),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            proptest::collection::vec(("[a-z-]{0,9}", inner), 0..4).prop_map(|sections| {
                sections.into_iter().fold(Message::new(), |whole, (name, section)| whole.section(&name, section))
            })
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(message in message()) {
            prop_assert_eq!(Message::decode(&encoded(&message)), Some(message));
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(0u8..10, 0..200)) {
            let _ = Message::decode(&bytes);
        }
    }
}
