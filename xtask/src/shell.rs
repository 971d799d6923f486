//! Running other people's tools: found also in the sbin folders, announced as a person would type them, ended
//! when we are, and quoted in full when they fail.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};

use crate::fail::{Fail, Outcome, Tried};
use crate::interrupt::{Tracked, interrupted};

/// `PATH`, and the folders that a regular user's `PATH` on Debian lacks.
pub fn search_path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    for folder in ["/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/bin", "/bin"] {
        if !std::env::split_paths(&path).any(|there| there == Path::new(folder)) {
            path.push(":");
            path.push(folder);
        }
    }
    path
}

/// Where a tool is, if it is anywhere.
pub fn find(tool: &str) -> Option<PathBuf> {
    std::env::split_paths(&search_path()).map(|folder| folder.join(tool)).find(|file| file.is_file())
}

/// A tool, not yet started.
pub fn tool(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    command.env("PATH", search_path()).env("LC_ALL", "C.UTF-8");
    command
}

/// The cargo that started us. What that cargo told *us* about our own package is taken away again: build scripts
/// (ring's, for one) watch those variables and would run again on every change between `cargo` and `cargo xtask`.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        let ours = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"].iter().any(|p| text.starts_with(p));
        if ours || text == "CARGO_PRIMARY_PACKAGE" {
            command.env_remove(name);
        }
    }
    command.current_dir(workspace());
    command
}

/// The workspace's folder.
pub fn workspace() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    package.as_deref().and_then(Path::parent).map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// The folder cargo builds into (it puts `xtask` itself into TARGET/debug/).
pub fn target_folder() -> Outcome<PathBuf> {
    let me = std::env::current_exe().tried("find the folder cargo builds into")?;
    let target = me.parent().and_then(Path::parent);
    target.map(Path::to_path_buf).ok_or_else(|| Fail::new("xtask must be started by cargo"))
}

/// A release binary of the workspace.
pub fn release_binary(name: &str) -> Outcome<PathBuf> {
    Ok(target_folder()?.join("release").join(name))
}

/// The command line as a person would type it here: programs below the current folder by their relative path.
pub fn line(command: &Command) -> String {
    let program = Path::new(command.get_program());
    let here = std::env::current_dir().unwrap_or_default();
    let shown = match program.strip_prefix(&here) {
        Ok(relative) if program.is_absolute() => relative,
        _ if program.file_name().is_some_and(|name| name == "cargo") => Path::new("cargo"),
        _ => program,
    };
    let words = std::iter::once(shown.as_os_str()).chain(command.get_args());
    words.map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_string();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Runs a tool on our own terminal.
pub fn run(command: &mut Command) -> Outcome<()> {
    let status = status(command)?;
    if status.success() {
        return Ok(());
    }
    Err(Fail::new(format!("`{}` failed ({status}); its own message is above", line(command))))
}

/// Runs a tool on our own terminal and hands back how it ended.
pub fn status(command: &mut Command) -> Outcome<ExitStatus> {
    refuse_if_interrupted()?;
    let mut child = command.spawn().tried(format_args!("start `{}`", line(command)))?;
    let _tracked = Tracked::new(child.id());
    let status = child.wait().tried(format_args!("wait for `{}`", line(command)))?;
    refuse_if_interrupted()?;
    Ok(status)
}

/// Runs a tool silently; its output comes back, or, when it fails, stands in the error.
pub fn capture(command: &mut Command) -> Outcome<String> {
    let output = output(command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(failed(command, &output))
}

/// Runs a tool silently and hands back how it ended and what it said.
pub fn output(command: &mut Command) -> Outcome<Output> {
    refuse_if_interrupted()?;
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().tried(format_args!("start `{}`", line(command)))?;
    let _tracked = Tracked::new(child.id());
    let output = child.wait_with_output().tried(format_args!("wait for `{}`", line(command)))?;
    refuse_if_interrupted()?;
    Ok(output)
}

/// All that a tool said: errors first.
pub fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stderr.as_slice(), &output.stdout].concat()).into_owned()
}

/// Runs two tools silently, the output of the first being the input of the second.
pub fn pipe(from: &mut Command, to: &mut Command) -> Outcome<()> {
    refuse_if_interrupted()?;
    let mut first = from.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let first = first.as_mut().map_err(|error| &*error).tried(format_args!("start `{}`", line(from)))?;
    let _tracked = Tracked::new(first.id());
    let between = first.stdout.take().map_or_else(Stdio::null, Stdio::from);
    let second = to.stdin(between).stdout(Stdio::null()).stderr(Stdio::piped()).spawn();
    // Ours is the last but one: the first must not write into a pipe that nobody reads any more.
    to.stdin(Stdio::null());
    let second = second.and_then(std::process::Child::wait_with_output);
    let first = first.wait().tried(format_args!("wait for `{}`", line(from)))?;
    let second = second.tried(format_args!("run `{}`", line(to)))?;
    refuse_if_interrupted()?;
    match (second.status.success(), first.success()) {
        (true, true) => Ok(()),
        (false, _) => Err(failed(to, &second)),
        (true, false) => Err(Fail::new(format!("`{}` failed ({first}); its own message is above", line(from)))),
    }
}

fn failed(command: &Command, output: &Output) -> Fail {
    let said = said(output);
    let last: Vec<&str> = said.lines().map(str::trim).filter(|text| !text.is_empty()).collect();
    let last = last.get(last.len().saturating_sub(6)..).unwrap_or_default().join("; ");
    Fail::new(format!("`{}` failed ({}): {last}", line(command), output.status))
}

/// Undoes something on the way out: runs even after Ctrl-C and out of a second one's reach, and says so when it
/// does not work.
pub fn undo(command: &mut Command) {
    command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => eprintln!("xtask: cleaning up: `{}` failed ({status}); please run it again", line(command)),
        Err(error) => eprintln!("xtask: cleaning up: `{}`: {error}; please run it", line(command)),
    }
}

fn refuse_if_interrupted() -> Outcome<()> {
    if interrupted() { Err(Fail::interrupted()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_can_be_pasted_into_a_shell() {
        let mut command = Command::new("printf");
        command.args(["%s", "it's", "a b", ""]);
        assert_eq!(line(&command), r"printf %s 'it'\''s' 'a b' ''");
    }
}
