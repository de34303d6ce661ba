use std::sync::Arc;

use testkit::registry::{Auth, Fault, Options, Registry};

use super::*;

fn basic(password: &str) -> Credentials {
    Credentials::Basic { username: "u".to_owned(), password: password.to_owned() }
}

async fn pull(place: &Place, reference: &str) -> Result<Digest, ImageError> {
    place.store().pull(reference, &Credentials::Anonymous).await
}

fn count(registry: &Registry, what: &str) -> usize {
    registry.requests().iter().filter(|request| request.contains(what)).count()
}

#[tokio::test]
async fn a_pulled_image_is_known_by_all_its_names() {
    let mut place = Place::new().await;
    let registry = Registry::start(&place.env).await.unwrap();
    let image = layered();
    let reference = registry.put("app/web:1", &image);
    let id = pull(&place, &reference).await.unwrap();
    assert_eq!(id.to_string(), image.id());

    let manifest = testkit::image::digest(&image.manifest());
    let by_digest = format!("{}@{manifest}", reference.trim_end_matches(":1"));
    for again in [false, true] {
        if again {
            place.reopen().await;
        }
        for name in [&reference, &by_digest, &image.id(), &id.hex(), &id.hex()[..12].to_owned()] {
            let found = place.store().status(name).unwrap_or_else(|| panic!("{name}"));
            assert_eq!(
                (found.id, &found.tags[..], &found.digests[..]),
                (id, &[reference.clone()][..], &[by_digest.clone()][..])
            );
            assert_eq!(found.config.cmd(), ["sh"]);
            assert_eq!(found.config.image_user(), ImageUser::Uid(1000));
            let transferred = image.blobs().values().map(Vec::len).sum::<usize>() + image.manifest().len();
            assert_eq!(found.size, transferred as u64);
        }
        assert_eq!(place.store().list().len(), 1);
        assert!(place.store().status("app/web:2").is_none());
    }
    // Layers are kept unpacked only.
    assert_eq!(names(&root(&place).join("blobs/sha256")).len(), 2);
    assert_eq!(names(&root(&place).join("layers")).len(), 3);

    let blobs = count(&registry, "/blobs/");
    pull(&place, &reference).await.unwrap();
    assert_eq!(count(&registry, "/blobs/"), blobs, "nothing is fetched twice");

    place.store().remove(&reference).await.unwrap();
    place.assert_empty("after removal");
    place.store().remove(&reference).await.unwrap();
}

#[tokio::test]
async fn a_tag_moves_and_a_digest_stays() {
    let place = Place::new().await;
    let registry = Registry::start(&place.env).await.unwrap();
    let (old, new) = (small("old"), small("new"));
    let reference = registry.put("app:1", &old);
    let old_id = pull(&place, &reference).await.unwrap();
    registry.put("app:1", &new);
    let new_id = pull(&place, &reference).await.unwrap();
    assert_ne!(old_id, new_id);
    assert_eq!(place.store().status(&reference).unwrap().id, new_id);
    let left = place.store().status(&old_id.to_string()).unwrap();
    assert!(left.tags.is_empty());
    assert_eq!(place.store().status(&left.digests[0]).unwrap().id, old_id);

    let by_digest = left.digests[0].clone();
    place.store().remove(&by_digest).await.unwrap();
    assert_eq!(pull(&place, &by_digest).await.unwrap(), old_id);
    let again = place.store().status(&by_digest).unwrap();
    assert_eq!((again.tags, again.digests), (vec![], vec![by_digest]));
}

#[tokio::test]
async fn an_index_gives_the_image_for_this_machine() {
    let place = Place::new().await;
    let registry = Registry::start(&place.env).await.unwrap();
    let (other, mine) = (small("other").architecture("s390x"), small("mine"));
    let reference = registry.put_index("app:1", &[&other, &mine]);
    assert_eq!(pull(&place, &reference).await.unwrap().to_string(), mine.id());
    let digests = place.store().status(&reference).unwrap().digests;
    let index = testkit::image::digest(&testkit::image::index(&[&other, &mine]));
    assert!(digests[0].ends_with(&index), "the name's digest is the index's");

    let foreign = registry.put_index("foreign:1", &[&other]);
    let error = pull(&place, &foreign).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert!(error.report().contains("no match for platform in manifest"), "{}", error.report());
}

#[tokio::test]
async fn registries_are_told_who_asks() {
    let place = Place::new().await;
    let image = small("secret");
    let login = || Some(("u".to_owned(), "p".to_owned()));
    let asked = Auth::Basic { username: "u".to_owned(), password: "p".to_owned() };
    for (auth, credentials, expect) in [
        (asked.clone(), basic("p"), Ok(())),
        (asked.clone(), basic("wrong"), Err(Code::Unauthenticated)),
        (asked, Credentials::Anonymous, Err(Code::Unauthenticated)),
        (Auth::Token { login: None }, Credentials::Anonymous, Ok(())),
        (Auth::Token { login: login() }, basic("p"), Ok(())),
        (Auth::Token { login: login() }, basic("wrong"), Err(Code::Unauthenticated)),
        (Auth::Token { login: login() }, Credentials::Anonymous, Err(Code::Unauthenticated)),
        (Auth::Token { login: login() }, Credentials::Bearer("nonsense".to_owned()), Err(Code::Unauthenticated)),
    ] {
        let what = format!("{auth:?} {credentials:?}");
        let registry = Registry::start_with(&place.env, Options { auth, ..Options::default() }).await.unwrap();
        let reference = registry.put("app:1", &image);
        let result = place.store().pull(&reference, &credentials).await;
        if let Err(error) = &result {
            let report = error.report();
            assert!(
                report.starts_with(&format!("failed to pull and unpack image {reference:?}: failed to resolve")),
                "{report}"
            );
            assert!(report.contains("pull access denied"), "{report}");
        }
        assert_eq!(result.map(|_| ()).map_err(|error| error.code()), expect, "{what}");
        place.store().remove(&image.id()).await.unwrap();
        place.assert_empty(&what);
    }
}

#[tokio::test]
async fn failures_are_told_in_containerd_s_words() {
    let place = Place::new().await;
    let registry = Registry::start(&place.env).await.unwrap();
    let reference = format!("{}/absent:1", registry.address());
    let error = pull(&place, &reference).await.unwrap_err();
    assert_eq!(error.code(), Code::NotFound);
    assert_eq!(
        error.report(),
        format!(
            "failed to pull and unpack image {reference:?}: failed to resolve reference {reference:?}: {reference}: not found"
        )
    );

    let address = registry.address();
    drop(registry);
    // The task that owned the socket ends on its own time.
    let deadline = place.env.monotonic() + Duration::from_secs(60);
    while tokio::net::TcpStream::connect(address).await.is_ok() {
        assert!(place.env.monotonic() < deadline);
        tokio::task::yield_now().await;
    }
    let error = pull(&place, &reference).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable);
    assert!(error.report().contains("failed to do request"), "{}", error.report());
    assert!(error.report().to_lowercase().contains("connection refused"), "{}", error.report());

    let error = pull(&place, "Not/A Reference").await.unwrap_err();
    assert_eq!(error.code(), Code::InvalidArgument);
    place.assert_empty("after failures");
}

#[tokio::test]
async fn bad_content_is_refused_and_changes_nothing() {
    let place = Place::new().await;
    let image = layered();
    let layers = image.layer_digests();
    let manifest = testkit::image::digest(&image.manifest());
    for (what, which, fault, expect) in [
        ("a corrupt layer", &layers[1], Fault::Corrupt, "unexpected commit digest"),
        ("a truncated layer", &layers[2], Fault::Truncate, "failed to do request"),
        ("a layer that isn't there", &layers[0], Fault::Status(404), "blob not found"),
        ("a layer that may not be had", &layers[0], Fault::Status(403), "pull access denied"),
        ("a registry out of order", &layers[0], Fault::Status(503), "503"),
        ("a corrupt configuration", &image.id(), Fault::Corrupt, "unexpected commit digest"),
        ("a corrupt manifest", &"1".to_owned(), Fault::Corrupt, "unexpected commit digest"),
        ("a truncated manifest", &"1".to_owned(), Fault::Truncate, "failed to do request"),
    ] {
        let registry = Registry::start(&place.env).await.unwrap();
        let reference = registry.put("app:1", &image);
        registry.fail(which, fault);
        let error = pull(&place, &reference).await.expect_err(what);
        assert!(error.report().contains(expect), "{what}: {}", error.report());
        assert!(place.store().list().is_empty(), "{what}");
        place.becomes_empty(what).await;
    }

    let registry = Registry::start(&place.env).await.unwrap();
    let json = |text: &str| text.as_bytes().to_vec();
    let escaping = Image::new().layer(Layer::new().file("../../out", 0o644, "x"), Packing::Gzip);
    let noise = Image::new().raw_layer(json("no archive at all, but quite a lot of it").repeat(30), Packing::Gzip);
    let short =
        Image::new().raw_layer(Layer::new().file("f", 0o644, vec![7; 5000]).into_tar()[..2000].to_vec(), Packing::Zstd);
    for (what, reference, expect) in [
        ("a wrong diff id", registry.put("a:1", &small("x").with_wrong_diff_id()), "unexpected commit digest"),
        ("a path that leaves the root", registry.put("b:1", &escaping), "leaves the root of the layer"),
        ("noise as a layer", registry.put("c:1", &noise), "invalid layer archive"),
        ("half a layer", registry.put("d:1", &short), "truncated"),
    ] {
        let error = pull(&place, &reference).await.expect_err(what);
        assert!(error.report().contains(expect), "{what}: {}", error.report());
        assert_eq!(error.code(), Code::InvalidArgument, "{what}");
        place.assert_empty(what);
    }
    for (what, bytes, expect) in [
        ("noise", json("noise"), "invalid manifest"),
        ("an old schema", json(r#"{"schemaVersion":1}"#), "unsupported schema version 1"),
        ("neither image nor index", json(r#"{"schemaVersion":2}"#), "neither an image nor an index"),
        (
            "no layers for the diff ids",
            String::from_utf8(image.manifest())
                .unwrap()
                .split(",\"layers\"")
                .next()
                .map(|start| format!("{start},\"layers\":[]}}"))
                .unwrap()
                .into_bytes(),
            "diff ids",
        ),
        (
            "a digest that climbs",
            json(r#"{"schemaVersion":2,"layers":[],"config":{"digest":"sha256:../../../x","size":1}}"#),
            "invalid or unsupported digest",
        ),
    ] {
        registry.put("blobs-of:1", &image);
        registry.put_manifest("bad:1", bytes);
        let error = pull(&place, &format!("{}/bad:1", registry.address())).await.expect_err(what);
        assert!(error.report().contains(expect), "{what}: {}", error.report());
        place.assert_empty(what);
    }
    let by_wrong_digest = format!("{}/app@{}", registry.address(), testkit::image::digest(b"other"));
    assert_eq!(pull(&place, &by_wrong_digest).await.unwrap_err().code(), Code::NotFound);
    registry.put("app:1", &image);
    registry.fail(&manifest, Fault::Corrupt);
    let by_digest = format!("{}/app@{manifest}", registry.address());
    assert!(pull(&place, &by_digest).await.unwrap_err().report().to_lowercase().contains("digest"));
    place.assert_empty("at the end");
}

#[tokio::test]
async fn passing_failures_are_tried_again() {
    let place = Place::new().await;
    let registry = Registry::start(&place.env).await.unwrap();
    let image = small("x");
    let reference = registry.put("app:1", &image);
    registry.fail_times("1", Fault::Status(503), 2);
    registry.fail_times(&image.layer_digests()[0], Fault::Truncate, 2);
    pull(&place, &reference).await.unwrap();
    assert_eq!(count(&registry, &image.layer_digests()[0]), 3);

    registry.fail("1", Fault::Status(429));
    let before = count(&registry, "manifests/1");
    pull(&place, &reference).await.unwrap_err();
    assert_eq!(count(&registry, "manifests/1") - before, 4, "once and three times again");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wanted_many_times_is_fetched_once() {
    let place = Place::new().await;
    let registry = Registry::start(&place.env).await.unwrap();
    let shared = Layer::new().file("big", 0o644, vec![3; 300_000]);
    let image = |name: &str| {
        let own = Layer::new().file(name, 0o644, name);
        Image::new().layer(shared.clone(), Packing::Gzip).layer(own, Packing::Gzip)
    };
    let images = [image("a"), image("b")];
    let references = [registry.put("a:1", &images[0]), registry.put("b:1", &images[1])];
    let mut tasks = Vec::new();
    for n in 0..8 {
        let (store, reference) = (place.store().clone(), references[n % 2].clone());
        tasks.push(place.env.spawn(async move { store.pull(&reference, &Credentials::Anonymous).await }));
    }
    for (n, task) in tasks.into_iter().enumerate() {
        assert_eq!(task.await.unwrap().unwrap().to_string(), images[n % 2].id());
    }
    for image in &images {
        for digest in image.layer_digests() {
            assert_eq!(count(&registry, &digest), 1, "{digest}");
        }
    }
    assert_eq!(names(&root(&place).join("layers")).len(), 3);
    let info = place.store().fs_info().await.unwrap();
    assert!(info.images.bytes > 300_000 && info.images.bytes < 400_000, "{info:?}");
    assert_eq!(info.containers, Usage::default());

    place.store().remove("a").await.unwrap();
    assert_eq!(place.store().list().len(), 2, "an unknown name removes nothing");
    place.store().remove(&references[0]).await.unwrap();
    assert_eq!(names(&root(&place).join("layers")).len(), 2, "what the other image stands on stays");
}

#[tokio::test]
async fn a_pull_that_is_given_up_leaves_nothing() {
    let mut place = Place::new().await;
    let registry = Registry::start(&place.env).await.unwrap();
    // Noise can't be compressed: many chunks.
    let noise: Vec<u8> = (0..200_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
    let image = Image::new().layer(Layer::new().file("noise", 0o644, noise), Packing::Plain);
    let reference = registry.put("app:1", &image);
    let size = image.blobs()[&image.layer_digests()[0]].len() as u64;
    registry.fail(&image.layer_digests()[0], Fault::Stall);
    let halfway = Arc::new(tokio::sync::Notify::new());
    let notify = halfway.clone();
    let on_progress: OnProgress = Arc::new(move |progress| {
        assert_eq!(progress.total, size);
        if progress.done >= progress.total / 2 {
            notify.notify_one();
        }
    });
    tokio::select! {
        result = place.store().pull_with_progress(&reference, &Credentials::Anonymous, Some(on_progress)) => panic!("{result:?}"),
        () = halfway.notified() => {}
    }
    place.reopen().await;
    place.assert_empty("after giving up");
}

#[test]
fn all_but_loopback_registries_are_spoken_to_by_tls() {
    // An address that isn't loopback, in a network namespace of this test's own.
    let ns = linux::netns::NetNs::unpinned().unwrap();
    ns.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (netlink, driver) = linux::netlink::Netlink::open().unwrap();
            let mut place = Place::new().await;
            let driver = place.env.spawn(driver);
            let loopback = netlink.link("lo").await.unwrap();
            netlink.add_address(loopback.index, "10.9.8.7/32".parse().unwrap()).await.unwrap();
            netlink.set_up(loopback.index).await.unwrap();
            let (ca, tls) = testkit::registry::authority(&["10.9.8.7"]);
            let address = Some("10.9.8.7:0".parse().unwrap());
            let options = Options { address, tls: Some(tls), ..Options::default() };
            let registry = Registry::start_with(&place.env, options).await.unwrap();
            let image = small("by TLS");
            let reference = registry.put("app:1", &image);

            let error = pull(&place, &reference).await.unwrap_err();
            assert_eq!(error.code(), Code::Unavailable);
            assert!(error.report().contains("certificate"), "{}", error.report());

            place.extra_ca = vec![ca];
            place.reopen().await;
            assert_eq!(pull(&place, &reference).await.unwrap().to_string(), image.id());

            let plain = Registry::start_with(&place.env, Options { address, ..Options::default() }).await.unwrap();
            let reference = plain.put("app:1", &image);
            let error = pull(&place, &reference).await.unwrap_err();
            assert!(plain.requests().is_empty(), "nothing was said without TLS");
            assert_eq!(error.code(), Code::Unavailable);
            driver.abort();
        });
    })
    .unwrap();
}

#[tokio::test]
async fn a_machine_without_certificates_says_so() {
    // In a process of its own, as the environment belongs to all tests.
    if std::env::var_os("SSL_CERT_FILE").is_some_and(|file| file == "/nonexistent") {
        let place = Place::new().await;
        let error = pull(&place, "127.0.0.1:5000/app:1").await.unwrap_err();
        assert!(error.report().contains("No CA certificates"), "{}", error.report());
        return;
    }
    let child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "image::tests::pull::a_machine_without_certificates_says_so"])
        .env("SSL_CERT_FILE", "/nonexistent")
        .env("SSL_CERT_DIR", "/nonexistent")
        .output()
        .unwrap();
    assert!(child.status.success(), "{}", String::from_utf8_lossy(&child.stdout));
}
