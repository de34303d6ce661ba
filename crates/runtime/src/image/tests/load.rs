use std::io::Cursor;

use testkit::image::{docker_save, oci_layout, oci_layout_multi_platform, pack};

use super::*;

async fn load(place: &Place, archive: Vec<u8>) -> Result<Vec<Loaded>, ImageError> {
    place.store().load(Cursor::new(archive)).await
}

#[tokio::test]
async fn archives_of_both_kinds_and_all_packings_load() {
    let image = layered();
    let id: Digest = image.id().parse().unwrap();
    for archive in [docker_save(&[("app:1", &image)]), oci_layout(&[("app:1", &image)])] {
        for packing in [Packing::Plain, Packing::Gzip, Packing::Zstd] {
            let mut place = Place::new().await;
            let loaded = load(&place, pack(&archive, packing)).await.unwrap();
            let name = "docker.io/library/app:1".to_owned();
            assert_eq!(loaded, [Loaded { id, references: vec![name.clone()] }]);
            place.reopen().await;
            let found = place.store().status("app:1").unwrap();
            assert_eq!((found.id, found.tags, found.digests), (id, vec![name], vec![]));
            assert_eq!(names(&root(&place).join("layers")).len(), 3);
            assert_eq!(names(&root(&place).join("ingest")), [""; 0]);
            assert_eq!(names(&root(&place).join("trash")), [""; 0]);
            place.store().remove(&id.to_string()).await.unwrap();
            place.assert_empty("after removal");
        }
    }
}

#[tokio::test]
async fn an_archive_may_hold_several_images_and_names() {
    let place = Place::new().await;
    let (a, b) = (layered(), small("b"));
    for archive in [docker_save, oci_layout] {
        let loaded =
            load(&place, archive(&[("a:1", &a), ("example.com/b:2", &b), ("a:latest", &a), ("", &b)])).await.unwrap();
        assert_eq!(loaded.len(), 2);
        assert_eq!(loaded[0].references, ["docker.io/library/a:1", "docker.io/library/a:latest"]);
        assert_eq!(loaded[1].references, ["example.com/b:2"]);
        assert_eq!(place.store().status("a").unwrap().tags.len(), 2);
    }
    assert_eq!(place.store().list().len(), 2);
    place.store().untag("a:1").await.unwrap();
    assert!(place.store().status("a:1").is_none());
    place.store().untag("a:latest").await.unwrap();
    assert_eq!(place.store().list().len(), 1);
    let nameless = load(&place, docker_save(&[("", &small("nameless"))])).await.unwrap();
    assert_eq!(nameless[0].references, [""; 0]);
    assert_eq!(place.store().status(&nameless[0].id.to_string()).unwrap().id, nameless[0].id);
}

#[tokio::test]
async fn of_several_platforms_this_machine_s_is_taken() {
    let place = Place::new().await;
    let (other, mine) = (small("other").architecture("s390x"), small("mine"));
    let loaded = load(&place, oci_layout_multi_platform("app:1", &[&other, &mine])).await.unwrap();
    assert_eq!(loaded[0].id.to_string(), mine.id());
    let loaded = load(&place, oci_layout(&[("flat:1", &other), ("flat:1", &mine)])).await.unwrap();
    assert_eq!(loaded.len(), 1);
    let error = load(&place, oci_layout(&[("foreign:1", &other)])).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
}

#[tokio::test]
async fn layers_that_are_links_are_followed() {
    let place = Place::new().await;
    let tar = Layer::new().file("f", 0o644, "shared").into_tar();
    let image = Image::new().raw_layer(tar.clone(), Packing::Plain);
    let manifest = r#"[{"Config":"c.json","RepoTags":["l:1"],"Layers":["two/layer.tar"]}]"#;
    let archive = Layer::new()
        .symlink("two/layer.tar", "../one/layer.tar")
        .file("one/layer.tar", 0o644, &tar)
        .file("c.json", 0o644, image.config())
        .file("manifest.json", 0o644, manifest);
    assert_eq!(load(&place, archive.into_tar()).await.unwrap()[0].id.to_string(), image.id());
}

#[tokio::test]
async fn bad_archives_are_refused_and_leave_nothing() {
    let place = Place::new().await;
    let image = layered();
    let good = oci_layout(&[("app:1", &image)]);
    let saved = docker_save(&[("app:1", &image)]);
    let swap = |archive: &[u8], from: &[u8], to: &[u8]| {
        assert_eq!(from.len(), to.len());
        let at = archive.windows(from.len()).position(|window| window == from).unwrap();
        [&archive[..at], to, &archive[at + from.len()..]].concat()
    };
    // A layer is changed, its header is not: the name in `blobs/` lies.
    let wrong_blob = swap(&good, b"etc/kept", b"etc/kepT");
    let bad_tag = docker_save(&[("Bad Tag", &image)]);
    let file = |name: &str, content: &str| Layer::new().file(name, 0o644, content).into_tar();
    let escape = docker_save(&[("e:1", &Image::new().layer(Layer::new().file("../e", 0o644, ""), Packing::Plain))]);
    let mut truncated_gzip = pack(&good, Packing::Gzip);
    truncated_gzip.truncate(truncated_gzip.len() - 4);
    let two = docker_save(&[("good:1", &small("good")), ("bad:1", &small("bad").with_wrong_diff_id())]);
    let mut cases = vec![
        ("nothing", Vec::new(), "neither index.json nor manifest.json"),
        ("noise", b"this is no archive".repeat(100), "checksum"),
        ("another archive", file("hello", "world"), "neither index.json nor manifest.json"),
        ("no images", file("manifest.json", "[]"), "no image found"),
        ("no JSON", file("manifest.json", "]"), "invalid manifest.json"),
        ("a missing file", file("manifest.json", r#"[{"Config":"c","Layers":[]}]"#), "c is missing"),
        (
            "a missing blob",
            file("index.json", &format!(r#"{{"manifests":[{{"digest":"{}","size":1}}]}}"#, image.id())),
            "is missing",
        ),
        ("a wrong digest", wrong_blob, "unexpected commit digest"),
        ("a wrong diff id", docker_save(&[("w:1", &small("w").with_wrong_diff_id())]), "unexpected commit digest"),
        ("a bad name", bad_tag, "invalid reference format"),
        ("a path that leaves the archive", file("../../etc/x", ""), "leaves the archive"),
        ("a path that leaves the root", escape, "leaves the root of the layer"),
        ("a gzip without its end", truncated_gzip, "invalid image archive"),
        ("one good and one bad image", two, "unexpected commit digest"),
    ];
    for archive in [&good, &saved] {
        for part in 1..10 {
            cases.push(("a part of an archive", archive[..archive.len() * part / 10].to_vec(), ""));
        }
    }
    for (what, archive, expect) in cases {
        let error = load(&place, archive).await.expect_err(what);
        assert!(error.report().starts_with("failed to load image archive: "), "{what}: {}", error.report());
        assert!(error.report().contains(expect), "{what}: {}", error.report());
        place.assert_empty(what);
    }
    // A failed load takes nothing from what was there.
    load(&place, good.clone()).await.unwrap();
    let before = place.content();
    load(&place, saved[..saved.len() / 2].to_vec()).await.unwrap_err();
    assert_eq!(place.content(), before);
    assert!(place.store().status("app:1").is_some());
}

#[tokio::test]
async fn archives_have_limits() {
    let mut place = Place::new().await;
    place.store = None;
    let mut config = place.config();
    config.limits = Limits { bytes: 10_000, entries: 100 };
    place.store = Some(ImageStore::open(config).await.unwrap());
    let bomb = Image::new().layer(Layer::new().file("zeros", 0o644, vec![0; 1 << 20]), Packing::Gzip);
    let error = load(&place, oci_layout(&[("bomb:1", &bomb)])).await.unwrap_err();
    assert!(error.report().contains("the layer has more than 10000 bytes"), "{}", error.report());
    let error = load(&place, docker_save(&[("bomb:1", &bomb)])).await.unwrap_err();
    assert!(error.report().contains("exceeds the limit of 10000"), "{}", error.report());
    place.assert_empty("after bombs");
}
