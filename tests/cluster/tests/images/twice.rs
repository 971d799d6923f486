//! Images are built once more: the same programs give the same digests, and those for s390x are for s390x.

use std::path::Path;

use e2e::{Lab, Run};

use crate::layout::{manifests, unpacked};

/// Builds images with the chore itself.
fn built(lab: &Lab, words: &str) -> std::path::PathBuf {
    let out = lab.fresh("containers");
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let cargo = Run::program(Path::new(&cargo)).within(&workspace).words("xtask containers").words(words);
    cargo.arg("--out").arg(&out).limit(3600).done().ok();
    out
}

#[test]
fn the_same_programs_give_the_same_images() {
    let lab = Lab::new();
    let words = "--arch amd64 --programs dev";
    let (one, two) = (built(&lab, words), built(&lab, words));
    Run::tool("diff").arg("--recursive").args([&one, &two]).done().ok();
    assert!(one.join("z-provisioner/index.json").is_file() && one.join("z-orchestrator/index.json").is_file());
}

#[test]
#[ignore = "soak"] // builds two programs for s390x, optimised as a whole
fn images_for_s390x_have_programs_that_run_there() {
    let lab = Lab::new();
    let out = built(&lab, "--arch s390x");
    for name in ["z-provisioner", "z-orchestrator"] {
        let layout = out.join(name);
        let all = manifests(&layout);
        let [(arch, manifest)] = all.as_slice() else { panic!("one image: {all:?}") };
        assert_eq!(arch, "s390x");
        let root = unpacked(&lab, &layout, manifest);
        let program = std::fs::read(root.join(name)).unwrap();
        // Class 64 bit, big-endian, machine 22.
        assert_eq!((&program[..6], &program[18..20]), (&b"\x7fELF\x02\x02"[..], &[0, 22][..]));
        let version = Run::tool("qemu-s390x-static").arg(root.join(name)).arg("--version").text();
        assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
    }
}
