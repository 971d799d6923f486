//! What is on the medium, for who must know: packages with their versions and licences.

use std::path::Path;

use iso::Made;

use crate::fail::Outcome;
use crate::packages::{MEDIUM, owner};

/// One line for each package of which something is on the medium. `folder` is the one in the cache, in which the packages' root is.
pub fn of(folder: &Path, made: &Made) -> Outcome<String> {
    let mut text = format!(
        "# What is on this boot medium besides z-provisioner {} (Apache-2.0): Debian packages, of which only some files are taken.\n\
         # NAME VERSION ARCHITECTURE FILES LICENCES. The licences' texts: https://sources.debian.org/src/NAME/VERSION/debian/copyright\n",
        env!("CARGO_PKG_VERSION")
    );
    for owner::Owner { package, files, licences } in owner::of(&MEDIUM, folder, &made.taken)? {
        let (name, version, architecture) = (&package.name, &package.version, &package.architecture);
        text += &format!("{name} {version} {architecture} {files} {licences}\n");
    }
    Ok(text)
}
