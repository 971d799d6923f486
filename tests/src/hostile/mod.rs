//! A server whose every byte the test decides. It fronts a packed image, as a static server and as a registry, and gives
//! the right answers; a script twists those it wants to.

mod answer;
mod case;
pub(crate) mod wire;

use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use rustls::ServerConfig;

pub use answer::{Act, Answer, Step};
pub use case::{CHUNK, Case, Setting, readable};

use crate::layout::Layout;
use wire::Wire;

/// What of an image is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// `index.json`.
    Index,
    /// The OCI manifest: by its digest, or by a registry's tag.
    Manifest,
    /// The signed envelope.
    Envelope,
    /// The index of a span.
    SpanIndex,
    /// The chunks.
    Data,
    /// Something an image does not have.
    Other,
}

/// A request, as the script sees it.
#[derive(Debug, Clone)]
pub struct Request {
    /// What is asked for.
    pub part: Part,
    /// How often that part has been asked for before.
    pub nth: usize,
    /// The path, with its query.
    pub path: String,
    /// The bytes that are asked for.
    pub range: Option<Range<u64>>,
    /// The headers, with names in small letters.
    pub headers: Vec<(String, String)>,
}

impl Request {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// Decides what is done on a request, whose right answer it is given.
pub type Script = Arc<dyn Fn(&Request, Answer) -> Act + Send + Sync>;
/// Decides what is done on the connection of this number before anything is read; `None` is nothing unusual.
pub type Greeting = Arc<dyn Fn(usize) -> Option<Act> + Send + Sync>;

/// A running server. Gone when dropped.
pub struct Hostile {
    port: u16,
    scheme: &'static str,
    state: Arc<State>,
}

struct State {
    dir: PathBuf,
    parts: HashMap<String, Part>,
    script: Script,
    greeting: Option<Greeting>,
    tls: Option<Arc<ServerConfig>>,
    connections: AtomicUsize,
    asked: Mutex<Vec<Request>>,
    over: AtomicBool,
}

impl Hostile {
    /// Serves an image's directory by a script.
    pub fn start(dir: &Path, script: Script) -> Self {
        Self::listen(dir, script, None, None)
    }

    /// The same, with something to do before a request is read.
    pub fn greeting(dir: &Path, script: Script, greeting: Greeting) -> Self {
        Self::listen(dir, script, Some(greeting), None)
    }

    /// The same with TLS: certificate and key as PEM files.
    pub fn with_tls(dir: &Path, script: Script, certificate: &Path, key: &Path) -> Self {
        Self::listen(dir, script, None, Some(wire::server_config(certificate, key)))
    }

    fn listen(dir: &Path, script: Script, greeting: Option<Greeting>, tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("listening");
        let port = listener.local_addr().expect("an address").port();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let state = Arc::new(State {
            dir: dir.to_owned(),
            parts: parts(dir),
            script,
            greeting,
            tls,
            connections: AtomicUsize::new(0),
            asked: Mutex::default(),
            over: AtomicBool::new(false),
        });
        std::thread::spawn({
            let state = Arc::clone(&state);
            move || accept(&listener, &state)
        });
        Hostile { port, scheme, state }
    }

    /// Host and port.
    pub fn authority(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where the image is, as a static server.
    pub fn url(&self) -> String {
        format!("{}://{}/", self.scheme, self.authority())
    }

    /// Where the image is, as a registry.
    pub fn reference(&self) -> String {
        let scheme = if self.scheme == "https" { "oci" } else { "oci+http" };
        format!("{scheme}://{}/sample:7", self.authority())
    }

    /// All requests so far.
    ///
    /// # Panics
    /// When a thread of the server has panicked.
    pub fn asked(&self) -> Vec<Request> {
        self.state.asked.lock().unwrap().clone()
    }

    /// How many connections have been made.
    pub fn connections(&self) -> usize {
        self.state.connections.load(SeqCst)
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        self.state.over.store(true, SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn accept(listener: &TcpListener, state: &Arc<State>) {
    for stream in listener.incoming().flatten() {
        if state.over.load(SeqCst) {
            return;
        }
        let number = state.connections.fetch_add(1, SeqCst);
        let state = Arc::clone(state);
        // A client that goes away ends its connection's thread, and no more.
        std::thread::spawn(move || serve(&state, stream, number));
    }
}

fn serve(state: &State, stream: TcpStream, number: usize) -> std::io::Result<()> {
    let mut wire = Wire::new(stream, state.tls.clone(), &state.over)?;
    if let Some(act) = state.greeting.as_ref().and_then(|greeting| greeting(number)) {
        return wire.perform(act).map(drop);
    }
    while let Some(head) = wire.read_head()? {
        let (request, honest) = state.understand(&head);
        state.asked.lock().unwrap().push(request.clone());
        if !wire.perform((state.script)(&request, honest))? {
            break;
        }
    }
    Ok(())
}

impl State {
    /// A request and its right answer.
    fn understand(&self, head: &str) -> (Request, Answer) {
        let mut lines = head.lines();
        let path = lines.next().and_then(|line| line.split(' ').nth(1)).unwrap_or_default().to_owned();
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let (part, file) = self.find(&path);
        let nth = self.asked.lock().unwrap().iter().filter(|earlier| earlier.part == part).count();
        let mut request = Request { part, nth, path, range: None, headers };
        request.range = request.header("range").and_then(range);
        let bytes = file.and_then(|file| std::fs::read(self.dir.join(file)).ok());
        let honest = bytes.map_or_else(
            || Answer::new("404 Not Found", "no such file"),
            |bytes| Answer::of_file(Arc::new(bytes), request.range.as_ref()),
        );
        (request, honest)
    }

    /// The file for a path of a layout, or of a registry's interface.
    fn find(&self, path: &str) -> (Part, Option<PathBuf>) {
        let path = path.split('?').next().unwrap_or_default();
        let name = path.rsplit('/').next().unwrap_or_default();
        let digest = name.strip_prefix("sha256:").unwrap_or(name);
        let blob = Path::new("blobs/sha256").join(digest);
        match self.parts.get(digest) {
            _ if path == "/index.json" => (Part::Index, Some("index.json".into())),
            Some(part) => (*part, Some(blob)),
            None if path.ends_with("/manifests/7") => {
                (Part::Manifest, Some(Layout::new(&self.dir).manifest_path().strip_prefix(&self.dir).unwrap().into()))
            }
            None => (Part::Other, digest.bytes().all(|byte| byte.is_ascii_hexdigit()).then_some(blob)),
        }
    }
}

fn range(value: &str) -> Option<Range<u64>> {
    let (first, last) = value.strip_prefix("bytes=")?.split_once('-')?;
    Some(first.parse().ok()?..last.parse::<u64>().ok()? + 1)
}

fn parts(dir: &Path) -> HashMap<String, Part> {
    let layout = Layout::new(dir);
    let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
    let single = [(layout.manifest_path(), Part::Manifest), (layout.envelope_path(), Part::Envelope)];
    let indexes = layout.index_blobs().into_iter().map(|path| (path, Part::SpanIndex));
    let data = layout.data_blobs().into_iter().map(|path| (path, Part::Data));
    single.into_iter().chain(indexes).chain(data).map(|(path, part)| (name(path), part)).collect()
}
