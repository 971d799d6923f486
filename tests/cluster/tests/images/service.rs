//! The service in a container: nobody in particular, on a root that cannot be written, with one folder that is its own.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};

use cluster::podman::Podman;
use e2e::Lab;
use e2e::server::free_port;
use e2e::tls::Client;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::image;

const USER: u32 = 65532;

/// A test that fails leaves no service behind.
struct Swept<'a>(&'a Podman);

impl Drop for Swept<'_> {
    fn drop(&mut self) {
        // There may be none; whatever happens here, the test has said what it has to say.
        let _ = self.0.bounded(["rm", "--all", "--force", "--time", "0"]).done();
    }
}

#[test]
fn the_service_starts_with_nothing_but_its_folder() {
    let lab = Lab::new();
    std::fs::set_permissions(lab.dir(), Permissions::from_mode(0o755)).unwrap();
    let podman = Podman::new(&lab.fresh_dir("podman"));
    let _swept = Swept(&podman);
    let service = podman.load(&image("z-orchestrator"));
    let data = lab.fresh_dir("data");
    chown(&data, Some(USER), Some(USER)).unwrap();
    let address = format!("127.0.0.1:{}", free_port());
    let config = json!({"listen": [address], "data": "/var/lib/z-orchestrator"});
    let config = lab.file("config.json", config.to_string().as_bytes());
    std::fs::set_permissions(&config, Permissions::from_mode(0o644)).unwrap();
    let volumes = [
        format!("--volume={}:/var/lib/z-orchestrator", data.display()),
        format!("--volume={}:/etc/z-orchestrator/config.json:ro", config.display()),
    ];
    let options = [
        "--network=host",
        "--read-only",
        "--read-only-tmpfs=false",
        "--cap-drop=ALL",
        "--security-opt=no-new-privileges",
    ];
    let options = options.into_iter().chain(volumes.iter().map(String::as_str));

    // With the image's own command line, and under a user that no file knows.
    let mut running = podman.run(&service, options).start();
    running.until("the service", |service| service.stderr().contains("listening on"));
    let client = Client::new(&format!("https://{address}"), &data.join("ca.pem"));
    assert_eq!(client.get("/healthz").unwrap().status, 204);
    running.signal(Signal::SIGTERM);
    running.finish().ok();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&data.join("ca.pem").metadata().unwrap()), USER);
}
