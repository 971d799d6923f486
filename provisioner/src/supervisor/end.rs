//! The end: what was written is started, or the machine halts, or it waits and says why. Whatever it is, it never returns.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::sync;

use super::children::Children;
use super::console::Console;
use super::{Ending, Trouble};
use crate::medium::config::{Config, OnFailure};
use crate::medium::ended::Ended;

/// How often a waiting machine says why it does.
const AGAIN: Duration = Duration::from_secs(600);

/// Ends it.
pub fn end(console: &Console, config: Option<&Config>, ending: Ending) -> ! {
    let (headline, trouble) = match ending {
        Ending::Ended(Ended::ReIpl { from }) => {
            console.say(&format!("re-IPL from {from}"));
            leave(console, RebootMode::RB_AUTOBOOT)
        }
        Ending::Ended(Ended::Halt) => {
            console.say("done: halting");
            leave(console, RebootMode::RB_HALT_SYSTEM)
        }
        Ending::Ended(Ended::Stay) => {
            console.say("done: the run asked for nothing more (`hand_over: none`)");
            wait(console, config, "done, and nothing more to do: IPL what was written, or halt the machine")
        }
        Ending::ShutDown => {
            console.say("shutting down");
            leave(console, RebootMode::RB_POWER_OFF)
        }
        Ending::Ended(Ended::NotStarted { message, hint }) => {
            ("PROVISIONED, BUT NOT STARTED", Trouble::new(message, hint))
        }
        Ending::Ended(Ended::Failed { message, hint }) => ("NOT PROVISIONED", Trouble::new(message, hint)),
        Ending::Trouble(trouble) => ("NOT PROVISIONED", trouble),
    };
    let said = format!("{headline}: {}\nwhat to do: {}", trouble.what, trouble.remedy);
    console.say(&said);
    if config.is_some_and(|config| config.on_failure == OnFailure::Halt) {
        console.say("halting, as the configuration says (`on_failure: halt`)");
        leave(console, RebootMode::RB_HALT_SYSTEM)
    }
    wait(console, config, &said)
}

fn leave(console: &Console, how: RebootMode) -> ! {
    sync();
    // It returns only when it fails.
    let failed = reboot(how).err();
    let said = format!("the kernel does not end ({failed:?}): IPL by hand");
    console.say(&said);
    wait(console, None, &said)
}

/// For ever, or until the machine is asked to shut down.
fn wait(console: &Console, config: Option<&Config>, why: &str) -> ! {
    if config.is_some_and(|config| config.rescue_shell) {
        shell(console);
    }
    console.say("waiting; IPL again to try again");
    let Ok(mut children) = Children::new() else {
        loop {
            std::thread::sleep(AGAIN);
            console.say(why);
        }
    };
    let mut said = Instant::now();
    loop {
        let left = AGAIN.saturating_sub(said.elapsed());
        if children.listen(Some(left.max(Duration::from_secs(1)))) {
            console.say("shutting down");
            leave(console, RebootMode::RB_POWER_OFF)
        }
        if said.elapsed() >= AGAIN {
            console.say(&format!("{why}\nwaiting; IPL again to try again"));
            said = Instant::now();
        }
    }
}

/// Only where the configuration allows it.
fn shell(console: &Console) {
    console.say("a shell, as the configuration allows (`rescue_shell`); it is left with `exit`");
    let mut shell = Command::new("/usr/bin/busybox");
    // A session of its own on the console, so that Ctrl-C reaches what runs in it.
    shell
        .args(["setsid", "busybox", "cttyhack", "busybox", "sh"])
        .env("PATH", "/usr/sbin:/usr/bin")
        .env("PS1", "rescue# ");
    let device = || std::fs::OpenOptions::new().read(true).write(true).open("/dev/console");
    if let (Ok(input), Ok(output), Ok(errors)) = (device(), device(), device()) {
        shell.stdin(Stdio::from(input)).stdout(Stdio::from(output)).stderr(Stdio::from(errors));
    }
    if let Err(error) = shell.status() {
        console.say(&format!("the shell did not start: {error}"));
    }
}
