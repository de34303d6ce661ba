//! A process that dies at any point leaves a store that the next one opens and uses.

use env::FailAction;
use testkit::image::oci_layout;

use super::*;

const POINTS: [&str; 6] = [
    "image.blob.rename",
    "image.layer.sync",
    "image.layer.rename",
    "image.catalog.rename",
    "image.rootfs.mount",
    "image.rootfs.remove",
];

/// Loads, mounts, writes, unmounts.
async fn life(store: &ImageStore) -> Result<(), ImageError> {
    let archive = std::io::Cursor::new(oci_layout(&[("app:1", &layered())]));
    let loaded = store.load(archive).await?;
    let root = store.prepare("c1", &loaded[0].id.to_string(), Access::ReadWrite).await?;
    std::fs::write(root.join("written"), "").unwrap();
    store.remove_rootfs("c1").await
}

/// Nothing is half there, and everything can still be done.
async fn check(place: &mut Place, what: &str) {
    place.reopen().await;
    for folder in ["ingest", "trash"] {
        assert_eq!(names(&root(place).join(folder)), [""; 0], "{what}");
    }
    let images = place.store().list();
    for info in place.store().rootfs() {
        place.store().remove_rootfs(&info.id).await.unwrap();
    }
    if images.is_empty() {
        place.assert_empty(what);
    }
    life(place.store()).await.unwrap_or_else(|error| panic!("{what}: {}", error.report()));
    place.store().remove("app:1").await.unwrap();
    place.assert_empty(what);
}

#[tokio::test]
async fn failing_anywhere_leaves_nothing_half() {
    for point in POINTS {
        let mut place = Place::new().await;
        place.env.arm(point, Some(FailAction::Error));
        let failed = life(place.store()).await;
        assert!(matches!(&failed, Err(error) if error.report().contains(point)), "{point}: {failed:?}");
        place.env.arm(point, None);
        check(&mut place, point).await;
    }
}

#[tokio::test]
async fn dying_anywhere_leaves_nothing_half() {
    for point in POINTS {
        let mut place = Place::new().await;
        place.store = None;
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "image::tests::crash::the_process_that_dies"])
            .env("OXIKUBE_FAILPOINTS", format!("{point}=kill"))
            .env("OXIKUBE_TEST_STORE", root(&place))
            .output()
            .unwrap();
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(child.status.signal(), Some(9), "{point}: {}", String::from_utf8_lossy(&child.stdout));
        check(&mut place, point).await;
    }
}

/// The other half of [`dying_anywhere_leaves_nothing_half`], which runs it in a process of its own; else there is nothing to do.
#[tokio::test]
async fn the_process_that_dies() {
    if let Some(folder) = std::env::var_os("OXIKUBE_TEST_STORE") {
        let store = ImageStore::open(Config::at(Env::system(), folder.into())).await.unwrap();
        life(&store).await.unwrap();
    }
}
