//! Certificates for the two ends of a tunnel, by openssl.

use std::path::{Path, PathBuf};

use e2e::Run;
use tempfile::TempDir;

use crate::gateway::NOW;

/// An authority and what it has signed.
pub struct Pki {
    folder: TempDir,
}

impl Pki {
    /// A new authority.
    pub fn new(name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pki = Self { folder };
        pki.key("ca");
        let subject = format!("/O=vcn/CN={name}");
        let (key, certificate) = (pki.path("ca.key"), pki.path("ca.crt"));
        let mut request = Run::tool("openssl");
        request = request.words("req -x509 -new -sha384 -days 3650 -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign");
        request.arg("-key").arg(&key).arg("-subj").arg(&subject).arg("-out").arg(&certificate).done().ok();
        pki
    }

    fn key(&self, name: &str) {
        let out = self.path(&format!("{name}.key"));
        Run::tool("openssl").words("genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-384 -out").arg(&out).done().ok();
    }

    /// Signs a certificate for a name, good for these dates (`YYYYMMDDHHMMSSZ`), and returns it and its key.
    pub fn sign(&self, name: &str, from: &str, until: &str) -> (PathBuf, PathBuf) {
        self.key(name);
        let (request, extensions) = (self.path("request"), self.path("extensions"));
        let key = self.path(&format!("{name}.key"));
        let subject = format!("/O=vcn/CN={name}");
        Run::tool("openssl")
            .words("req -new -sha384 -key")
            .arg(&key)
            .arg("-subj")
            .arg(&subject)
            .arg("-out")
            .arg(&request)
            .done()
            .ok();
        std::fs::write(&extensions, format!("subjectAltName=DNS:{name}\nkeyUsage=digitalSignature\n")).unwrap();
        let certificate = self.path(&format!("{name}.crt"));
        // `openssl x509` knows no dates before now; `openssl ca` does.
        std::fs::write(self.path("index"), "").unwrap();
        std::fs::write(self.path("serial"), "01\n").unwrap();
        let config = format!(
            "[ca]\ndefault_ca=d\n[d]\ndatabase={index}\nserial={serial}\nnew_certs_dir={folder}\ndefault_md=sha384\npolicy=p\n\
             unique_subject=no\n[p]\nO=optional\nCN=supplied\n",
            index = self.path("index").display(),
            serial = self.path("serial").display(),
            folder = self.folder.path().display()
        );
        let conf = self.path("ca.conf");
        std::fs::write(&conf, config).unwrap();
        let mut run = Run::tool("openssl").words("ca -batch -notext -config").arg(&conf);
        run = run.arg("-cert").arg(self.path("ca.crt")).arg("-keyfile").arg(self.path("ca.key"));
        run = run.words(&format!("-startdate {from} -enddate {until} -in")).arg(&request);
        run.arg("-extfile").arg(&extensions).arg("-out").arg(&certificate).done().ok();
        (certificate, key)
    }

    /// Good for ten years around now.
    pub fn sign_now(&self, name: &str) -> (PathBuf, PathBuf) {
        self.sign(name, NOW[0], NOW[1])
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.path("ca.crt")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(Path::new(name))
    }
}
