//! The programs a benchmark drives: where they are, which version, and a loud word when one is missing.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::{Context, Failure, Result};

/// `imgstream`: named by `IMGSTREAM_BIN`, else beside this executable.
pub fn imgstream() -> Result<PathBuf> {
    ours("imgstream", "imgstream", "IMGSTREAM_BIN")
}

/// `z-orchestrator`: named by `Z_ORCHESTRATOR_BIN`, else beside this executable.
pub fn orchestrator() -> Result<PathBuf> {
    ours("z-orchestrator", "orchestrator", "Z_ORCHESTRATOR_BIN")
}

fn ours(program: &str, package: &str, variable: &str) -> Result<PathBuf> {
    let path = match std::env::var_os(variable) {
        Some(named) => PathBuf::from(named),
        None => std::env::current_exe().context("could not find this executable")?.with_file_name(program),
    };
    if path.is_file() {
        return Ok(path);
    }
    Err(Failure::new(format!(
        "there is no {program} at {}: build it (`cargo build --release -p {package}`) or name it in {variable}",
        path.display()
    )))
}

/// Why `program` could not be installed, if somebody tried: `cargo xtask bench` says so in `BENCHES_NOT_INSTALLED`, in
/// lines of a program, a tab and a reason.
pub fn why_not_installed(program: &str) -> Option<String> {
    let told = std::env::var("BENCHES_NOT_INSTALLED").ok()?;
    told.lines().filter_map(|line| line.split_once('\t')).find(|(name, _)| *name == program).map(|(_, why)| why.into())
}

/// Whether `program` can be found.
pub fn present(program: &str) -> bool {
    find(program).is_some()
}

/// The path of `program`, also in the `sbin` folders an ordinary user's PATH leaves out.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|folder| folder.join(program))
        .find(|candidate| candidate.is_file())
}

/// Fails naming every one of `programs` that is missing.
pub fn require(programs: &[&str]) -> Result<()> {
    let missing: Vec<&str> = programs.iter().copied().filter(|p| !present(p)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!(
        "missing: {}. On Debian: apt-get install nginx-light curl zstd coreutils openssl fio util-linux",
        missing.join(", ")
    )))
}

/// What `program` says of its version, reduced to the line that has a number in it.
pub fn version(program: &Path) -> String {
    let flag = match program.file_name().and_then(|n| n.to_str()) {
        Some("openssl") => "version",
        Some("nginx") => "-v",
        _ => "--version",
    };
    let Ok(output) = Command::new(program).arg(flag).output() else {
        return "unknown".into();
    };
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|l| l.chars().any(|c| c.is_ascii_digit()));
    let name = program.file_name().unwrap_or_default().to_string_lossy();
    line.map_or_else(|| format!("{name}, version unknown"), |line| named(&name, &shorten(line)))
}

/// A version line that begins with the program's name, as some do not, and without its folder, as others have it.
fn named(name: &str, line: &str) -> String {
    match line.split_once(' ') {
        Some((program, rest)) if program.ends_with(&format!("/{name}")) => format!("{name} {rest}"),
        _ if line.starts_with(|c: char| c.is_ascii_digit()) => format!("{name} {line}"),
        _ => line.to_string(),
    }
}

/// A version line without what is in brackets, after a comma, or decoration.
fn shorten(line: &str) -> String {
    let mut depth = 0;
    let plain: String = line
        .chars()
        .filter(|c| {
            depth += i32::from(*c == '(');
            let keep = depth == 0 && *c != '*';
            depth -= i32::from(*c == ')');
            keep
        })
        .collect();
    let plain = plain.trim_start().trim_start_matches("nginx version: ").to_string();
    let plain = plain.split([',', ':']).next().unwrap_or_default();
    let words = plain.split_whitespace().take_while(|w| !w.starts_with("libcurl"));
    words.collect::<Vec<_>>().join(" ")
}

/// The versions of `programs`, the absent ones named as absent.
pub fn versions(programs: &[&str]) -> String {
    let told = programs.iter().map(|p| match find(p) {
        Some(path) => version(&path),
        None => format!("{p}: not installed"),
    });
    told.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_lines() {
        for (told, short) in [
            ("*** Zstandard CLI (64-bit) v1.5.4, by Yann Collet ***", "Zstandard CLI v1.5.4"),
            ("curl 7.88.1 (x86_64-pc-linux-gnu) libcurl/7.88.1 zlib/1.2", "curl 7.88.1"),
            ("dd (coreutils) 9.1", "dd 9.1"),
            ("nginx version: nginx/1.22.1", "nginx/1.22.1"),
            ("OpenSSL 3.0.19 27 Jan 2026 (Library: OpenSSL 3.0.19)", "OpenSSL 3.0.19 27 Jan 2026"),
        ] {
            assert_eq!(shorten(told), short);
        }
        assert_eq!(named("qemu-nbd", "/usr/bin/qemu-nbd 10.0.2"), "qemu-nbd 10.0.2");
        assert_eq!(named("udevadm", "252"), "udevadm 252");
        assert_eq!(named("dd", "dd 9.1"), "dd 9.1");
    }
}
