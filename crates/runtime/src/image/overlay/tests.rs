use super::*;

/// Mounts 120 layers in one of the two ways and checks what shows.
fn check(mount: impl Fn(&Overlay, &Path) -> io::Result<()>) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let lowers: Vec<PathBuf> = (0..120).map(|n| path(&format!("layer,with:odd name {n}"))).collect();
    for (n, lower) in lowers.iter().enumerate() {
        std::fs::create_dir(lower).unwrap();
        std::fs::write(lower.join("top"), n.to_string()).unwrap();
        std::fs::write(lower.join(n.to_string()), "").unwrap();
    }
    for name in ["upper", "work", "merged"] {
        std::fs::create_dir(path(name)).unwrap();
    }
    let merged = path("merged");
    let (upper, work) = (path("upper"), path("work"));

    mount(&Overlay { lowers: &lowers, writable: Some((&upper, &work)) }, &merged).unwrap();
    assert!(is_mounted(&merged));
    assert_eq!(std::fs::read_to_string(merged.join("top")).unwrap(), "0", "the nearest layer wins");
    assert!(merged.join("119").exists());
    std::fs::write(merged.join("new"), "").unwrap();
    assert!(upper.join("new").exists());
    unmount_all(&merged).unwrap();
    assert!(!is_mounted(&merged));

    mount(&Overlay { lowers: &lowers, writable: None }, &merged).unwrap();
    assert!(std::fs::write(merged.join("new"), "").is_err());
    unmount_all(&merged).unwrap();
}

#[test]
fn many_layers_mount_one_by_one() {
    check(|overlay, target| {
        overlay.configure().map_err(io::Error::from)?;
        overlay.mount(target)
    });
}

#[test]
fn many_layers_mount_by_options() {
    check(|overlay, target| overlay.mount_by_options(target));
}

#[test]
fn unmounting_nothing_is_fine() {
    let folder = tempfile::tempdir().unwrap();
    unmount_all(folder.path()).unwrap();
    unmount_all(&folder.path().join("absent")).unwrap();
}
