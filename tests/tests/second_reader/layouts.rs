//! The OCI documents: section 2. Nothing of them is trusted, and what they must hold is little.

use e2e::layout::Layout;
use e2e::second_reader::{ACCEPTED, CORRUPT, Expect, Matrix, REFUSED};
use serde_json::{Value, json};

use super::two_spans;

fn index(matrix: &mut Matrix, what: &str, expect: Expect, change: impl FnOnce(&mut Value)) {
    index_wanting(matrix, what, expect, &[], change);
}

fn index_wanting(matrix: &mut Matrix, what: &str, expect: Expect, wanted: &[&str], change: impl FnOnce(&mut Value)) {
    matrix.add_with(&format!("index: {what}"), expect, wanted, |layout| {
        let mut index = layout.index();
        change(&mut index);
        std::fs::write(layout.index_path(), index.to_string()).unwrap();
    });
}

fn manifest(matrix: &mut Matrix, what: &str, expect: Expect, change: impl FnOnce(&mut Value)) {
    matrix.add(&format!("manifest: {what}"), expect, |layout| {
        let mut manifest = layout.manifest();
        change(&mut manifest);
        layout.put_manifest(&manifest);
    });
}

fn remove(object: &mut Value, member: &str) {
    object.as_object_mut().unwrap().remove(member);
}

const HEX: &str = "sha256:0000000000000000000000000000000000000000000000000000000000000000";

#[test]
fn they_agree_on_index_json() {
    let mut matrix = two_spans();
    for member in ["schemaVersion", "manifests"] {
        index(&mut matrix, &format!("no {member}"), REFUSED, |i| remove(i, member));
        for value in [json!(null), json!("2"), json!({}), json!([]), json!([[]]), json!([1]), json!(2.0), json!(-2)] {
            index(&mut matrix, &format!("{member} is {value}"), REFUSED, |i| i[member] = value);
        }
    }
    for member in ["digest", "size"] {
        index(&mut matrix, &format!("no {member}"), REFUSED, |i| remove(&mut i["manifests"][0], member));
        for value in [json!(null), json!("7"), json!(HEX.to_uppercase()), json!([HEX]), json!(7.0), json!(-7)] {
            index(&mut matrix, &format!("{member} is {value}"), REFUSED, |i| i["manifests"][0][member] = value);
        }
    }
    for (what, expect, change) in [
        ("mediaType", ACCEPTED, (|i| remove(i, "mediaType")) as fn(&mut Value)),
        ("mediaType of another type", REFUSED, |i| i["mediaType"] = json!([7])),
        ("the entry's mediaType", ACCEPTED, |i| remove(&mut i["manifests"][0], "mediaType")),
        ("the entry's mediaType of another type", REFUSED, |i| i["manifests"][0]["mediaType"] = json!(7)),
        ("a platform", ACCEPTED, |i| i["manifests"][0]["platform"] = json!({"architecture": 7})),
        ("schemaVersion", ACCEPTED, |i| i["schemaVersion"] = json!(0)),
        ("schemaVersion 2^32 - 1", ACCEPTED, |i| i["schemaVersion"] = json!(u32::MAX)),
        ("schemaVersion 2^32", REFUSED, |i| i["schemaVersion"] = json!(1u64 << 32)),
        ("no annotations", ACCEPTED, |i| remove(&mut i["manifests"][0], "annotations")),
        ("annotations null", REFUSED, |i| i["manifests"][0]["annotations"] = Value::Null),
        ("annotations that are an array", REFUSED, |i| i["manifests"][0]["annotations"] = json!([])),
        ("annotations that are text", REFUSED, |i| i["manifests"][0]["annotations"] = json!("sample-7-s390x")),
        ("annotations of other types", ACCEPTED, |i| i["manifests"][0]["annotations"]["x"] = json!([{"y": 1}])),
        ("a reference name that is none", ACCEPTED, |i| refer(i, json!(7))),
        ("another reference name", ACCEPTED, |i| refer(i, json!("latest"))),
        ("an entry of 0 bytes", CORRUPT, |i| i["manifests"][0]["size"] = json!(0)),
        ("an entry a byte longer", CORRUPT, |i| i["manifests"][0]["size"] = json!(1234)),
        ("an entry of 64 MiB and a byte", REFUSED, |i| i["manifests"][0]["size"] = json!((64 << 20) + 1)),
        ("an entry of 2^64 - 1", REFUSED, |i| i["manifests"][0]["size"] = json!(u64::MAX)),
        ("an entry that is not there", CORRUPT, |i| i["manifests"][0]["digest"] = json!(HEX)),
        ("an array", REFUSED, |i| *i = json!([i["schemaVersion"], i["manifests"]])),
    ] {
        index(&mut matrix, what, expect, change);
    }
    println!("the readers agree on {} index.json", matrix.judge());
}

fn refer(index: &mut Value, name: Value) {
    index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"] = name;
}

#[test]
fn they_agree_on_the_bytes_of_index_json() {
    let mut matrix = two_spans();
    let mut bytes = |what: &str, expect, change: &dyn Fn(&str) -> Vec<u8>| {
        matrix.add(what, expect, |layout| {
            let text = layout.index().to_string();
            std::fs::write(layout.index_path(), change(&text)).unwrap();
        });
    };
    bytes("empty", REFUSED, &|_| Vec::new());
    bytes("space around", ACCEPTED, &|text| format!("\n{text}\t").into_bytes());
    bytes("bytes behind", REFUSED, &|text| format!("{text}x").into_bytes());
    bytes("a byte order mark", REFUSED, &|text| format!("\u{feff}{text}").into_bytes());
    bytes("a name twice", REFUSED, &|text| text.replacen('{', r#"{"x":1,"x":1,"#, 1).into_bytes());
    bytes("a nested name twice", REFUSED, &|text| text.replacen('{', r#"{"x":[{"y":1,"y":1}],"#, 1).into_bytes());
    bytes("nested 127 deep", ACCEPTED, &|text| nested(text, 126));
    bytes("nested 128 deep", REFUSED, &|text| nested(text, 127));
    bytes("64 MiB", ACCEPTED, &|text| spaced(text, 64 << 20));
    bytes("64 MiB and a byte", REFUSED, &|text| spaced(text, (64 << 20) + 1));
    println!("the readers agree on {} files index.json", matrix.judge());
}

fn nested(text: &str, depth: usize) -> Vec<u8> {
    let value = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    text.replacen('{', &format!(r#"{{"x":{value},"#), 1).into_bytes()
}

fn spaced(text: &str, len: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(len, b' ');
    bytes
}

#[test]
fn they_agree_on_which_image_is_meant() {
    let entries = |names: &[Value]| {
        let names = names.to_vec();
        move |index: &mut Value| {
            let first = index["manifests"][0].clone();
            let missing = json!({"digest": HEX, "size": 7});
            // The first is the image; all others lead nowhere.
            index["manifests"] = names.iter().map(|_| missing.clone()).collect();
            index["manifests"][0] = first;
            for (at, name) in names.iter().enumerate() {
                index["manifests"][at]["annotations"] = json!({"org.opencontainers.image.ref.name": name});
            }
        }
    };
    let mut matrix = two_spans();
    let mut among = |names: &[Value], wanted: &str, expect| {
        let words: Vec<_> = wanted.split_whitespace().collect();
        index_wanting(&mut matrix, &format!("{names:?}"), expect, &words, entries(names));
    };
    let ours = json!("sample-7-s390x");
    among(&[ours.clone(), json!("other-7-s390x")], "", REFUSED);
    among(&[ours.clone(), json!("other-7-s390x")], "--name sample", ACCEPTED);
    among(&[ours.clone(), json!("other-7-s390x")], "--name other", CORRUPT);
    among(&[ours.clone(), json!("other-7-s390x")], "--name third", REFUSED);
    among(&[ours.clone(), json!("other-7-x86_64")], "--arch s390x", ACCEPTED);
    among(&[ours.clone(), json!("sample-8-x86_64")], "--name sample --arch s390x", ACCEPTED);
    among(&[ours.clone(), json!("sample-8-s390x")], "--name sample --arch s390x", REFUSED);
    among(&[ours.clone(), json!("sample-8-s390x")], "--name sample --min-version 7", REFUSED);
    among(&[ours.clone(), json!(null)], "--name sample", ACCEPTED);
    among(&[ours.clone(), json!(7), json!(["sample"])], "", ACCEPTED);
    among(&[ours.clone(), json!("latest")], "--name sample", ACCEPTED);
    among(&[ours.clone(), json!("latest")], "--arch s390x", REFUSED);
    among(&[ours.clone(), json!("sample-x-s390x")], "--name sample", ACCEPTED);
    among(&[ours.clone(), json!("sample--s390x")], "--name sample", ACCEPTED);
    among(&[ours.clone(), json!("sample-+7-s390x")], "--name sample", ACCEPTED);
    among(&[ours.clone(), json!("sample-\u{663}-s390x")], "--name sample", ACCEPTED);
    among(&[ours.clone(), json!("sample-99999999999999999999999999-s390x")], "--name sample", REFUSED);
    among(&[ours.clone(), json!("sample")], "--name sample", REFUSED);
    among(&[ours.clone(), json!("-7-s390x")], "--name sample", ACCEPTED);
    among(&[ours.clone(), json!("-7-s390x")], "--arch s390x", REFUSED);
    among(&[ours.clone(), json!("sample-7-")], "--arch s390x", ACCEPTED);
    among(&[json!("some-sample-7-s390x"), json!("sample-some-7-s390x")], "--name some-sample", REFUSED);
    among(&[json!("sample-1-s390x"), json!("a-b-7-s390x")], "--name sample", ACCEPTED);
    among(&[json!("sample"), json!("x")], "--name sample --arch s390x", ACCEPTED);
    among(&[json!("sample"), json!("x-1-s390x")], "--arch s390x", REFUSED);
    among(&[json!("latest")], "--name sample", ACCEPTED);
    among(&[json!("latest")], "--name other", REFUSED);
    index(&mut matrix, "no entries", REFUSED, |i| i["manifests"] = json!([]));
    index_wanting(&mut matrix, "an entry of another kind of digest", ACCEPTED, &["--name", "sample"], |i| {
        i["manifests"].as_array_mut().unwrap().push(json!({"digest": "sha512:0", "size": 7}));
    });
    println!("the readers agree on {} choices", matrix.judge());
}

#[test]
fn they_agree_on_manifests() {
    let mut matrix = two_spans();
    for member in ["schemaVersion", "mediaType", "config", "layers"] {
        let absent = if member == "mediaType" { ACCEPTED } else { REFUSED };
        manifest(&mut matrix, &format!("no {member}"), absent, |m| remove(m, member));
        for value in [json!(null), json!(true), json!([]), json!({}), json!([1]), json!(-1)] {
            manifest(&mut matrix, &format!("{member} is {value}"), REFUSED, |m| m[member] = value);
        }
    }
    for place in ["/config", "/layers/0", "/layers/1"] {
        for member in ["digest", "size"] {
            let at = |m: &mut Value| m.pointer_mut(place).unwrap().as_object_mut().unwrap().remove(member);
            manifest(&mut matrix, &format!("no {member} in {place}"), REFUSED, |m| drop(at(m)));
            let put = |m: &mut Value| m.pointer_mut(place).unwrap()[member] = json!(7.5);
            manifest(&mut matrix, &format!("{member} of {place}"), REFUSED, put);
        }
    }
    for (what, expect, change) in [
        ("another mediaType", ACCEPTED, (|m| m["mediaType"] = json!("x")) as fn(&mut Value)),
        ("no artifactType", ACCEPTED, |m| remove(m, "artifactType")),
        ("artifactType of another type", REFUSED, |m| m["artifactType"] = json!(7)),
        ("no layers but the envelope", ACCEPTED, |m| m["layers"] = json!([m["layers"][0]])),
        ("the layers in another order", ACCEPTED, |m| m["layers"].as_array_mut().unwrap().reverse()),
        ("no envelope", REFUSED, |m| drop(m["layers"].as_array_mut().unwrap().remove(0))),
        ("two envelopes", REFUSED, |m| m["layers"][1] = m["layers"][0].clone()),
        ("an envelope of another type", REFUSED, |m| m["layers"][0]["mediaType"] = json!("x")),
        ("a layer without mediaType", ACCEPTED, |m| remove(&mut m["layers"][1], "mediaType")),
        ("a layer with mediaType null", REFUSED, |m| m["layers"][1]["mediaType"] = Value::Null),
        ("a layer with a mediaType that is none", REFUSED, |m| m["layers"][1]["mediaType"] = json!(7)),
        ("a config without mediaType", ACCEPTED, |m| remove(&mut m["config"], "mediaType")),
        ("a config with a mediaType that is none", REFUSED, |m| m["config"]["mediaType"] = json!(7)),
        ("a config that is not there", ACCEPTED, |m| m["config"]["digest"] = json!(HEX)),
        ("annotations", ACCEPTED, |m| m["annotations"] = json!([7])),
        ("annotations of a layer that are none", REFUSED, |m| m["layers"][0]["annotations"] = json!(7)),
        ("a subject", ACCEPTED, |m| m["subject"] = json!(7)),
        ("data", ACCEPTED, |m| m["layers"][0]["data"] = json!("AAAA")),
        ("an envelope a byte longer", CORRUPT, |m| m["layers"][0]["size"] = json!(7)),
        ("an envelope of more than 8 MiB", REFUSED, |m| m["layers"][0]["size"] = json!((8 << 20) + 1)),
        ("an envelope that is not there", CORRUPT, |m| m["layers"][0]["digest"] = json!(HEX)),
        ("an envelope that is another blob", REFUSED, |m| {
            m["layers"][0]["digest"] = m["layers"][2]["digest"].clone();
            m["layers"][0]["size"] = m["layers"][2]["size"].clone();
        }),
        ("a layer of another kind of digest", ACCEPTED, |m| m["layers"][1]["digest"] = json!("sha512:0")),
        ("a config of another kind of digest", ACCEPTED, |m| m["config"]["digest"] = json!("")),
        ("an envelope of another kind of digest", REFUSED, |m| m["layers"][0]["digest"] = json!("sha512:0")),
        ("an index", REFUSED, |m| *m = json!({"schemaVersion": 2, "manifests": []})),
        ("an array", REFUSED, |m| *m = json!([2, "x", m["config"], m["layers"]])),
    ] {
        manifest(&mut matrix, what, expect, change);
    }
    println!("the readers agree on {} manifests", matrix.judge());
}

#[test]
fn they_agree_on_files_that_are_missing_cut_short_or_longer() {
    let mut matrix = two_spans();
    let files = |layout: &Layout| {
        let spans = layout.index_blobs().into_iter().chain(layout.data_blobs());
        spans.chain([layout.index_path(), layout.manifest_path(), layout.envelope_path()]).collect::<Vec<_>>()
    };
    for number in 0..files(&matrix.image.layout()).len() {
        let json = number == 4;
        let name = if json { "index.json".to_owned() } else { format!("blob {number}") };
        let expect = if json { REFUSED } else { CORRUPT };
        matrix.add(&format!("{name} missing"), CORRUPT, |l| std::fs::remove_file(&files(l)[number]).unwrap());
        matrix.add(&format!("{name} empty"), expect, |l| std::fs::write(&files(l)[number], "").unwrap());
        let resize = |bytes: &dyn Fn(&mut Vec<u8>)| {
            let mut content = std::fs::read(&files(&matrix.image.layout())[number]).unwrap();
            bytes(&mut content);
            content
        };
        let (short, long) = (resize(&|b| b.truncate(b.len() - 1)), resize(&|b| b.push(b'0')));
        matrix.add(&format!("{name} a byte short"), expect, |l| std::fs::write(&files(l)[number], short).unwrap());
        matrix.add(&format!("{name} a byte longer"), expect, |l| std::fs::write(&files(l)[number], long).unwrap());
    }
    matrix.add("oci-layout missing", ACCEPTED, |l| {
        std::fs::remove_file(l.index_path().with_file_name("oci-layout")).unwrap();
    });
    println!("the readers agree on {} damaged folders", matrix.judge());
}
