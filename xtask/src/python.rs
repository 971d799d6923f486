//! The Python with the validators that tests ask for a second opinion, of documents and of the page: a virtual environment, made once and kept in the cache.

use std::path::PathBuf;

use crate::cache;
use crate::fail::Outcome;
use crate::shell::{capture, line, run, tool};

/// All of it, dependencies included: what was valid yesterday is valid today.
const PACKAGES: [&str; 21] = [
    "annotated-types==0.8.0",
    "attrs==26.1.0",
    // Brings axe-core, which is all that is used of it: it drives no browser here.
    "axe-playwright-python==0.1.8",
    "jsonschema==4.26.0",
    "jsonschema-path==0.5.0",
    "jsonschema-specifications==2025.9.1",
    "lazy-object-proxy==1.13.0",
    "openapi-schema-validator==0.9.0",
    "openapi-spec-validator==0.9.0",
    "pathable==0.6.0",
    "pydantic==2.14.4",
    "pydantic-core==2.50.5",
    "pydantic-settings==2.16.3",
    "python-dotenv==1.2.4",
    "PyYAML==6.0.4",
    "referencing==0.37.0",
    "rfc3339-validator==0.1.4",
    "rpds-py==2026.9.1",
    "six==1.17.0",
    "typing-extensions==4.16.0",
    "typing-inspection==0.4.5",
];

/// The interpreter, for which `prerequisites::ensure` has been called.
pub fn ensure() -> Outcome<PathBuf> {
    // An environment belongs to the interpreter that made it.
    let interpreter = capture(tool("python3").args(["-c", "import sys; print(sys.executable, sys.version)"]))?;
    let recipe = format!("{interpreter}{}\n", PACKAGES.join("\n"));
    let folder = cache::entry("python", &recipe, false, |folder| {
        eprintln!("making a Python environment with openapi-spec-validator, jsonschema and axe-core (once; cached)");
        let mut make = tool("python3");
        make.args(["-m", "venv"]).arg(folder);
        eprintln!("$ {}", line(&make));
        run(&mut make)?;
        // By its interpreter, never by its scripts: those name the folder that it is made in, which is renamed when complete.
        let mut install = tool(folder.join("bin/python"));
        install.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]).args(PACKAGES);
        eprintln!("$ {}", line(&install));
        run(&mut install)
    })?;
    Ok(folder.join("bin/python"))
}
