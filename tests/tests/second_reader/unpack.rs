//! It reads what `imgstream` packs.

use std::path::Path;

use e2e::document::{example, run};
use e2e::lab::cmp;
use e2e::sample::{noise, sparse};
use e2e::second_reader::{imgread, script};
use e2e::{Image, Lab, MIB, Run, exit};

/// Both depths: verified whole, and unpacked to the very bytes.
#[track_caller]
fn is_read(lab: &Lab, raw: &Path, image: &Image) {
    imgread().arg("verify").arg(&image.dir).arg("--trust").arg(&image.key.public).done().ok();
    let out = lab.fresh("unpacked");
    imgread().arg("unpack").args([&image.dir, &out]).arg("--trust").arg(&image.key.public).done().ok();
    cmp(raw, &out, 1 << 40).ok();
    assert_eq!(std::fs::metadata(raw).unwrap().len(), std::fs::metadata(out).unwrap().len());
}

#[test]
fn it_unpacks_a_single_sector() {
    let lab = Lab::new();
    for sector in [512, 4096] {
        let raw = lab.file("raw", &noise(1, sector));
        is_read(&lab, &raw, &lab.pack(&raw, &format!("--sector-size {sector}")));
    }
}

/// Text that compresses, noise that does not, zeros: of everything some.
fn mixture(len: usize) -> Vec<u8> {
    let mut raw = noise(5, len);
    for (number, piece) in raw.chunks_mut(100_000).enumerate() {
        match number % 3 {
            0 => piece.iter_mut().for_each(|byte| *byte = b'a' + (*byte & 7)),
            1 => piece.fill(0),
            _ => {}
        }
    }
    raw
}

#[test]
fn it_unpacks_many_small_spans_at_many_levels() {
    let lab = Lab::new();
    let raw = lab.file("raw", &mixture(9 * MIB as usize + 512));
    for options in ["", "--chunk-size 64KiB --span-size 256KiB", "--chunk-size 8MiB --level 19"] {
        is_read(&lab, &raw, &lab.pack(&raw, options));
    }
}

#[test]
fn it_unpacks_sectors_of_4096() {
    let lab = Lab::new();
    let raw = lab.file("raw", &mixture(3 * MIB as usize + 4096));
    is_read(&lab, &raw, &lab.pack(&raw, "--sector-size 4096 --chunk-size 1MiB --span-size 2MiB"));
}

#[test]
fn it_unpacks_zeros_holes_and_equal_spans() {
    let lab = Lab::new();
    let raw = lab.path("raw");
    let file = sparse(&raw, 5 * MIB + 512);
    for at in [MIB, 3 * MIB] {
        std::os::unix::fs::FileExt::write_all_at(&file, &noise(2, 100_000), at).unwrap();
    }
    drop(file);
    let image = lab.pack(&raw, "--holes --chunk-size 64KiB --span-size 1MiB");
    let mut blobs = image.layout().data_blobs();
    blobs.sort();
    blobs.dedup();
    assert_eq!(blobs.len(), 3, "equal spans are to share a blob");
    is_read(&lab, &raw, &image);
    is_read(&lab, &raw, &lab.pack(&raw, "--chunk-size 64KiB"));
}

#[test]
fn it_demands_both_of_two_signatures() {
    let lab = Lab::new();
    let raw = lab.file("raw", &noise(3, 200_192));
    let (image, second) = (lab.pack(&raw, ""), lab.key());
    let verify = || {
        let keys = [&image.key.public, &second.public];
        imgread().arg("verify").arg(&image.dir).arg("--trust").args(keys).words("--threshold 2").done()
    };
    verify().exits(exit::IMAGE);
    Run::imgstream().arg("sign").arg(&image.dir).arg("--key").arg(&second.secret).done().ok();
    verify().ok();
    is_read(&lab, &raw, &image);
}

#[test]
fn it_leaves_nothing_of_a_corrupt_image() {
    let lab = Lab::new();
    let image = lab.pack_bytes(&noise(4, 3 * 65536), "--chunk-size 64KiB");
    e2e::layout::flip(&image.layout().data_blobs()[0], 150_000);
    let out = lab.fresh("unpacked");
    let unpack = imgread().arg("unpack").args([&image.dir, &out]).arg("--trust").arg(&image.key.public).done();
    unpack.exits(exit::SOURCE).says("SHA-256");
    assert!(!out.exists());
}

#[test]
fn it_accepts_the_worked_example() {
    let reader = script();
    let read = format!(
        "\npython3 {0} verify image --trust example.key.pub\npython3 {0} unpack image second.img --trust example.key.pub\n\
         cmp raw.img second.img && echo the same to the second reader",
        reader.display()
    );
    let said = run(&(example("docs/format.md", "imgstream pack") + &read));
    assert!(said.contains("sha256:bc79c22192d3eb78e246b78ef6bb5e8487ee3f74ab1969b00ca2731cf625eccd"), "{said}");
    assert!(said.contains("the same to the second reader"), "{said}");
}
