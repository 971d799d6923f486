//! The examples of the documentation do what the documentation says.

use e2e::document::{example, run};
use e2e::server;

#[test]
fn the_readme_walk_works_as_printed() {
    // Another process of this machine may have the port that the text names.
    let walk = example("README.md", "imgstream pack").replace("8099", &server::free_port().to_string());
    let said = run(&walk);
    for expected in ["signature verified", "is whole", "the same, byte for byte", "refused, with exit code 5"] {
        assert!(said.contains(expected), "missing {expected:?} in:\n{said}");
    }
}

#[test]
fn the_worked_example_of_the_format_is_true_to_the_byte() {
    let said = run(&example("docs/format.md", "imgstream pack"));
    assert!(said.contains("Signature Verified Successfully"), "{said}");
}
