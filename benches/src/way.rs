//! What every way of getting an image onto a target must say of itself, ours and the peers' alike.

use std::fmt;
use std::path::PathBuf;

use crate::failure::Result;
use crate::lab::Lab;
use crate::measure::Job;
use crate::server::Server;
use crate::subject::Subject;

/// How far a way makes sure that what it writes is what was published.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verifies {
    /// Not at all.
    Nothing,
    /// A checksum without cryptography, which an accident does not pass and an attacker does.
    Checksum,
    /// A cryptographic digest, from a place that it takes on trust.
    Digest,
    /// A cryptographic digest from a signed document.
    Signature,
    /// The same, and what the media hold afterwards.
    Media,
}

impl fmt::Display for Verifies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "no",
            Self::Checksum => "checksum",
            Self::Digest => "digest",
            Self::Signature => "digest+signature",
            Self::Media => "digest+signature+media",
        })
    }
}

/// A program that a way needs, and where it comes from.
pub struct Need {
    /// The command.
    pub program: &'static str,
    /// How to get it: what a person would type.
    pub from: &'static str,
}

/// What a way writes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Onto {
    /// The target file itself.
    File,
    /// A loop device over the target file, for those who take nothing but block devices.
    LoopDevice,
}

/// What the ways of one run share.
pub struct Place<'a> {
    /// Cache and tools.
    pub lab: &'a Lab,
    /// Serves the cache.
    pub server: &'a Server,
    /// What is written.
    pub subject: &'a Subject,
}

impl Place<'_> {
    /// The name, below the cache, of a form of the subject.
    pub fn form(&self, suffix: &str) -> String {
        format!("subject-{}.{suffix}", self.subject.name())
    }

    /// The path of that form.
    pub fn path(&self, suffix: &str) -> String {
        self.lab.cache.join(self.form(suffix)).display().to_string()
    }

    /// The address of that form.
    pub fn url(&self, suffix: &str) -> String {
        self.server.url(&self.form(suffix))
    }
}

/// One way of getting the image onto the target.
pub trait Way {
    /// What it is called in tables.
    fn name(&self) -> &'static str;

    /// How far it verifies.
    fn verifies(&self) -> Verifies;

    /// The programs it needs.
    fn needs(&self) -> &'static [Need];

    /// Which settings are its best and why, whether it flushes by itself, and where its work is not the others'.
    fn note(&self) -> &'static str;

    /// Makes its form of the subject, unless the cache has it, and names all files it will read.
    fn prepare(&self, place: &Place<'_>) -> Result<Vec<PathBuf>>;

    /// The job that writes the subject to `target` and ends in a flush.
    fn job(&self, place: &Place<'_>, target: &str) -> Result<Job>;

    /// What it writes to.
    fn onto(&self) -> Onto {
        Onto::File
    }

    /// Whether it is one of ours.
    fn ours(&self) -> bool {
        false
    }
}
