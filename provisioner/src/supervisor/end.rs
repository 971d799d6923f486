//! The end: what was written is started, or the machine halts, or it waits and says why. Whatever it is, it never returns.

use std::time::{Duration, Instant};

use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::{Pid, sync};

use super::children::Children;
use super::console::Console;
use super::{Ending, Trouble};
use crate::medium::config::{Config, OnFailure};
use crate::medium::ended::Ended;

/// How often a waiting machine says why it does.
const AGAIN: Duration = Duration::from_secs(600);
/// How long what still runs may take to end in good order.
const PATIENCE: Duration = Duration::from_secs(3);

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

/// For ever, or until the machine is asked to shut down. Nothing of what was started goes on: a machine that has given up is on no
/// network, and offers no reservation's key.
fn wait(console: &Console, config: Option<&Config>, why: &str) -> ! {
    let Ok(mut children) = Children::new() else {
        console.say("waiting; IPL again to try again");
        loop {
            std::thread::sleep(AGAIN);
            console.say(why);
        }
    };
    children.end_all(PATIENCE);
    leave_networks(&mut children);
    let mut shell = config.filter(|config| config.rescue_shell).and_then(|_| start_shell(console, &mut children));
    if shell.is_none() {
        console.say("waiting; IPL again to try again");
    }
    let mut said = Instant::now();
    loop {
        children.listen(Duration::from_secs(1));
        if children.is_asked() {
            console.say("shutting down");
            leave(console, RebootMode::RB_POWER_OFF)
        }
        if shell.is_some_and(|pid| children.wait(pid, Duration::ZERO).is_some()) {
            shell = None;
            console.say("the shell has ended; waiting; IPL again to try again");
        }
        if shell.is_none() && said.elapsed() >= AGAIN {
            console.say(&format!("{why}\nwaiting; IPL again to try again"));
            said = Instant::now();
        }
    }
}

/// What nobody told to end may have left up. What is blocked stays blocked.
fn leave_networks(children: &mut Children) {
    let interfaces = std::fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    for name in interfaces.map(|entry| entry.file_name().to_string_lossy().into_owned()).filter(|name| name != "lo") {
        run_silently(children, &["link", "set", "dev", &name, "down"]);
    }
    run_silently(children, &["xfrm", "state", "flush"]);
}

/// Nothing can be done where that does not work.
fn run_silently(children: &mut Children, arguments: &[&str]) {
    if let Ok(child) = children.start_silently("/usr/sbin/ip", arguments) {
        children.wait(child, PATIENCE);
    }
}

/// Only where the configuration allows it. In a session of its own, so that Ctrl-C reaches what runs in it.
fn start_shell(console: &Console, children: &mut Children) -> Option<Pid> {
    console.say("a shell, as the configuration allows (`rescue_shell`); it is left with `exit`");
    let shell = ["setsid", "/usr/bin/busybox", "cttyhack", "/usr/bin/busybox", "sh"];
    let started = children.start_on_console("/usr/bin/busybox", &shell);
    if let Err(trouble) = &started {
        console.say(&trouble.what);
    }
    started.ok()
}
