//! Images that are rightly signed and wrong as a whole: geometry, doubled members, things that must be understood,
//! signatures by the thousand, sizes beyond all bounds.

use std::path::{Path, PathBuf};

use e2e::counterfeit::{self, IMAGE_TYPE, Signer};
use e2e::offers::{CHUNK, SIZE};
use e2e::{GIB, Layout, MIB, Offers, Run, exit};
use serde_json::{Value, json};

/// A case: what it is called, and what it does to the image.
type Named<T> = (&'static str, fn(&T));

fn signed(offers: &Offers, descriptor: &Value) -> PathBuf {
    offers.forgery().make_from(&offers.lab, &descriptor.to_string(), &[])
}

/// A change to a descriptor.
type Change = fn(&mut Value);

#[test]
fn spans_and_regions_that_overlap_leave_gaps_or_change_places() {
    let offers = Offers::new();
    let changes: [(&str, Change); 16] = [
        ("spans swapped", |d| d["spans"].as_array_mut().unwrap().swap(0, 1)),
        ("span twice", |d| d["spans"] = json!([d["spans"][0], d["spans"][0], d["spans"][1]])),
        ("first span twice", |d| d["spans"] = json!([d["spans"][0], d["spans"][0]])),
        ("first span only", |d| drop(d["spans"].as_array_mut().unwrap().pop())),
        ("last span only", |d| drop(d["spans"].as_array_mut().unwrap().remove(0))),
        ("spans overlap", |d| d["spans"][1]["raw_offset"] = json!(15 * CHUNK)),
        ("spans leave a gap", |d| d["spans"][1]["raw_offset"] = json!(17 * CHUNK)),
        ("span beyond the end", |d| d["spans"][1]["raw_length"] = json!(SIZE)),
        ("span around the end of numbers", |d| d["spans"][1]["raw_length"] = json!(u64::MAX - 16 * CHUNK + 1 + 512)),
        ("empty span between", |d| {
            let mut empty = d["spans"][1].clone();
            (empty["raw_length"], empty["index"]["size"]) = (json!(0), json!(32));
            d["spans"].as_array_mut().unwrap().insert(1, empty);
        }),
        ("empty span at the end", |d| {
            let mut empty = d["spans"][1].clone();
            (empty["raw_offset"], empty["raw_length"], empty["index"]["size"]) = (json!(SIZE), json!(0), json!(32));
            d["spans"].as_array_mut().unwrap().push(empty);
        }),
        ("16 385 spans", |d| d["spans"] = Value::Array(vec![d["spans"][0].clone(); 16_385])),
        ("regions swapped", |d| d["regions"].as_array_mut().unwrap().swap(0, 1)),
        ("regions overlap", |d| d["regions"][0]["length"] = json!(2 * CHUNK)),
        ("two regions of one name", |d| d["regions"][1]["name"] = json!("boot")),
        ("region around the end of numbers", |d| d["regions"][1]["length"] = json!(u64::MAX - CHUNK + 1 + 512)),
    ];
    for (what, change) in changes {
        let mut descriptor = offers.forgery().descriptor;
        change(&mut descriptor);
        eprintln!("{what}");
        offers.refused_at_once(&signed(&offers, &descriptor), "the signed descriptor is refused");
    }
}

#[test]
fn an_index_of_ten_gigabytes_is_refused_before_anybody_is_asked_for_it() {
    let offers = Offers::new();
    let forgery = offers.forgery();
    let huge = 10 * GIB;
    let mut sizes = forgery.descriptor.clone();
    sizes["spans"][0]["index"]["size"] = json!(huge);
    // One whose geometry agrees: 2^27 chunks in one span.
    let mut geometry = sizes.clone();
    let raw_size = (huge - 32) / 80 * CHUNK;
    geometry["raw_size"] = json!(raw_size);
    geometry["spans"] = json!([geometry["spans"][0]]);
    geometry["spans"][0]["raw_length"] = json!(raw_size);
    geometry["spans"][0]["index"]["size"] = json!(32 + (huge - 32) / 80 * 80);
    geometry["regions"] = json!([{"name": "disk", "offset": 0, "length": raw_size, "encrypt": false}]);
    for descriptor in [sizes, geometry] {
        let dir = signed(&offers, &descriptor);
        offers.refused_at_once(&dir, "the signed descriptor is refused: span 0");
        asks_for_nothing_but_the_envelope(&offers, &dir);
    }
}

/// Writes from a server that says what it is asked for.
fn asks_for_nothing_but_the_envelope(offers: &Offers, dir: &Path) {
    let mut server = Run::imgstream().args(["-vv", "serve"]).arg(dir).words("--listen 127.0.0.1:0").limit(600).start();
    server.until("the server's address", |server| server.stderr().contains("listening on http://"));
    let said = server.stderr();
    let url = said.split("listening on ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
    let target = offers.target();
    let done = offers.image.write(&url, target.path()).measured().done().exits(exit::IMAGE).says("span 0");
    assert!(done.peak < 64 * MIB, "{} MiB", done.peak / MIB);
    target.is_untouched();
    server.until("the requests", |server| server.stderr().matches("/blobs/sha256/").count() >= 2);
    let log = server.stderr();
    let layout = Layout::new(dir);
    for blob in [layout.manifest_path(), layout.envelope_path()] {
        assert!(log.contains(blob.file_name().unwrap().to_str().unwrap()), "{log}");
    }
    assert_eq!(log.matches("/blobs/sha256/").count(), 2, "more than manifest and envelope was asked for:\n{log}");
}

#[test]
fn documents_beyond_their_bounds_are_refused_by_what_is_said_of_them() {
    let offers = Offers::new();
    let payload = offers.forgery().descriptor.to_string();
    let cases: [Named<Layout>; 5] = [
        ("64 MiB and a byte of index.json", |layout| {
            let file = std::fs::File::options().write(true).open(layout.index_path()).unwrap();
            file.set_len(64 * MIB + 1).unwrap();
        }),
        ("a manifest of 64 MiB and a byte", |layout| say(layout, 64 * MIB + 1)),
        ("a manifest of 2^64 bytes", |layout| say(layout, u64::MAX)),
        ("an envelope of 8 MiB and a byte", |layout| say_of_the_envelope(layout, 8 * MIB + 1)),
        ("an envelope of 2^64 bytes", |layout| say_of_the_envelope(layout, u64::MAX)),
    ];
    for (what, change) in cases {
        let dir = offers.forgery().make_from(&offers.lab, &payload, &[]);
        change(&Layout::new(&dir));
        eprintln!("{what}");
        offers.refused_at_once(&dir, "are accepted");
        let target = offers.target();
        let done = offers.image.write(&dir, target.path()).measured().done().exits(exit::IMAGE);
        assert!(done.peak < 64 * MIB, "{what}: {} MiB", done.peak / MIB);
    }
    // A real envelope of 8 MiB and a byte, white space at its end; and one that is within its bound with a descriptor
    // that is not.
    let dir = offers.forgery().make_from(&offers.lab, &payload, &[]);
    let envelope = Layout::new(&dir).envelope().to_string();
    counterfeit::put_text(&dir, &format!("{envelope}{}", " ".repeat(8 * MIB as usize + 1 - envelope.len())));
    offers.refused_at_once(&dir, "are accepted");
    counterfeit::put_text(&dir, &format!("{envelope}{}", " ".repeat(8 * MIB as usize - envelope.len())));
    offers.accepted(&dir);
    // The longest descriptor that leaves room for 64 signatures; one of 6 MiB does not fit into an envelope.
    let padded = |len: usize| format!("{payload}{}", " ".repeat(len - payload.len()));
    offers.accepted(&offers.forgery().make_from(&offers.lab, &padded(6_225_920), &[]));
    let dir = offers.forgery().make_from(&offers.lab, &padded(6 * MIB as usize), &[]);
    offers.refused_at_once(&dir, "are accepted");
}

/// Says another size of the manifest.
fn say(layout: &Layout, size: u64) {
    let mut index = layout.index();
    index["manifests"][0]["size"] = json!(size);
    std::fs::write(layout.index_path(), index.to_string()).unwrap();
}

fn say_of_the_envelope(layout: &Layout, size: u64) {
    let mut manifest = layout.manifest();
    manifest["layers"][0]["size"] = json!(size);
    layout.put_manifest(&manifest);
}

#[test]
fn members_that_stand_twice_are_refused_at_any_depth_of_every_document() {
    let offers = Offers::new();
    let payload = offers.forgery().descriptor.to_string();
    // Before which text the member that stands there comes another time.
    let descriptor = [r#""format":"#, r#""offset":0"#, r#""uuid":"#, r#""method":"#, r#""raw_length":"#, r#""size":"#];
    for place in descriptor {
        let twice = payload.replacen(place, &format!("{},{place}", complete(place)), 1);
        assert_ne!(twice, payload);
        offers.refused_at_once(&offers.forgery().make_from(&offers.lab, &twice, &[]), "twice");
    }
    for unknown in [r#""x":1,"x":1"#, r#""x":[[{"y":{"z":0,"z":0}}]]"#, r#""x":{"é":1,"\u00e9":1}"#, r#""":1,"":2"#] {
        let twice = payload.replacen('{', &format!("{{{unknown},"), 1);
        offers.refused_at_once(&offers.forgery().make_from(&offers.lab, &twice, &[]), "twice");
    }
    let dir = offers.forgery().make_from(&offers.lab, &payload, &[]);
    let layout = Layout::new(&dir);
    let envelope = layout.envelope().to_string();
    for place in [r#""payload":"#, r#""payloadType":"#, r#""signatures":"#, r#""sig":"#] {
        let twice = envelope.replacen(place, &format!("{},{place}", complete(place)), 1);
        counterfeit::put_text(&dir, &twice);
        offers.refused_at_once(&dir, "twice");
    }
    counterfeit::put_text(&dir, &envelope);
    let index = layout.index().to_string();
    for place in [r#""schemaVersion":"#, r#""manifests":"#, r#""digest":"#, r#""size":"#] {
        std::fs::write(layout.index_path(), index.replacen(place, &format!("{},{place}", complete(place)), 1)).unwrap();
        offers.refused_at_once(&dir, "twice");
    }
    std::fs::write(layout.index_path(), index).unwrap();
    offers.accepted(&dir);
}

/// A member with some value: `"a":` gets one of its kind, `"a":0` has it.
fn complete(place: &str) -> String {
    let value = match place {
        r#""payload":"# | r#""payloadType":"# | r#""sig":"# => "\"\"",
        r#""signatures":"# => "[]",
        _ if place.ends_with(':') => "1",
        _ => "",
    };
    format!("{place}{value}")
}

#[test]
fn what_must_be_understood_is_and_what_need_not_be_is_passed_over() {
    let offers = Offers::new();
    let unknown = ["teleport", "luks", "Spans", "spans ", "", "regions/0", "\u{0}", "format\n", "fоrmat"];
    for name in unknown {
        let mut descriptor = offers.forgery().descriptor;
        descriptor["critical"] = json!(["format", name, "spans"]);
        offers.refused_at_once(&signed(&offers, &descriptor), "does not know");
    }
    let mut descriptor = offers.forgery().descriptor;
    descriptor["critical"] = descriptor.as_object().unwrap().keys().cloned().collect();
    descriptor["critical"].as_array_mut().unwrap().extend([json!("expires"), json!("boot")]);
    let more = json!({"a": [null, 1.5e300, {"b": []}]});
    for place in ["", "/regions/0", "/regions/1/luks", "/boot", "/spans/0", "/spans/1/index", "/spans/0/data"] {
        descriptor.pointer_mut(place).unwrap()["teleport"] = more.clone();
    }
    offers.accepted(&signed(&offers, &descriptor));
    // As deep as containers may nest, and one deeper.
    let payload = offers.forgery().descriptor.to_string();
    let nested = |depth| payload.replacen('{', &format!(r#"{{"x":{}{},"#, "[".repeat(depth), "]".repeat(depth)), 1);
    offers.accepted(&offers.forgery().make_from(&offers.lab, &nested(126), &[]));
    for depth in [127, 200, 100_000] {
        let dir = offers.forgery().make_from(&offers.lab, &nested(depth), &[]);
        offers.refused_at_once(&dir, "recursion limit");
    }
}

#[test]
fn signatures_by_the_thousand() {
    let offers = Offers::new();
    let payload = offers.forgery().descriptor.to_string();
    let payload = payload.as_bytes();
    let good = Signer::of(&offers.image.key).sign(IMAGE_TYPE, payload);
    let others: Vec<Vec<u8>> = (0..3).map(|_| Signer::of(&offers.lab.key()).sign(IMAGE_TYPE, payload)).collect();
    let some = |count: usize| others.iter().cycle().take(count).cloned().collect::<Vec<_>>();
    let dir = offers.forgery().make_from(&offers.lab, "{}", &[]);
    let offer = |signatures: &[Vec<u8>]| counterfeit::put_envelope(&dir, &counterfeit::envelope(payload, signatures));
    offer(&[&some(63)[..], std::slice::from_ref(&good)].concat());
    offers.accepted(&dir);
    for count in [64, 5_000, 70_000] {
        offer(&[std::slice::from_ref(&good), &some(count)].concat());
        offers.refused_at_once(&dir, "64 are allowed");
    }
    // Sixty-four times the same one is one.
    offer(&vec![good.clone(); 64]);
    offers.accepted(&dir);
    let second = offers.lab.key();
    let target = offers.target();
    let write = offers.image.write(&dir, target.path()).arg("--trust").arg(&second.public).args(["--threshold", "2"]);
    write.done().exits(exit::IMAGE).says("1 of 2 needed signatures");
    target.is_untouched();
    // Signatures of every other length, and the right one with anything after it.
    let odd = [vec![], vec![0], good[..63].to_vec(), [&good[..], &[0]].concat(), good.repeat(2), vec![0; 1 << 20]];
    offer(&odd);
    offers.refused_at_once(&dir, "0 of 1 needed signatures");
    offer(&[&odd[..], &[good]].concat());
    offers.accepted(&dir);
}

/// `trust.rs` has an image signed as a ticket; here role and signature disagree, both ways.
#[test]
fn a_signature_for_another_role_counts_for_none() {
    let offers = Offers::new();
    let ticket = "application/vnd.z-provisioner.ticket.v1+json";
    let payload = offers.forgery().descriptor.to_string();
    let signer = Signer::of(&offers.image.key);
    let dir = offers.forgery().make_from(&offers.lab, &payload, &[]);
    counterfeit::put_envelope(
        &dir,
        &counterfeit::envelope(payload.as_bytes(), &[signer.sign(ticket, payload.as_bytes())]),
    );
    offers.refused_at_once(&dir, "0 of 1 needed signatures");
    for other in
        [ticket, "application/vnd.z-provisioner.image.v2+json", "APPLICATION/vnd.z-provisioner.image.v1+json", ""]
    {
        let mut envelope = counterfeit::envelope(payload.as_bytes(), &[signer.sign(IMAGE_TYPE, payload.as_bytes())]);
        envelope["payloadType"] = json!(other);
        counterfeit::put_envelope(&dir, &envelope);
        offers.refused_at_once(&dir, "expected an image");
    }
}

#[test]
fn payloads_that_are_no_descriptor_at_all() {
    let offers = Offers::new();
    let payload = offers.forgery().descriptor.to_string();
    let members = payload.trim_start_matches('{').trim_end_matches('}');
    let bom = format!("\u{feff}{payload}");
    let twice = format!("{payload}{payload}");
    let trailing = format!("{payload},");
    let comment = format!("/**/{payload}");
    let array = format!("[{payload}]");
    let string = Value::String(payload.clone()).to_string();
    let cut = &payload[..payload.len() - 1];
    let all = [
        "", " ", "{}", "[]", "null", "0", "\"\"", "\0", cut, members, &bom, &twice, &trailing, &comment, &array,
        &string,
    ];
    for text in all {
        let dir = offers.forgery().make_from(&offers.lab, text, &[]);
        offers.refused_at_once(&dir, "the signed descriptor is refused");
    }
    // Bytes that are not UTF-8, in a name that nobody reads.
    let bytes = [&payload.as_bytes()[..payload.len() - 1], b",\"x\":\"\xff\"}"].concat();
    let signature = Signer::of(&offers.image.key).sign(IMAGE_TYPE, &bytes);
    let dir = offers.forgery().make_from(&offers.lab, &payload, &[]);
    counterfeit::put_envelope(&dir, &counterfeit::envelope(&bytes, &[signature]));
    offers.refused_at_once(&dir, "the signed descriptor is refused");
}

/// The largest numbers that are lawful one by one: their sum is not what 64 bits hold.
#[test]
fn data_blobs_that_are_said_to_be_as_large_as_files_can_be() {
    let offers = Offers::new();
    let mut descriptor = offers.forgery().descriptor;
    let spans = (0..25u64).map(|number| {
        let length = CHUNK.min(SIZE - number * CHUNK);
        let mut span = descriptor["spans"][0].clone();
        (span["raw_offset"], span["raw_length"]) = (json!(number * CHUNK), json!(length));
        (span["index"]["size"], span["data"]["size"]) = (json!(112), json!(i64::MAX));
        span
    });
    descriptor["spans"] = spans.collect();
    let dir = signed(&offers, &descriptor);
    let inspected = offers.command("inspect", &dir).done().ok();
    assert!(inspected.stdout.contains("packed    16777216.0 TiB in 25 spans"), "{}", inspected.stdout);
    let target = offers.target();
    offers.write(&dir, &target).exits(exit::SOURCE);
    target.is_untouched();
    offers.counts();
}

/// Storage that somebody else fills can hold other things than files. None of them is waited for or read for ever.
#[test]
fn a_pipe_a_device_or_a_directory_in_a_files_place() {
    let offers = Offers::new();
    let kinds: [Named<Path>; 5] = [
        ("a pipe", |path| nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap()),
        ("a directory", |path| std::fs::create_dir(path).unwrap()),
        ("a socket", |path| drop(std::os::unix::net::UnixListener::bind(path).unwrap())),
        ("endless zeros", |path| std::os::unix::fs::symlink("/dev/zero", path).unwrap()),
        ("a link to nowhere", |path| std::os::unix::fs::symlink("/nonexistent", path).unwrap()),
    ];
    for (what, make) in kinds {
        let places: [fn(&Layout) -> PathBuf; 4] =
            [Layout::index_path, Layout::manifest_path, Layout::envelope_path, |layout| layout.index_blobs().remove(0)];
        for place in places {
            let dir = offers.forgery().make(&offers.lab);
            let file = place(&Layout::new(&dir));
            std::fs::remove_file(&file).unwrap();
            // A socket's path may have no more than 108 bytes.
            let here = Path::new("/var/tmp").join(format!("z-{}", std::process::id()));
            make(&here);
            std::fs::rename(&here, &file).unwrap();
            let target = offers.target();
            let done = offers.image.write(&dir, target.path()).limit(20).done();
            assert_eq!(done.status.code(), Some(exit::SOURCE), "{what}: {done:?}");
            target.is_untouched();
            offers.counts();
        }
    }
}
