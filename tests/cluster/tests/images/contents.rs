//! What is in the images, and what is not: no shell, no package manager, nothing that gives rights; and nothing is missing.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use e2e::{Lab, Run};

use crate::image;
use crate::layout::{manifests, unpacked};

const LOADERS: [&str; 2] = ["usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", "usr/lib64/ld-linux-x86-64.so.2"];

/// All files below a folder, as paths below it. Links are not followed.
fn files(root: &Path, folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let kind = path.symlink_metadata().unwrap().file_type();
        if kind.is_dir() {
            all.extend(files(root, &path));
        } else if kind.is_file() {
            all.push(path.strip_prefix(root).unwrap().to_owned());
        }
    }
    all
}

fn amd64(lab: &Lab, name: &str) -> PathBuf {
    let layout = image(name);
    let (_, manifest) = manifests(&layout).into_iter().find(|(arch, _)| arch == "amd64").expect("an image for amd64");
    unpacked(lab, &layout, &manifest)
}

/// The programs of an image, its loaders left out, which only those have that are linked with something.
fn programs(root: &Path) -> BTreeSet<String> {
    let executable = |path: &PathBuf| root.join(path).metadata().unwrap().permissions().mode() & 0o111 != 0;
    let all = files(root, root).into_iter().filter(executable).map(|path| path.to_str().unwrap().to_owned());
    all.filter(|path| !LOADERS.contains(&path.as_str())).collect()
}

#[test]
fn there_are_these_programs_and_no_others() {
    let lab = Lab::new();
    let tools = ["cryptsetup", "dmsetup", "mpathpersist", "multipath", "multipathd", "wipefs"];
    let agent = tools.map(|tool| format!("usr/sbin/{tool}")).into_iter().chain(["z-provisioner".into()]).collect();
    assert_eq!(programs(&amd64(&lab, "z-provisioner")), agent);
    assert_eq!(programs(&amd64(&lab, "z-orchestrator")), BTreeSet::from(["z-orchestrator".to_owned()]));
}

#[test]
fn nothing_gives_rights_and_nothing_can_be_changed_by_others() {
    let lab = Lab::new();
    for name in ["z-provisioner", "z-orchestrator"] {
        let root = amd64(&lab, name);
        for path in files(&root, &root) {
            let mode = root.join(&path).metadata().unwrap().permissions().mode() & 0o7777;
            assert!([0o644, 0o755].contains(&mode), "{name}: {} has {mode:o}", path.display());
        }
        assert_eq!(root.join("tmp").metadata().unwrap().permissions().mode() & 0o7777, 0o1777);
        for absent in ["bin/sh", "etc/passwd", "etc/shadow", "usr/bin", "var/lib/dpkg"] {
            assert!(!root.join(absent).exists(), "{name} has {absent}");
        }
    }
}

/// Asked of the image's own loader, with nothing else there.
#[test]
fn every_program_and_library_finds_what_it_is_linked_with() {
    let lab = Lab::new();
    let root = amd64(&lab, "z-provisioner");
    let mut linked = 0;
    for path in files(&root, &root) {
        let content = std::fs::read(root.join(&path)).unwrap();
        if !content.starts_with(b"\x7fELF") || LOADERS.iter().any(|loader| Path::new(loader) == path) {
            continue;
        }
        let inside = Path::new("/").join(&path);
        let list =
            Run::tool("chroot").arg(&root).arg(Path::new("/").join(LOADERS[1])).arg("--list").arg(&inside).done();
        let said = format!("{}{}", list.stdout, list.stderr);
        assert!(!said.contains("not found"), "{}: {said}", path.display());
        // Programs that are released are static; then the loader says so and fails.
        let alone = path.to_str() == Some("z-provisioner") && said.contains("not a dynamic executable");
        assert!(list.status.success() || alone || said.contains("statically linked"), "{}: {said}", path.display());
        linked += 1;
    }
    assert!(linked > 40, "{linked} programs and libraries");
    for tool in ["/usr/sbin/cryptsetup", "/usr/sbin/wipefs", "/z-provisioner"] {
        Run::tool("chroot").arg(&root).args([tool, "--version"]).done().ok();
    }
}

#[test]
fn the_profile_of_system_calls_allows_io_uring_and_no_mounts() {
    let profile: serde_json::Value =
        serde_json::from_str(include_str!("../../../../containers/kubernetes/seccomp/z-provisioner.json")).unwrap();
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    // Runtimes read two dialects; what only one of them knows would silently be something else for the other.
    let known = ["defaultAction", "defaultErrnoRet", "syscalls"];
    assert!(profile.as_object().unwrap().keys().all(|key| known.contains(&key.as_str())));
    let rules = profile["syscalls"].as_array().unwrap();
    let allowed: BTreeSet<&str> = rules
        .iter()
        .filter(|rule| rule["action"] == "SCMP_ACT_ALLOW" && rule["args"].is_null())
        .flat_map(|rule| rule["names"].as_array().unwrap())
        .map(|name| name.as_str().unwrap())
        .collect();
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(allowed.contains(call), "{call}");
    }
    for call in ["mount", "umount2", "unshare", "setns", "bpf", "ptrace", "init_module", "kexec_load", "mknod"] {
        assert!(!allowed.contains(call), "{call}");
    }
    let keys = ["names", "action", "errnoRet", "args"];
    assert!(rules.iter().all(|rule| rule.as_object().unwrap().keys().all(|key| keys.contains(&key.as_str()))));
}
