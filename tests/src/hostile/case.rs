//! Cases: one thing that a server does, and what `imgstream write` must make of it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::{Act, Answer, Greeting, Hostile, Part, Request, Script};
use crate::command::{Done, Run};
use crate::lab::{Image, Lab};
use crate::target::Target;
use crate::{KIB, MIB, exit, sample};

/// The chunks of the image.
pub const CHUNK: u64 = 64 * KIB;
const SIZE: u64 = MIB + 512;
/// However a server behaves, a run of this image is over by then. It is a second's work; the rest are pauses between
/// tries, and slow machines.
const BOUND: Duration = Duration::from_secs(50);

/// An image that a hostile server shall front.
pub struct Setting {
    /// Where everything lies.
    pub lab: Lab,
    /// The raw image.
    pub raw: Vec<u8>,
    /// The packed image: one span of seventeen chunks that do not compress.
    pub image: Image,
}

impl Default for Setting {
    fn default() -> Self {
        Self::new()
    }
}

impl Setting {
    /// Packs one.
    pub fn new() -> Self {
        let lab = Lab::new();
        let raw = sample::noise(51, SIZE as usize);
        let image = lab.pack_bytes(&raw, "--chunk-size 64KiB --level 1");
        Setting { lab, raw, image }
    }

    /// A target full of old data, for this image.
    pub fn target(&self) -> Target {
        Target::file(&self.lab, SIZE)
    }

    /// `imgstream write` in several requests on two connections.
    pub fn write(&self, from: &str, to: &Target) -> Run {
        self.image.write(from, to.path()).words("--connections 2 --request-size 256KiB")
    }

    /// Demands that a target holds the image.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn arrived(&self, target: &Target) {
        assert!(target.now() == self.raw, "the target does not hold the image");
    }

    /// Tries all cases, at the same time since most only wait, and tells which fail.
    ///
    /// # Panics
    /// When one fails.
    #[track_caller]
    pub fn hold(&self, cases: Vec<Case>) {
        let count = cases.len();
        let failed: Vec<String> = std::thread::scope(|scope| {
            let started: Vec<_> = cases
                .into_iter()
                .map(|case| {
                    let name = case.name.clone();
                    let run = move || catch_unwind(AssertUnwindSafe(|| case.hold(self))).is_err();
                    let thread = std::thread::Builder::new().name(name.clone());
                    (name, thread.spawn_scoped(scope, run).expect("a thread"))
                })
                .collect();
            started.into_iter().filter_map(|(name, run)| run.join().unwrap_or(true).then_some(name)).collect()
        });
        eprintln!("{count} cases");
        assert!(failed.is_empty(), "of {count} cases these fail, as told above: {}", failed.join("; "));
    }
}

enum Outcome {
    /// The right bytes arrive.
    Arrives,
    /// Exit code, and the target's state.
    Fails(i32, State),
}

enum State {
    Untouched,
    Unbootable,
}

/// One thing a server does.
pub struct Case {
    name: String,
    script: Script,
    greeting: Option<Greeting>,
    outcome: Outcome,
    says: Vec<String>,
    options: String,
    registry: bool,
    elsewhere: bool,
}

impl Case {
    /// A server with a script of its own, from which the image arrives.
    pub fn scripted(name: &str, script: impl Fn(&Request, Answer) -> Act + Send + Sync + 'static) -> Self {
        Case {
            name: name.into(),
            script: Arc::new(script),
            greeting: None,
            outcome: Outcome::Arrives,
            says: Vec::new(),
            options: "--timeout 10".into(),
            registry: false,
            elsewhere: false,
        }
    }

    /// A server that twists every answer about one part: an error of the source, before the target is touched unless the
    /// part are the chunks.
    pub fn always<A: Into<Act>>(name: &str, part: Part, twist: impl Fn(Answer) -> A + Send + Sync + 'static) -> Self {
        let script =
            move |request: &Request, honest| if request.part == part { twist(honest).into() } else { honest.into() };
        let case = Case::scripted(&format!("{name} ({part:?}, always)"), script);
        if part == Part::Data { case.unbootable() } else { case.untouched() }
    }

    /// A server that twists the first answer about one part only: the image arrives.
    pub fn once<A: Into<Act>>(name: &str, part: Part, twist: impl Fn(Answer) -> A + Send + Sync + 'static) -> Self {
        let script = move |request: &Request, honest| {
            if request.part == part && request.nth == 0 { twist(honest).into() } else { honest.into() }
        };
        Case::scripted(&format!("{name} ({part:?}, once)"), script)
    }

    /// A server that does something on connections, by their number, before it reads a request.
    pub fn greeting(name: &str, greeting: impl Fn(usize) -> Option<Act> + Send + Sync + 'static) -> Self {
        let case = Case::scripted(name, |_, honest| honest.into());
        Case { greeting: Some(Arc::new(greeting)), ..case }
    }

    /// It must be an error of the source, with the target as it was.
    #[must_use]
    pub fn untouched(self) -> Self {
        Case { outcome: Outcome::Fails(exit::SOURCE, State::Untouched), ..self }
    }

    /// It must be an error of the source, with a target that does not boot.
    #[must_use]
    pub fn unbootable(self) -> Self {
        Case { outcome: Outcome::Fails(exit::SOURCE, State::Unbootable), ..self }
    }

    /// The image itself must be refused.
    #[must_use]
    pub fn refused(self) -> Self {
        Case { outcome: Outcome::Fails(exit::IMAGE, State::Untouched), ..self }
    }

    /// The image must arrive all the same.
    #[must_use]
    pub fn arrives(self) -> Self {
        Case { outcome: Outcome::Arrives, ..self }
    }

    /// The error must say this.
    #[must_use]
    pub fn says(mut self, text: &str) -> Self {
        self.says.push(text.into());
        self
    }

    /// The server stops sending: the run waits a second and no more.
    #[must_use]
    pub fn stalls(self) -> Self {
        Case { options: "--timeout 1".into(), ..self }
    }

    /// The server is addressed as a registry.
    #[must_use]
    pub fn registry(self) -> Self {
        Case { registry: true, ..self }
    }

    /// Another address than this server's is what fails, and what is named.
    #[must_use]
    pub fn elsewhere(self) -> Self {
        Case { elsewhere: true, ..self }
    }

    fn hold(self, setting: &Setting) {
        let server = match &self.greeting {
            None => Hostile::start(&setting.image.dir, Arc::clone(&self.script)),
            Some(greeting) => Hostile::greeting(&setting.image.dir, Arc::clone(&self.script), Arc::clone(greeting)),
        };
        let from = if self.registry { server.reference() } else { server.url() };
        let target = setting.target();
        let done = setting.write(&from, &target).words(&self.options).limit(BOUND.as_secs()).done();
        readable(&done);
        match self.outcome {
            Outcome::Arrives => {
                let done = done.ok();
                self.says.iter().fold(done, |done, text| done.says(text));
                setting.arrived(&target);
            }
            Outcome::Fails(code, state) => {
                let done = done.exits(code);
                let done = if code == exit::SOURCE && !self.elsewhere { done.says(&server.authority()) } else { done };
                self.says.iter().fold(done, |done, text| done.says(text));
                match state {
                    State::Untouched => target.is_untouched(),
                    State::Unbootable => target.is_unbootable_and_never_wrong(&setting.raw, CHUNK),
                }
            }
        }
    }
}

/// Demands that nothing a server said controls the terminal.
///
/// # Panics
/// When something does.
#[track_caller]
pub fn readable(done: &Done) {
    let harmless = |text: &str| text.chars().all(|c| c == '\n' || !c.is_control());
    let (out, err) = (&done.stdout, &done.stderr);
    assert!(harmless(out) && harmless(err), "{}\nwrites on the terminal:\n{out:?}\n{err:?}", done.line);
    assert!(err.len() < 40_000, "{}\nsays too much: {} bytes", done.line, err.len());
}
