//! The medium as a thing: what it is made of, and that it is made the same each time.

use std::process::Command;

use vm::lane;

#[test]
fn the_same_inputs_make_the_same_medium() {
    let folder = tempfile::tempdir().unwrap();
    let cargo = std::env::var_os("CARGO").expect("cargo runs this");
    let mut again = Command::new(cargo);
    again.args(["xtask", "iso", "--out"]).arg(folder.path()).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let done = again.output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    for name in
        ["z-provisioner.iso", "z-provisioner.img", "z-provisioner.ins", "kernel.img", "initrd.img", "packages.txt"]
    {
        let (first, second) = (lane::medium().join(name), folder.path().join(name));
        assert!(std::fs::read(&first).unwrap() == std::fs::read(&second).unwrap(), "{name} differs");
    }
}

#[test]
fn everything_on_it_has_a_package_with_a_version_and_licences() {
    let list = std::fs::read_to_string(lane::medium().join("packages.txt")).unwrap();
    let lines: Vec<Vec<&str>> =
        list.lines().filter(|line| !line.starts_with('#')).map(|line| line.splitn(5, ' ').collect()).collect();
    assert!(lines.len() > 30, "{list}");
    for line in &lines {
        assert!(line.len() == 5 && line[3].parse::<u32>().is_ok() && !line[4].is_empty(), "{line:?}");
    }
    for name in ["busybox-static", "charon-systemd", "cryptsetup-bin", "multipath-tools", "udev"] {
        assert!(lines.iter().any(|line| line[0] == name), "{name} is not in\n{list}");
    }
    assert!(lines.iter().any(|line| line[0].starts_with("linux-image-")));
}
