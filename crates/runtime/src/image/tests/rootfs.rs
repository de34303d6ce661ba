use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use testkit::image::oci_layout;

use super::*;

async fn load(place: &Place, name: &str, image: &Image) -> String {
    place.store().load(std::io::Cursor::new(oci_layout(&[(name, image)]))).await.unwrap()[0].id.to_string()
}

async fn prepare(place: &Place, id: &str, image: &str, access: Access) -> PathBuf {
    place.store().prepare(id, image, access).await.unwrap_or_else(|error| panic!("{}", error.report()))
}

#[tokio::test]
async fn layers_show_through_the_mount() {
    let place = Place::new().await;
    let id = load(&place, "app:1", &layered()).await;
    let root = prepare(&place, "c1", &id, Access::ReadWrite).await;
    assert_eq!(names(&root.join("etc")), ["kept"]);
    assert_eq!(fs::read_to_string(root.join("etc/kept")).unwrap(), "top");
    assert_eq!(names(&root.join("opq")), ["new"]);
    assert_eq!(
        fs::metadata(root.join("tmp")).unwrap().mode() & 0o7777,
        0o1777,
        "a folder the top layer only puts a file into"
    );
    assert_eq!(fs::metadata(root.join("bin/suid")).unwrap().mode() & 0o7777, 0o4755);
    assert_eq!(fs::metadata(&root).unwrap().mode() & 0o7777, 0o755);

    let outside = fs::metadata(place.folder.path().join("images")).unwrap();
    assert_eq!(outside.mode() & 0o777, 0o700, "nobody else gets at suid programs");
    place.store().remove_rootfs("c1").await.unwrap();
    assert!(!root.exists());
}

#[tokio::test]
async fn the_root_s_own_attributes_show() {
    let place = Place::new().await;
    let layer = Layer::new().owner(7, 8).dir(".", 0o1711).dir("etc", 0o755);
    let image = Image::new().layer(layer, Packing::Plain).layer(Layer::new().file("f", 0o644, ""), Packing::Plain);
    let id = load(&place, "app:1", &image).await;
    let root = prepare(&place, "c1", &id, Access::ReadWrite).await;
    let meta = fs::metadata(&root).unwrap();
    assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o1711, 7, 8));
}

#[tokio::test]
async fn containers_write_each_for_itself() {
    let place = Place::new().await;
    let id = load(&place, "app:1", &layered()).await;
    let one = prepare(&place, "c1", &id, Access::ReadWrite).await;
    let two = prepare(&place, "c2", "app:1", Access::ReadWrite).await;
    fs::write(one.join("etc/kept"), "one").unwrap();
    fs::write(one.join("tmp/big"), vec![1; 100_000]).unwrap();
    fs::remove_file(two.join("etc/kept")).unwrap();
    assert_eq!(fs::read_to_string(one.join("etc/kept")).unwrap(), "one");
    assert!(!two.join("etc/kept").exists());
    let usage = place.store().rootfs_usage("c1").await.unwrap().unwrap();
    assert!((100_000..200_000).contains(&usage.bytes) && usage.inodes == 4, "{usage:?}");
    assert_eq!(place.store().rootfs_usage("c9").await.unwrap(), None);
    assert!(place.store().fs_info().await.unwrap().containers.bytes >= usage.bytes);

    assert_eq!(prepare(&place, "c1", &id, Access::ReadWrite).await, one, "twice is once");
    assert_eq!(fs::read_to_string(one.join("etc/kept")).unwrap(), "one");
    place.store().remove_rootfs("c1").await.unwrap();
    place.store().remove_rootfs("c1").await.unwrap();
    let three = prepare(&place, "c1", &id, Access::ReadWrite).await;
    assert_eq!(
        fs::read_to_string(three.join("etc/kept")).unwrap(),
        "top",
        "another container of the same name starts afresh"
    );
}

#[tokio::test]
async fn read_only_mounts_refuse_writes() {
    let place = Place::new().await;
    let many = load(&place, "many:1", &layered()).await;
    let one = load(&place, "one:1", &small("x")).await;
    let none = load(&place, "none:1", &Image::new()).await;
    for (n, id) in [&many, &one, &none].into_iter().enumerate() {
        let root = prepare(&place, &format!("v{n}"), id, Access::ReadOnly).await;
        let error = fs::write(root.join("new"), "").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(30), "{error}");
    }
    let root = prepare(&place, "c", &none, Access::ReadWrite).await;
    fs::write(root.join("new"), "").unwrap();
}

#[tokio::test]
async fn what_a_container_stands_on_outlives_the_image() {
    let mut place = Place::new().await;
    let id = load(&place, "app:1", &layered()).await;
    let root = prepare(&place, "c1", &id, Access::ReadWrite).await;
    place.store().remove(&id).await.unwrap();
    assert!(place.store().list().is_empty());
    for _ in 0..2 {
        place.store().collect_garbage().await.unwrap();
        assert_eq!(fs::read_to_string(root.join("etc/kept")).unwrap(), "top");
        place.reopen().await;
    }
    assert!(matches!(place.store().prepare("c2", &id, Access::ReadWrite).await, Err(ImageError::NoSuchImage(_))));
    place.store().remove_rootfs("c1").await.unwrap();
    place.assert_empty("after the last container");
}

#[tokio::test]
async fn mounts_outlive_the_process_and_are_found_again() {
    let mut place = Place::new().await;
    let id = load(&place, "app:1", &layered()).await;
    let root = prepare(&place, "c1", &id, Access::ReadWrite).await;
    fs::write(root.join("state"), "kept").unwrap();
    place.reopen().await;
    let info = RootfsInfo { id: "c1".to_owned(), image: id.parse().unwrap(), path: root.clone(), mounted: true };
    assert_eq!(place.store().rootfs(), std::slice::from_ref(&info));

    // What a reboot does.
    place.store().unmount_all().await.unwrap();
    place.reopen().await;
    assert_eq!(place.store().rootfs(), [RootfsInfo { mounted: false, ..info }]);
    assert_eq!(prepare(&place, "c1", &id, Access::ReadWrite).await, root);
    assert_eq!(fs::read_to_string(root.join("state")).unwrap(), "kept");
}

#[tokio::test]
async fn trees_of_any_depth_are_removed() {
    let place = Place::new().await;
    let id = load(&place, "app:1", &layered()).await;
    let root = prepare(&place, "c1", &id, Access::ReadWrite).await;
    // Deeper than a path can say, and than recursion could follow.
    let mut at = rustix::fs::open(&root, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..5000 {
        rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
        at = rustix::fs::openat(&at, "d", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    }
    drop(at);
    fs::set_permissions(root.join("d"), fs::Permissions::from_mode(0o000)).unwrap();
    place.store().rootfs_usage("c1").await.unwrap();
    place.store().remove_rootfs("c1").await.unwrap();
    assert_eq!(names(&super::root(&place).join("trash")), [""; 0]);
    assert_eq!(names(&super::root(&place).join("rootfs")), [""; 0]);
}

#[tokio::test]
async fn ids_are_names_of_folders() {
    let place = Place::new().await;
    let id = load(&place, "app:1", &layered()).await;
    for bad in ["", ".", "..", "../x", "a/b", "a b", ".hidden", &"x".repeat(300)] {
        let prepared = place.store().prepare(bad, &id, Access::ReadWrite).await;
        assert!(matches!(prepared, Err(ImageError::InvalidId(_))), "{bad}");
        assert!(place.store().remove_rootfs(bad).await.is_err(), "{bad}");
    }
}
