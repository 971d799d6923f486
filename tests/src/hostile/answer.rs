//! HTTP answers as a server should give them, to be twisted, and what a server does with its connection.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

/// An answer. Nothing in it is checked: that is its purpose.
#[derive(Debug, Clone)]
pub struct Answer {
    status: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// The whole file, where the body is part of one.
    file: Arc<Vec<u8>>,
    /// Which part.
    range: Range<u64>,
}

/// What a server does.
#[derive(Debug, Clone)]
pub enum Step {
    /// Sends bytes.
    Send(Vec<u8>),
    /// Sends bytes one by one, with pauses.
    Drip(Vec<u8>, Duration),
    /// Sends bytes again and again until the client has enough.
    ForEver(Vec<u8>),
    /// Does nothing for a while.
    Pause(Duration),
    /// Does nothing until the client goes.
    Silence,
    /// Closes as TCP knows it: everything sent arrives.
    Close,
    /// Resets the connection.
    Reset,
}

/// What a server does on a request. Without an end of its own, the connection waits for the next request.
pub type Act = Vec<Step>;

impl From<Answer> for Act {
    fn from(answer: Answer) -> Act {
        vec![Step::Send(answer.bytes())]
    }
}

impl Answer {
    /// A status such as `404 Not Found`, and a body.
    pub fn new(status: &str, body: impl Into<Vec<u8>>) -> Self {
        let (status, headers, file) = (status.into(), Vec::new(), Arc::default());
        Answer { status, headers, body: Vec::new(), file, range: 0..0 }.body(body)
    }

    /// The right answer for a file, or the part of it that was asked for.
    pub fn of_file(file: Arc<Vec<u8>>, range: Option<&Range<u64>>) -> Self {
        let Some(range) = range else {
            let range = 0..file.len() as u64;
            return Answer { range, ..Answer::new("200 OK", file.as_slice()) }.of(file);
        };
        let Some(part) = file.get(range.start as usize..range.end as usize) else {
            return Answer::new("416 Range Not Satisfiable", "");
        };
        let said = format!("bytes {}-{}/{}", range.start, range.end - 1, file.len());
        let answer = Answer::new("206 Partial Content", part).header("Content-Range", &said);
        Answer { range: range.clone(), ..answer }.of(file)
    }

    fn of(self, file: Arc<Vec<u8>>) -> Self {
        Answer { file, ..self }
    }

    /// A redirect.
    pub fn redirect(status: &str, to: &str) -> Self {
        Answer::new(status, "").header("Location", to)
    }

    /// Another status line, after the version.
    #[must_use]
    pub fn status(mut self, status: &str) -> Self {
        self.status = status.into();
        self
    }

    /// Sets a header in place of all of its name.
    #[must_use]
    pub fn header(self, name: &str, value: &str) -> Self {
        self.without(name).also(name, value)
    }

    /// Adds a header, beside what is there.
    #[must_use]
    pub fn also(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// Takes a header away.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(found, _)| !found.eq_ignore_ascii_case(name));
        self
    }

    /// Another body, with its length in the head.
    #[must_use]
    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        let length = self.body.len().to_string();
        self.header("Content-Length", &length)
    }

    /// Changes the body and leaves the head as it is.
    #[must_use]
    pub fn twisted(mut self, twist: impl FnOnce(&mut Vec<u8>)) -> Self {
        twist(&mut self.body);
        self
    }

    /// The whole file with status 200, as a server answers that knows no ranges.
    #[must_use]
    pub fn whole(self) -> Self {
        let file = Arc::clone(&self.file);
        self.status("200 OK").without("Content-Range").body(file.as_slice())
    }

    /// The head, as sent.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {}\r\n", self.status);
        for (name, value) in &self.headers {
            head += &format!("{name}: {value}\r\n");
        }
        (head + "\r\n").into_bytes()
    }

    /// The body.
    pub fn content(&self) -> &[u8] {
        &self.body
    }

    /// The whole file that the body is a part of.
    pub fn file(&self) -> &[u8] {
        &self.file
    }

    /// Which part of the file the body is.
    pub fn range(&self) -> Range<u64> {
        self.range.clone()
    }

    /// Head and body, as sent.
    pub fn bytes(&self) -> Vec<u8> {
        [self.head(), self.body.clone()].concat()
    }

    /// The same with a chunked body, which ends as it should.
    #[must_use]
    pub fn chunked(self) -> Self {
        self.chunks(|len| format!("{len:x}")).twisted(|body| body.extend(b"0\r\n\r\n"))
    }

    /// The same with a chunked body that has no end yet; `line` makes the line with a chunk's size.
    #[must_use]
    pub fn chunks(self, line: impl Fn(usize) -> String) -> Self {
        let mut chunked = Vec::new();
        for piece in self.body.chunks(1000) {
            chunked.extend(format!("{}\r\n", line(piece.len())).into_bytes());
            chunked.extend(piece);
            chunked.extend(b"\r\n");
        }
        self.without("Content-Length").header("Transfer-Encoding", "chunked").twisted(|body| *body = chunked)
    }

    /// The head and the first `len` bytes of the body, then `steps`.
    pub fn up_to(&self, len: usize, steps: impl IntoIterator<Item = Step>) -> Act {
        let sent = [self.head(), self.body[..len.min(self.body.len())].to_vec()].concat();
        std::iter::once(Step::Send(sent)).chain(steps).collect()
    }

    /// All of it, then `steps`.
    pub fn then(&self, steps: impl IntoIterator<Item = Step>) -> Act {
        self.up_to(usize::MAX, steps)
    }
}
