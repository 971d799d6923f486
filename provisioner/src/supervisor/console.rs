//! The console: what the first process says on it, and whether it can show bars.
//!
//! Kernel names: `sclp_line0` is the line-mode console of the HMC ("operating system messages"), `ttysclp0` its ASCII console
//! ("integrated ASCII console") and QEMU's, `3215` and `3270` z/VM's, `hvc0` a virtual machine's.

use std::fs::{File, OpenOptions};
use std::io::Write;

use nix::sys::termios::{InputFlags, SetArg, tcgetattr, tcsetattr};

use crate::medium::config;

/// Consoles on which a cursor can be moved. The ASCII console could, but what is logged of it is read later, as text.
const MOVING: [&str; 1] = ["hvc"];

/// The console.
pub struct Console {
    device: Option<File>,
}

impl Console {
    /// The one the kernel has opened for its first process.
    pub fn open() -> Self {
        let device = OpenOptions::new().write(true).open("/dev/console").ok();
        // Ctrl-S at the console must not stop a machine at its next line.
        if let Some((device, mut settings)) = device.as_ref().and_then(|device| Some((device, tcgetattr(device).ok()?)))
        {
            settings.input_flags.remove(InputFlags::IXON);
            let _ = tcsetattr(device, SetArg::TCSANOW, &settings);
        }
        Self { device }
    }

    /// Says something, each line with who says it. Nothing can be done where that does not work.
    pub fn say(&self, text: &str) {
        let lines: String = text.lines().map(|line| format!("z-provisioner: {line}\n")).collect();
        match self.device.as_ref() {
            Some(mut device) => drop(device.write_all(lines.as_bytes())),
            None => eprint!("{lines}"),
        }
    }

    /// Whether bars are shown.
    pub fn has_bars(&self, wanted: config::Console) -> bool {
        match wanted {
            config::Console::Lines => false,
            config::Console::Bars => true,
            config::Console::Auto => {
                can_move(&std::fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default())
            }
        }
    }
}

/// The last one named is the one `/dev/console` leads to.
fn can_move(active: &str) -> bool {
    active.split_whitespace().next_back().is_some_and(|name| MOVING.iter().any(|moving| name.starts_with(moving)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_for_consoles_that_are_known_to_move() {
        assert!(can_move("hvc0\n") && can_move("ttysclp0 hvc0\n"));
        for lines in ["ttysclp0\n", "sclp_line0\n", "tty3215\n", "hvc0 ttysclp0\n", ""] {
            assert!(!can_move(lines), "{lines}");
        }
    }
}
