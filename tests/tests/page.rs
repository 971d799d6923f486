//! The page that shows every run, in a real browser, with the service as it is shipped: `tests/page` looks at it, and says what it saw.

use std::path::{Path, PathBuf};

use e2e::Run;
use e2e::command::binary;

#[test]
fn the_page_shows_what_happens_to_everybody_and_executes_nothing() {
    let python = std::env::var_os("Z_PYTHON").map(PathBuf::from);
    let python =
        python.expect("Z_PYTHON is not set: run `cargo xtask test`, or set it to what `cargo xtask python` prints");
    let checks = Path::new(env!("CARGO_MANIFEST_DIR")).join("page");
    let look = Run::program(&python).arg(checks.join("main.py")).env("PYTHONDONTWRITEBYTECODE", "1");
    let look = look.arg("--orchestrator").arg(binary("z-orchestrator", "Z_ORCHESTRATOR_BIN")).limit(180);
    let said = look.text();
    print!("{said}");
    // Each check that there is has run: one that is not in the list would never fail.
    let parts = std::fs::read_dir(&checks).unwrap().map(|part| part.unwrap().path());
    let parts = parts.filter(|part| part.extension().is_some_and(|kind| kind == "py"));
    let sources: String = parts.map(|part| std::fs::read_to_string(part).unwrap()).collect();
    let defined = sources.lines().filter(|line| line.starts_with("def ") && line.ends_with("(world):"));
    let (ran, defined) = (
        said.lines().filter(|line| line.starts_with("ok ")).count(),
        defined.filter(|line| line.matches('_').count() >= 2).count(),
    );
    assert!(ran >= 12 && ran == defined, "{ran} of {defined} checks have run:\n{said}");
}
