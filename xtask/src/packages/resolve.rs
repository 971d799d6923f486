//! What a suite has today: asked of a private apt, with an archive, lists and a status of its own. Signatures are checked as ever.

use std::path::Path;
use std::process::Command;

use crate::fail::{Fail, Outcome, Tried};
use crate::packages::fetch::{self, Fetched};
use crate::packages::lock::{Package, Section};
use crate::packages::{Root, mirror};
use crate::scratch::Scratch;
use crate::shell::{output, said, tool};

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// The wanted packages and all they depend on, in the suite's newest versions whose files the mirror has: they are fetched into `debs`.
/// A mirror's index may be newer than its files.
pub fn newest(root: &Root, debs: &Path) -> Outcome<Section> {
    let archive = mirror::main_archive()?;
    mirror::by_either_name(root.suite, |suite| {
        let scratch = Scratch::new(&format!("z-provisioner-apt-{}", root.name), false)?;
        let source = format!("deb [signed-by={KEYRING}] {archive} {suite} main\n");
        prepare(&scratch.path(""), &source)?;
        let apt = || private_apt(&scratch.path(""), root.architectures);
        run(apt().args(["--error-on=any", "update"]), suite)?;
        // Aliases are given to the next suite one day.
        let codenames = run(apt().args(["indextargets", "--format", "$(CODENAME)", "Created-By: Packages"]), suite)?;
        if let Some(other) = codenames.lines().find(|codename| *codename != root.suite) {
            return Err(Fail::new(format!("{suite} is {other} now, not {}", root.suite)));
        }
        // Nothing is installed: the addresses of what would have to be are all that is wanted.
        let mut install = apt();
        install.args(["install", "--print-uris", "--no-install-recommends"]).args(root.wanted.split_whitespace());
        let said = run(&mut install, suite)?;
        let packages: Option<Vec<Package>> = said.lines().map(|line| package(line, &archive)).collect();
        let section = match packages {
            Some(packages) if !packages.is_empty() => Section::of(root, packages),
            _ => return Err(Fail::new(format!("apt named no packages for the {} root: {:?}", root.name, said.trim()))),
        };
        match fetch::fetch(&section.packages, debs)? {
            Fetched::All => Ok(section),
            Fetched::Gone(names) => Err(Fail::new(format!(
                "the mirror's index of {suite} names files that the mirror does not have ({}): try again later",
                names.join(", ")
            ))),
        }
    })
}

/// What apt says is short; its command line, with a folder of its own for everything, is not.
fn run(apt: &mut Command, suite: &str) -> Outcome<String> {
    let output = output(apt)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = said(&output);
    let why = said.lines().find_map(|line| line.strip_prefix("E: ")).unwrap_or(said.trim());
    Err(Fail::new(format!("apt could not resolve packages of {suite}: {why}")))
}

fn prepare(folder: &Path, source: &str) -> Outcome<()> {
    for part in ["state/lists/partial", "cache/archives/partial"] {
        std::fs::create_dir_all(folder.join(part)).tried("make a private apt's folders")?;
    }
    let files = [("sources.list", source), ("status", "")];
    files.into_iter().try_for_each(|(name, text)| std::fs::write(folder.join(name), text)).tried("set up a private apt")
}

/// apt with this machine's transports and proxies, but nothing of its archives, choices and state.
fn private_apt(folder: &Path, architectures: &str) -> Command {
    let mut apt = tool("apt-get");
    apt.args(["-qq", "-o", "Dir::Etc::sourceparts=-", "-o", "Dir::Etc::preferences=-"]);
    apt.args(["-o", "Dir::Etc::preferencesparts=-", "-o", "APT::Sandbox::User=root"]);
    let places =
        [("Etc::sourcelist", "sources.list"), ("State", "state"), ("Cache", "cache"), ("State::status", "status")];
    for (name, place) in places {
        apt.arg("-o").arg(format!("Dir::{name}={}", folder.join(place).display()));
    }
    let native = architectures.split(' ').next().unwrap_or_default();
    apt.arg("-o").arg(format!("APT::Architecture={native}"));
    apt.arg("-o").arg(format!("APT::Architectures={}", architectures.replace(' ', ",")));
    // Only a clock that is ahead of the mirror is forgiven.
    apt.args(["-o", "Acquire::Check-Valid-Until=false", "-o", "Acquire::ForceHash=sha256"]);
    for unread in ["Acquire::Languages=none", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false"] {
        apt.args(["-o", unread]);
    }
    apt
}

/// `'URI' NAME_VERSION_ARCHITECTURE.deb SIZE SHA256:DIGEST`
fn package(line: &str, archive: &str) -> Option<Package> {
    let [uri, file, _size, digest] = line.split(' ').collect::<Vec<_>>().try_into().ok()?;
    let path = uri.trim_matches('\'').strip_prefix(archive)?.trim_start_matches('/');
    let [name, version, architecture] = file.strip_suffix(".deb")?.split('_').collect::<Vec<_>>().try_into().ok()?;
    Some(Package {
        name: name.into(),
        version: decoded(version)?,
        architecture: architecture.into(),
        sha256: digest.strip_prefix("SHA256:")?.into(),
        path: decoded(path)?,
    })
}

/// Percent-encoding undone.
fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut plain = parts.next()?.to_string();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        plain.push(char::from(u8::from_str_radix(code, 16).ok().filter(u8::is_ascii)?));
        plain.push_str(rest);
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apts_line_is_understood() {
        let digest = "6e".repeat(32);
        let line = format!(
            "'http://a.example/debian/pool/main/b/busybox/busybox-static_1.37.0-6%2bb9_s390x.deb' \
             busybox-static_1%3a1.37.0-6+b9_s390x.deb 925856 SHA256:{digest}"
        );
        let package = package(&line, "http://a.example/debian/").unwrap();
        let path = "pool/main/b/busybox/busybox-static_1.37.0-6+b9_s390x.deb";
        assert_eq!(package.to_string(), format!("busybox-static 1:1.37.0-6+b9 s390x {digest} {path}"));
        assert_eq!(super::package("E: Unable to locate package x", "http://a.example/debian/"), None);
    }
}
