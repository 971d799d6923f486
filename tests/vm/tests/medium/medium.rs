//! A medium for one machine: what `cargo xtask iso` has made, with a configuration put in by `z-provisioner config`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use e2e::Run;
use serde_json::{Value, json};
use tempfile::TempDir;
use vm::{Boot, Lpar, LparBuilder, lane};

use crate::gateway::{GATEWAY, INSIDE, OUTSIDE, PSK, SERVER};
use crate::image::Packed;
use crate::pki::Pki;

/// A folder with a configuration and the files it names.
pub struct Medium {
    folder: Arc<TempDir>,
    pub config: Value,
}

impl Medium {
    /// For a machine whose first interface is at end 1 of a cable, that puts this image onto this LUN.
    pub fn new(packed: &Packed, wwid: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("vm-medium-").tempdir_in("/var/tmp").unwrap();
        std::fs::copy(&packed.image.key.public, folder.path().join("image.pub")).unwrap();
        let config = json!({
            "server": "lpar-17",
            "trust": { "images": ["image.pub"] },
            "network": { "interfaces": [{
                "name": "vcn0",
                "device": { "mac": Lpar::MAC },
                "ipv4": { "static": { "addresses": [format!("{}/24", OUTSIDE[1])] } },
            }] },
            "run": {
                "run": "lpar-17-1",
                "image": {
                    "name": "sample",
                    "sources": [format!("http://{INSIDE}/")],
                    "trust": ["image.pub"],
                },
                "target": { "lun": { "wwid": wwid, "wait": 30 }, "reservation": "prefer" },
                "options": { "connections": 2, "request_size": 1 << 20 },
                "hand_over": "re-ipl",
            },
        });
        Self { folder: Arc::new(folder), config }
    }

    /// The VCN by a pre-shared key.
    pub fn psk(mut self, key: &str) -> Self {
        self.file("psk", key.as_bytes());
        self.ipsec(json!({ "psk": "psk" }));
        self
    }

    /// The VCN by certificates.
    pub fn certificates(mut self, pki: &Pki) -> Self {
        let (certificate, key) = pki.sign_now(SERVER);
        self.file("server.crt", &std::fs::read(certificate).unwrap());
        self.file("server.key", &std::fs::read(key).unwrap());
        self.file("ca.crt", &std::fs::read(pki.ca()).unwrap());
        self.ipsec(json!({ "certificate": { "certificate": "server.crt", "key": "server.key", "ca": ["ca.crt"] } }));
        self
    }

    /// The VCN by the key that gateways have.
    pub fn known(self) -> Self {
        self.psk(PSK)
    }

    fn ipsec(&mut self, auth: Value) {
        self.config["ipsec"] = json!({
            "gateway": OUTSIDE[0],
            "local_id": SERVER,
            "gateway_id": GATEWAY,
            "auth": auth,
            "tunnels": [{ "local": OUTSIDE[1], "remote": ["10.20.0.0/24"] }],
            "dead_peer": 4,
        });
    }

    /// Sets one value.
    pub fn with(mut self, pointer: &str, value: Value) -> Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        self.config.pointer_mut(parent).unwrap()[key] = value;
        self
    }

    /// A file beside the configuration.
    pub fn file(&mut self, name: &str, bytes: &[u8]) {
        std::fs::write(self.folder.path().join(name), bytes).unwrap();
    }

    /// Where such a file is.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A key for an encrypted target; returns what is typed to unlock it.
    pub fn luks_key(&mut self) -> String {
        let path = self.folder.path().join("luks-key");
        Run::provisioner().words("keygen").arg(&path).done().ok();
        self.config["luks_key"] = json!("luks-key");
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }

    /// A machine that boots it from a CD.
    pub fn machine(&self) -> LparBuilder {
        LparBuilder::new(self.iso()).keep(&self.folder)
    }

    /// A CD with it.
    pub fn iso(&self) -> Boot {
        Boot::Iso(self.put(&["z-provisioner.iso"], "z-provisioner.iso"))
    }

    /// A folder for network boot.
    pub fn ins(&self) -> Boot {
        let file = self.put(&["z-provisioner.img", "z-provisioner.ins"], "z-provisioner.img");
        Boot::Ins(file.parent().unwrap().to_owned(), "z-provisioner.ins".into())
    }

    /// A kernel and a file system.
    pub fn kernel(&self) -> Boot {
        let archive = self.write("configuration.cpio");
        let whole = self.folder.path().join("initrd.img");
        let mut bytes = std::fs::read(lane::medium().join("initrd.img")).unwrap();
        bytes.extend(std::fs::read(archive).unwrap());
        std::fs::write(&whole, bytes).unwrap();
        Boot::Kernel(lane::medium().join("kernel.img"), whole, "rdinit=/init quiet loglevel=4".into())
    }

    fn put(&self, copied: &[&str], into: &str) -> PathBuf {
        let boot = self.folder.path().join("boot");
        std::fs::create_dir_all(&boot).unwrap();
        for name in copied {
            std::fs::copy(lane::medium().join(name), boot.join(name)).unwrap();
        }
        let medium = boot.join(into);
        self.configure("--medium", &medium);
        medium
    }

    fn write(&self, name: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        self.configure("--out", &path);
        path
    }

    fn configure(&self, option: &str, path: &Path) {
        let file = self.folder.path().join("config.json");
        std::fs::write(&file, self.config.to_string()).unwrap();
        Run::provisioner().words("config").arg(&file).arg(option).arg(path).done().ok();
    }
}
