//! The first process of a machine that booted the medium: makes a kernel into a machine, starts the agent as its child, and ends as
//! that one says: in what was written, halted, or waiting with the reason on the console.
//!
//! It does one thing after the other and no asynchronous runtime is in it: one that is the first process takes the ends of children
//! that are not its own. What is asynchronous, and everything that touches network and disks, is the agent's.

mod children;
mod clock;
mod console;
mod devices;
mod end;
mod machine;

use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::sys::reboot::set_cad_enabled;

use self::children::Children;
use self::console::Console;
use crate::medium::ended::Ended;
use crate::medium::{self, Config, Task};

/// Where the agent is.
const AGENT: &str = "/usr/bin/z-provisioner";

/// Whether a program of this name is the first process.
pub fn is_first_process(name: &OsStr) -> bool {
    std::process::id() == 1 && name == "/init"
}

/// Why a machine cannot go on: what happened, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// What happened.
    pub what: String,
    /// What to do.
    pub remedy: String,
}

impl Trouble {
    fn new(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { what: what.into(), remedy: remedy.into() }
    }
}

/// Everything the first process does. It never returns: the kernel would not survive that.
pub fn main() -> ! {
    let console = Console::open();
    // A defect of ours becomes a machine that waits and says so.
    let story = std::panic::catch_unwind(|| story(&console));
    let (config, ending) = story.unwrap_or_else(|_| {
        let trouble =
            Trouble::new("the first process has a defect and gave up", "keep this console's text and report it");
        (None, Ending::Trouble(trouble))
    });
    end::end(&console, config.as_ref(), ending)
}

/// How the story ends.
enum Ending {
    /// The agent has ended, and left word.
    Ended(Ended),
    /// It never came to that.
    Trouble(Trouble),
    /// The machine was asked to shut down.
    ShutDown,
}

fn story(console: &Console) -> (Option<Config>, Ending) {
    let config = match configuration(console) {
        Ok(config) => config,
        Err(trouble) => return (None, Ending::Trouble(trouble)),
    };
    // From here on it also says how to fail.
    let ending = match prepare(&config) {
        Ok(mut children) => run_agent(console, &config, &mut children),
        Err(trouble) => Ending::Trouble(trouble),
    };
    (Some(config), ending)
}

/// What this machine is to do.
fn configuration(console: &Console) -> Result<Config, Trouble> {
    machine::mount()?;
    // Or the HMC's "signal shutdown" would end the machine at once, and not through us.
    let _ = set_cad_enabled(false);
    let seal = machine::seal()?;
    console.say(&format!("{seal}, kernel {}", machine::kernel()));
    let config = medium::load(Path::new(medium::FOLDER), &machine::command_line()).map_err(|error| {
        Trouble::new(error.to_string(), error.hint().unwrap_or("make another medium with `z-provisioner config`"))
    })?;
    let run = match config.task() {
        Ok(Task::Run(run)) => format!("run {}", run.run),
        Ok(Task::Enrol(service)) => format!("the run that {} has for it", service.url),
        Err(why) => why,
    };
    console.say(&format!("for server {}, {run}", config.server));
    Ok(config)
}

/// Until the agent can start.
fn prepare(config: &Config) -> Result<Children, Trouble> {
    clock::check(config, time::OffsetDateTime::now_utc())?;
    machine::wait_for_randomness()?;
    let mut children = Children::new()?;
    devices::bring_up(&mut children)?;
    Ok(children)
}

/// How long a machine that is to shut down waits for the agent to stop in good order.
const STOPPING: Duration = Duration::from_secs(90);
/// How long an agent that has left word may take to be gone: a path that hangs in the kernel holds it.
const GOING: Duration = Duration::from_secs(30);
/// Between two looks whether it has left word.
const LOOK: Duration = Duration::from_secs(2);

fn run_agent(console: &Console, config: &Config, children: &mut Children) -> Ending {
    let how = if console.has_bars(config.console) { "bars" } else { "lines" };
    let agent = match children.start(AGENT, &["boot", "--console", how]) {
        Ok(agent) => agent,
        Err(trouble) => return Ending::Trouble(trouble),
    };
    let mut left_word: Option<Instant> = None;
    let ended = loop {
        if let Some(code) = children.wait(agent, LOOK) {
            break Some(code);
        }
        if children.is_asked() {
            console.say("asked to shut down: the agent is told to stop");
            children.stop(agent);
            children.wait(agent, STOPPING);
            return Ending::ShutDown;
        }
        if left_word.is_none() && medium::ended::read().is_some() {
            left_word = Some(Instant::now());
        }
        if left_word.is_some_and(|since| since.elapsed() > GOING) {
            console.say(
                "the agent has done its work and is still there: something in the kernel holds it (a path that hangs?)",
            );
            break None;
        }
    };
    match (medium::ended::read(), ended) {
        (Some(word), None | Some(0)) => Ending::Ended(word),
        (Some(word @ Ended::Failed { .. }), Some(_)) => Ending::Ended(word),
        (_, Some(code)) => Ending::Trouble(Trouble::new(
            format!("the agent ended with {code} and left no word"),
            "its last lines are above; keep them and report them. Treat the disk as unfinished",
        )),
        (None, None) => Ending::Trouble(Trouble::new("the agent did not end", "IPL again")),
    }
}
