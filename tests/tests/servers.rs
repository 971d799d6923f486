//! Servers that nobody here wrote: nginx, Debian's docker-registry (filled by skopeo), and TLS.

use std::path::{Path, PathBuf};

use e2e::lab::{certificate, cmp};
use e2e::server::{Server, push, registry_auth};
use e2e::token::TokenServer;
use e2e::{Image, Lab, Run, Target, exit, sample};

/// An image of several spans, and its raw image.
fn image(lab: &Lab) -> (PathBuf, Image) {
    let raw = sample::disk(512);
    let image = lab.pack(&raw, "--chunk-size 256KiB --span-size 8MiB");
    (raw, image)
}

/// Writes from `locator` onto a loop device and compares.
fn arrives(lab: &Lab, raw: &Path, image: &Image, locator: &str, options: &[&Path]) {
    let device = Target::device(lab, sample::DISK_SIZE, "");
    image.write(locator, device.path()).args(options).done().ok();
    cmp(raw, device.path(), sample::DISK_SIZE).ok();
}

#[test]
fn nginx_serves_an_image_as_it_lies() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let server = Server::nginx(&lab, &image.dir, None);
    arrives(&lab, &raw, &image, &server.url(), &[]);
}

#[test]
fn an_image_may_lie_below_a_path() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let server = Server::nginx(&lab, lab.dir(), None);
    let name = image.dir.file_name().unwrap().to_str().unwrap();
    arrives(&lab, &raw, &image, &format!("{}{name}", server.url()), &[]);
    arrives(&lab, &raw, &image, &format!("{}{name}/", server.url()), &[]);
}

#[test]
fn verify_inspect_and_unpack_work_over_http_too() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let server = Server::nginx(&lab, &image.dir, None);
    let trusting =
        |command: &str| Run::imgstream().arg(command).arg(server.url()).arg("--trust").arg(&image.key.public);
    trusting("verify").done().ok().says("is whole");
    let shown = trusting("inspect").arg("--json").done().ok().json().pop().expect("an object");
    assert_eq!(shown["verified"], true);
    assert_eq!(shown["descriptor"], image.layout().descriptor());
    let unpacked = lab.path("unpacked");
    Run::imgstream().args(["unpack", &server.url()]).arg(&unpacked).arg("--trust").arg(&image.key.public).done().ok();
    cmp(&raw, &unpacked, sample::DISK_SIZE).ok();
}

#[test]
fn inspect_without_trust_says_that_nothing_is_verified() {
    let lab = Lab::new();
    let (_, image) = image(&lab);
    let done = Run::imgstream().arg("inspect").arg(&image.dir).done().ok();
    assert!(done.stdout.contains("NOT VERIFIED"), "{}", done.stdout);
    let done = Run::imgstream().arg("inspect").arg(&image.dir).arg("--json").done().ok();
    assert_eq!(done.json()[0]["verified"], false);
}

#[test]
fn a_registry_takes_the_layout_from_skopeo_and_serves_it_by_tag_and_by_digest() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let registry = Server::registry(&lab, "");
    let repository = format!("{}/images/sample", registry.authority());
    push(&image.dir, &format!("{repository}:7"), "");
    let at = format!("oci+http://{repository}");
    arrives(&lab, &raw, &image, &format!("{at}:7"), &[]);
    let digest = image.layout().index()["manifests"][0]["digest"].as_str().unwrap().to_owned();
    arrives(&lab, &raw, &image, &format!("{at}@{digest}"), &[]);
    // A digest that the registry does not have, and a tag that it does not have.
    for missing in [format!("{at}@sha256:{}", "0".repeat(64)), format!("{at}:8")] {
        let target = Target::file(&lab, sample::DISK_SIZE);
        image.write(missing, target.path()).done().exits(exit::SOURCE).says("404");
        target.is_untouched();
    }
}

#[test]
fn what_skopeo_copies_back_from_a_registry_is_the_same_image() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let registry = Server::registry(&lab, "");
    let reference = format!("{}/sample:7", registry.authority());
    push(&image.dir, &reference, "");
    let copy = lab.path("pulled");
    Run::tool("skopeo")
        .words("--insecure-policy copy --src-tls-verify=false")
        .arg(format!("docker://{reference}"))
        .arg(format!("oci:{}:sample-7-s390x", copy.display()))
        .done()
        .ok();
    Run::imgstream().arg("verify").arg(&copy).arg("--trust").arg(&image.key.public).done().ok();
    arrives(&lab, &raw, &image, copy.to_str().unwrap(), &[]);
}

#[test]
fn two_images_in_one_layout_are_told_apart_by_name() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let other = lab.fresh("other");
    let small = lab.file("small", &sample::noise(3, 65536));
    Run::imgstream()
        .arg("pack")
        .args([&small, &other])
        .words("--name another --image-version 1 --arch s390x --key")
        .arg(&image.key.secret)
        .done()
        .ok();
    let both = lab.path("both");
    for (dir, tag) in [(&image.dir, "sample-7-s390x"), (&other, "another-1-s390x")] {
        Run::tool("skopeo")
            .words("--insecure-policy copy")
            .arg(format!("oci:{}:{tag}", dir.display()))
            .arg(format!("oci:{}:{tag}", both.display()))
            .done()
            .ok();
    }
    let device = Target::device(&lab, sample::DISK_SIZE, "");
    image.write(&both, device.path()).done().exits(exit::IMAGE).says("2 images").says("another-1-s390x");
    image.write(&both, device.path()).args(["--name", "third"]).done().exits(exit::IMAGE).says("no image");
    device.is_untouched();
    image.write(&both, device.path()).args(["--name", "sample"]).done().ok();
    cmp(&raw, device.path(), sample::DISK_SIZE).ok();
}

/// "e2e" with the password "correct horse", as `htpasswd -B` writes it.
const HTPASSWD: &str = "e2e:$2y$05$abcdefghijklmnopqrstuuHNbAKRhpaujgo33bRWs.NLUTJO3lOy2\n";

#[test]
fn a_registry_with_a_password_gets_it_and_nobody_without_gets_in() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let file = lab.file("htpasswd", HTPASSWD.as_bytes());
    let registry =
        Server::registry(&lab, &format!("auth:\n  htpasswd:\n    realm: e2e\n    path: {}\n", file.display()));
    let reference = format!("{}/sample:7", registry.authority());
    let skopeo_auth = registry_auth(&lab, &registry.authority(), "e2e", "correct horse");
    push(&image.dir, &reference, &format!("--dest-authfile {}", skopeo_auth.display()));
    let locator = format!("oci+http://{reference}");
    arrives(&lab, &raw, &image, &locator, &[Path::new("--registry-auth"), &skopeo_auth]);

    let target = Target::file(&lab, sample::DISK_SIZE);
    image.write(&locator, target.path()).done().exits(exit::SOURCE).says("401");
    let wrong = registry_auth(&lab, &registry.authority(), "e2e", "wrong horse");
    image.write(&locator, target.path()).arg("--registry-auth").arg(&wrong).done().exits(exit::SOURCE).says("401");
    let elsewhere = registry_auth(&lab, "registry.example.com", "e2e", "correct horse");
    image.write(&locator, target.path()).arg("--registry-auth").arg(&elsewhere).done().exits(exit::SOURCE).says("401");
    target.is_untouched();
}

#[test]
fn a_registry_with_a_token_server_is_given_its_tokens() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let tokens = TokenServer::start(&lab, "e2e", "correct horse");
    let registry = Server::registry(&lab, &tokens.registry_config());
    let reference = format!("{}/images/sample:7", registry.authority());
    let auth = registry_auth(&lab, &registry.authority(), "e2e", "correct horse");
    push(&image.dir, &reference, &format!("--dest-authfile {}", auth.display()));
    let before = tokens.given();
    let locator = format!("oci+http://{reference}");
    arrives(&lab, &raw, &image, &locator, &[Path::new("--registry-auth"), &auth]);
    assert!(tokens.given() > before, "no token was asked for");
    let last = tokens.scopes().pop().expect("a scope");
    assert_eq!(last, "repository:images/sample:pull", "no more than the right to read is asked for");

    let target = Target::file(&lab, sample::DISK_SIZE);
    image.write(&locator, target.path()).done().exits(exit::SOURCE).says("401");
    target.is_untouched();
}

#[test]
fn passwords_do_not_appear_in_what_is_said() {
    let lab = Lab::new();
    let image = lab.pack_bytes(&sample::noise(1, 65536), "");
    let tokens = TokenServer::start(&lab, "e2e", "correct horse");
    let registry = Server::registry(&lab, &tokens.registry_config());
    let auth = registry_auth(&lab, &registry.authority(), "e2e", "wrong horse");
    let run = image.write(format!("oci+http://{}/sample:7", registry.authority()), &lab.path("new"));
    let done = run.arg("--registry-auth").arg(&auth).arg("-vvv").done().exits(exit::SOURCE);
    assert!(!done.stderr.contains("wrong horse") && !done.stderr.contains("ZTJlOndyb25nIGhvcnNl"), "{}", done.stderr);
}

#[test]
fn tls_is_checked_against_the_given_authority() {
    let lab = Lab::new();
    let (raw, image) = image(&lab);
    let (authority, key) = certificate(&lab);
    let server = Server::imgstream_tls(&image.dir, &authority, &key);
    arrives(&lab, &raw, &image, &server.url(), &[Path::new("--ca"), &authority]);

    let target = Target::file(&lab, sample::DISK_SIZE);
    let (another, _) = certificate(&lab);
    image.write(server.url(), target.path()).done().exits(exit::SOURCE).says("certificate");
    image.write(server.url(), target.path()).arg("--ca").arg(&another).done().exits(exit::SOURCE).says("certificate");
    target.is_untouched();
}

#[test]
fn curl_gets_the_ranges_it_asks_imgstream_serve_for() {
    let lab = Lab::new();
    let (_, image) = image(&lab);
    let server = Server::imgstream(&image.dir);
    let blob = &image.layout().data_blobs()[0];
    let url = format!("{}blobs/sha256/{}", server.url(), blob.file_name().unwrap().to_str().unwrap());
    let (whole, part) = (lab.path("whole"), lab.path("part"));
    Run::tool("curl").args(["-sSf", "-o"]).arg(&whole).arg(&url).done().ok();
    cmp(blob, &whole, u64::MAX >> 1).ok();
    let status = Run::tool("curl").words("-sSf -r 1000-2999 -w %{http_code} -o").arg(&part).arg(&url).text();
    assert_eq!(status, "206");
    assert_eq!(std::fs::read(part).unwrap(), std::fs::read(blob).unwrap()[1000..3000]);
}

#[test]
fn a_server_that_is_not_there_is_named() {
    let lab = Lab::new();
    let (_, image) = image(&lab);
    let target = Target::file(&lab, sample::DISK_SIZE);
    // A port that is free now may be somebody's in a moment; nobody is given this one.
    let nobody = "127.0.0.1:1";
    for locator in [format!("http://{nobody}/"), format!("oci+http://{nobody}/sample:7")] {
        image.write(locator, target.path()).done().exits(exit::SOURCE).says(nobody);
    }
    image.write(lab.path("nowhere"), target.path()).done().exits(exit::SOURCE).says("nowhere");
    target.is_untouched();
}
