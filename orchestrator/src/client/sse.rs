//! Server-sent events as the HTML standard has them, of a bounded size, in whatever pieces they arrive.

/// Largest event, in bytes.
pub const MAX_EVENT: usize = 2 << 20;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Its kind; `message` where it has none.
    pub event: String,
    /// Its lines, joined.
    pub data: String,
}

/// An event is larger than [`MAX_EVENT`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge;

/// Reads one stream.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    after_return: bool,
    is_begun: bool,
    event: String,
    data: String,
    has_data: bool,
    id: Option<String>,
    last_id: Option<String>,
}

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

impl Parser {
    /// The id of the last event that was complete. It goes into `Last-Event-ID` of the next stream.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// Takes bytes as they come, and gives the events that they complete.
    ///
    /// # Errors
    /// The event that is being read is too large.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Vec<Message>, TooLarge> {
        let mut messages = Vec::new();
        for byte in bytes {
            match byte {
                // The second half of a line end.
                b'\n' if self.after_return => self.after_return = false,
                b'\n' | b'\r' => {
                    self.after_return = *byte == b'\r';
                    let line = std::mem::take(&mut self.line);
                    messages.extend(self.line_is(&line));
                }
                byte => {
                    self.after_return = false;
                    if self.line.len() + self.data.len() >= MAX_EVENT {
                        return Err(TooLarge);
                    }
                    self.line.push(*byte);
                }
            }
        }
        Ok(messages)
    }

    fn line_is(&mut self, line: &[u8]) -> Option<Message> {
        let begins = !std::mem::replace(&mut self.is_begun, true);
        let line = line.strip_prefix(BYTE_ORDER_MARK).filter(|_| begins).unwrap_or(line);
        if line.is_empty() {
            return self.ends();
        }
        let text = String::from_utf8_lossy(line);
        let (field, value) = text.split_once(':').unwrap_or((&text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event = value.to_owned(),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            // A comment, or a field that is not for us.
            _ => {}
        }
        None
    }

    /// An empty line: what came before it is whole. Without data it is none, but its id counts.
    fn ends(&mut self) -> Option<Message> {
        if let Some(id) = self.id.take() {
            self.last_id = Some(id);
        }
        let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
        let event = if event.is_empty() { "message".to_owned() } else { event };
        std::mem::take(&mut self.has_data).then_some(Message { event, data })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<(String, String)> {
        let messages = Parser::default().push(text.as_bytes()).unwrap();
        messages.into_iter().map(|message| (message.event, message.data)).collect()
    }

    fn said(parts: &[(&str, &str)]) -> Vec<(String, String)> {
        parts.iter().map(|(event, data)| ((*event).to_owned(), (*data).to_owned())).collect()
    }

    #[test]
    fn events_lines_comments_and_line_ends() {
        let text = "\u{feff}: hello\n\nevent: state\nid: 7\ndata: {\ndata:  \"a\": 1\ndata:}\n\ndata\n\n:\nretry: 3\nevent: x\n\n";
        let expected = said(&[("state", "{\n \"a\": 1\n}"), ("message", "")]);
        assert_eq!(read(text), expected);
        assert_eq!(read(&text.replace('\n', "\r\n")), expected);
        assert_eq!(read(&text.replace('\n', "\r")), expected);
    }

    #[test]
    fn an_event_that_was_cut_is_none_and_neither_is_its_id() {
        let mut parser = Parser::default();
        assert_eq!(parser.push(b"id: 1\ndata: a\n\nid: 2\ndata: b\n").unwrap().len(), 1);
        assert_eq!(parser.last_id(), Some("1"));
        assert_eq!(parser.push(b"\n").unwrap()[0].data, "b");
        assert_eq!(parser.last_id(), Some("2"));
        assert_eq!(parser.push(b"data: c\n\n").unwrap().len(), 1);
        assert_eq!(parser.last_id(), Some("2"), "an event without an id keeps the place");
        parser.push(b"id: 3\0\n\n").unwrap();
        assert_eq!(parser.last_id(), Some("2"));
    }

    #[test]
    fn one_that_does_not_end_is_refused() {
        let kilobyte = vec![b'x'; 1024];
        let mut parser = Parser::default();
        let until = (0..4096).find(|_| parser.push(&kilobyte).is_err());
        assert_eq!(until, Some(MAX_EVENT / 1024));
        let mut parser = Parser::default();
        let line = format!("data: {}\n", "x".repeat(1024));
        let until = (0..4096).find(|_| parser.push(line.as_bytes()).is_err());
        assert!(until.is_some_and(|lines| lines <= MAX_EVENT / 1024));
        let mut parser = Parser::default();
        (0..10_000).for_each(|_| drop(parser.push(format!("{line}\n").as_bytes()).unwrap()));
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_a_stream_is_split(text in "((data|id|event|:)(: ?)?[ab]{0,3}(\r\n|\n|\r)|\n|\r|\r\n|ä){0,20}",
                                                      cuts in prop::collection::vec(0usize..200, 0..10)) {
            let mut whole = Parser::default();
            let expected = whole.push(text.as_bytes()).unwrap();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).chain([0, text.len()]).collect();
            cuts.sort_unstable();
            let mut parser = Parser::default();
            let mut found = Vec::new();
            for pair in cuts.windows(2) {
                found.extend(parser.push(&text.as_bytes()[pair[0]..pair[1]]).unwrap());
            }
            prop_assert_eq!(found, expected);
            prop_assert_eq!(parser.last_id(), whole.last_id());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
            let _ = Parser::default().push(&bytes);
        }
    }
}
