//! How the demo talks: a numbered heading per step, and under it the command lines a person could run.

use std::process::Command;

use crate::fail::Outcome;
use crate::shell;

/// Counts the steps.
pub struct Steps {
    number: u32,
}

impl Steps {
    /// None so far.
    pub fn new() -> Self {
        Self { number: 0 }
    }

    /// A heading.
    pub fn start(&mut self, what: &str) {
        self.number += 1;
        eprintln!("\n{}. {what}", self.number);
    }

    /// Something worth knowing below the heading.
    pub fn say(&self, text: &str) {
        for line in text.lines() {
            eprintln!("   {line}");
        }
    }

    /// A command line that is run by other means than `run`.
    pub fn show(&self, command: &Command) {
        self.say(&format!("$ {}", shell::line(command)));
    }

    /// Shows a command line and runs it on our terminal.
    pub fn run(&self, command: &mut Command) -> Outcome<()> {
        self.show(command);
        shell::run(command)
    }
}
