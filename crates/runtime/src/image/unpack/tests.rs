use std::os::unix::fs::{FileTypeExt, MetadataExt};

use testkit::image::Layer as Archive;

use super::*;

/// A folder to unpack into, with one below it that nothing may touch.
struct Place {
    folder: tempfile::TempDir,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        for name in ["root", "trash", "parent"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
        }
        std::fs::write(folder.path().join("outside"), "untouched").unwrap();
        Place { folder }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn unpack_limited(&self, archive: Archive, limits: Limits) -> Result<Usage, UnpackError> {
        let parents = [self.path("parent")];
        unpack(&archive.into_tar()[..], &self.path("root"), &parents, &self.path("trash"), limits)
    }

    fn unpack(&self, archive: Archive) -> Result<Usage, UnpackError> {
        self.unpack_limited(archive, Limits::default())
    }

    fn meta(&self, path: &str) -> std::fs::Metadata {
        std::fs::symlink_metadata(self.path("root").join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.path("root").join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    fn xattr(&self, path: &str, key: &str) -> Option<Vec<u8>> {
        let mut value = vec![0; 256];
        let length = rustix::fs::lgetxattr(self.path("root").join(path), key, &mut value[..]).ok()?;
        value.truncate(length);
        Some(value)
    }

    fn is_whiteout(&self, path: &str) -> bool {
        let meta = self.meta(path);
        meta.file_type().is_char_device() && meta.rdev() == 0
    }

    fn is_opaque(&self, path: &str) -> bool {
        self.xattr(path, OPAQUE).as_deref() == Some(b"y")
    }
}

#[test]
fn everything_a_layer_may_hold_comes_out_as_it_went_in() {
    let place = Place::new();
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let archive = Archive::new()
        .dir("bin", 0o755)
        .dir("tmp", 0o1777)
        .file("bin/suid", 0o4755, "#!")
        .file("bin/sgid", 0o2755, "#!")
        .hard_link("bin/hard", "bin/suid")
        .char_device("null", 0o666, 1, 3)
        .block_device("disk", 0o660, 8, 1)
        .fifo("pipe", 0o640)
        .owner(1000, 1001)
        .dir("home/u", 0o700)
        .symlink("link", "/bin/suid")
        .xattr("security.capability", capability)
        .xattr("user.k", "v")
        .file("bin/capable", 0o755, "cap")
        .file(&format!("bin/{}", "x".repeat(180)), 0o644, "long");
    let usage = place.unpack(archive).unwrap();
    assert_eq!(usage, Usage { bytes: 4 * 4096, inodes: 13 });

    let mode = |path: &str| place.meta(path).mode() & 0o7777;
    let owner = |path: &str| (place.meta(path).uid(), place.meta(path).gid());
    assert_eq!([mode("bin/suid"), mode("bin/sgid"), mode("tmp"), mode("home/u")], [0o4755, 0o2755, 0o1777, 0o700]);
    assert_eq!((mode("home"), owner("home")), (0o755, (0, 0)), "a folder that isn't mentioned");
    assert_eq!((owner("home/u"), owner("link"), owner("bin/suid")), ((1000, 1001), (1000, 1001), (0, 0)));
    assert_eq!(place.meta("bin/hard").ino(), place.meta("bin/suid").ino());
    assert_eq!(std::fs::read_link(place.path("root/link")).unwrap(), Path::new("/bin/suid"));
    assert_eq!((place.meta("null").rdev(), mode("null")), (makedev(1, 3), 0o666));
    assert!(place.meta("disk").file_type().is_block_device());
    assert!(place.meta("pipe").file_type().is_fifo());
    assert_eq!(place.xattr("bin/capable", "security.capability").as_deref(), Some(&capability[..]));
    assert_eq!(place.xattr("bin/capable", "user.k").as_deref(), Some(&b"v"[..]));
    assert_eq!(place.read(&format!("bin/{}", "x".repeat(180))), "long");
    for path in ["bin", "bin/suid", "link", "pipe", "tmp"] {
        assert_eq!(place.meta(path).mtime(), 1_700_000_000, "{path}");
    }
}

#[test]
fn whiteouts_become_overlayfs_own() {
    let place = Place::new();
    let archive = Archive::new()
        .whiteout("etc/gone")
        .dir("opaque", 0o755)
        .opaque("opaque")
        .file("opaque/new", 0o644, "new")
        .file(".wh..wh.plnk", 0o644, "")
        // In one layer, a whiteout hides what is below and never what the layer itself has.
        .whiteout("remade")
        .dir("remade", 0o755)
        .file("remade/f", 0o644, "f")
        .dir("made", 0o755)
        .whiteout("made")
        .file("kept", 0o644, "kept")
        .whiteout("kept")
        .whiteout("again")
        .file("again", 0o644, "again");
    place.unpack(archive).unwrap();
    assert!(place.is_whiteout("etc/gone"));
    for (path, opaque) in [("opaque", true), ("remade", true), ("made", true), ("etc", false)] {
        assert_eq!(place.is_opaque(path), opaque, "{path}");
    }
    assert_eq!(
        (place.read("kept"), place.read("again"), place.read("remade/f")),
        ("kept".into(), "again".into(), "f".into())
    );
    assert!(!place.path("root/.wh..wh.plnk").exists());
}

#[test]
fn folders_that_are_not_mentioned_look_as_below() {
    let place = Place::new();
    let parent = place.path("parent");
    std::fs::create_dir_all(parent.join("tmp/deep")).unwrap();
    std::os::unix::fs::symlink("/", parent.join("link")).unwrap();
    rustix::fs::chmod(parent.join("tmp"), Mode::from_raw_mode(0o1777)).unwrap();
    std::os::unix::fs::chown(parent.join("tmp/deep"), Some(7), Some(8)).unwrap();
    place.unpack(Archive::new().file("tmp/deep/f", 0o644, "").file("link/f", 0o644, "")).unwrap();
    assert_eq!(place.meta("tmp").mode() & 0o7777, 0o1777);
    assert_eq!((place.meta("tmp/deep").uid(), place.meta("tmp/deep").gid()), (7, 8));
    assert!(place.meta("link").is_dir());
}

#[test]
fn links_lead_anywhere_within_the_layer_and_nowhere_else() {
    let place = Place::new();
    let outside = place.path("outside").display().to_string();
    let archive = Archive::new()
        .dir("usr/lib", 0o755)
        .symlink("lib", "usr/lib")
        .file("lib/a", 0o644, "merged")
        .symlink("up", "../../../../../..")
        .file("up/b", 0o644, "root")
        .symlink("missing", "made/for/it")
        .file("missing/c", 0o644, "made")
        .symlink("absolute", "/usr")
        .file("absolute/d", 0o644, "usr")
        .symlink("host", &outside)
        .file("host", 0o644, "a file where the link was")
        .symlink("magic", "/proc/self/root")
        .file("magic/e", 0o644, "the layer's own proc");
    place.unpack(archive).unwrap();
    for (path, content) in [
        ("usr/lib/a", "merged"),
        ("b", "root"),
        ("made/for/it/c", "made"),
        ("usr/d", "usr"),
        ("host", "a file where the link was"),
        ("proc/self/root/e", "the layer's own proc"),
    ] {
        assert_eq!(place.read(path), content);
    }
    assert_eq!(std::fs::read_to_string(place.path("outside")).unwrap(), "untouched");
}

#[test]
fn what_leaves_the_root_is_refused() {
    let outside = |archive: fn(Archive) -> Archive| archive(Archive::new());
    for (what, archive) in [
        ("a name with ..", outside(|a| a.file("../outside", 0o644, "bad"))),
        ("a longer one", outside(|a| a.file("a/../../outside", 0o644, "bad"))),
        ("an absolute one with ..", outside(|a| a.file("/../outside", 0o644, "bad"))),
        ("a folder", outside(|a| a.dir("..", 0o777))),
        ("a hard link's target", outside(|a| a.hard_link("h", "../outside"))),
        ("a hard link to the root", outside(|a| a.hard_link("h", "/"))),
        ("a whiteout", outside(|a| a.file("../.wh.outside", 0o644, ""))),
        ("a file as the root", outside(|a| a.file("./", 0o644, "").symlink(".", "/etc"))),
    ] {
        let place = Place::new();
        let error = place.unpack(archive).expect_err(what);
        assert!(matches!(error, UnpackError::Escapes { .. }), "{what}: {error:?}");
        assert_eq!(std::fs::read_to_string(place.path("outside")).unwrap(), "untouched", "{what}");
        assert!(!place.path(".wh.outside").exists());
    }
}

#[test]
fn absolute_names_and_inner_dots_stay_inside() {
    let place = Place::new();
    place
        .unpack(Archive::new().file("/etc/./x", 0o644, "1").file("a/b/../c", 0o644, "2").file("//y", 0o644, "3"))
        .unwrap();
    assert_eq!([place.read("etc/x"), place.read("a/c"), place.read("y")], ["1", "2", "3"]);
}

#[test]
fn a_hard_link_through_a_link_stays_inside() {
    let place = Place::new();
    let archive = Archive::new().symlink("out", "../..").hard_link("h", "out/outside");
    assert!(matches!(place.unpack(archive), Err(UnpackError::Entry { action: "link", .. })));
    let place = Place::new();
    let archive = Archive::new().symlink("s", "/etc/passwd").hard_link("h", "s");
    place.unpack(archive).unwrap();
    assert!(place.meta("h").file_type().is_symlink(), "the link itself is linked, not what it leads to");
}

#[test]
fn later_entries_replace_earlier_ones() {
    let place = Place::new();
    let archive = Archive::new()
        .dir("d", 0o700)
        .file("d/inner", 0o644, "")
        .file("d", 0o644, "now a file")
        .file("f", 0o644, "")
        .dir("f", 0o750)
        .file("f/inner", 0o644, "in")
        .dir("f", 0o711)
        .symlink("l", "one")
        .file("l/x", 0o644, "in one")
        .symlink("l", "two")
        .file("l/x", 0o644, "in two")
        .file("same", 0o644, "same")
        .hard_link("same", "same");
    place.unpack(archive).unwrap();
    assert_eq!(place.read("d"), "now a file");
    assert_eq!((place.read("f/inner"), place.meta("f").mode() & 0o777), ("in".to_owned(), 0o711), "folders merge");
    assert_eq!(
        (place.read("one/x"), place.read("two/x"), place.read("same")),
        ("in one".into(), "in two".into(), "same".into())
    );
}

#[test]
fn overlayfs_own_attributes_are_not_for_images() {
    let place = Place::new();
    let archive = Archive::new()
        .xattr("trusted.overlay.redirect", "/etc")
        .xattr("trusted.overlay.opaque", "y")
        .dir("d", 0o755)
        .xattr("user.overlay.whiteout", "y")
        .file("f", 0o644, "");
    place.unpack(archive).unwrap();
    assert_eq!(place.xattr("d", "trusted.overlay.redirect"), None);
    assert_eq!(place.xattr("d", "trusted.overlay.opaque"), None);
    assert_eq!(place.xattr("f", "user.overlay.whiteout"), None);
}

#[test]
fn layers_have_limits() {
    let limits = Limits { bytes: 10_000, entries: 5 };
    let many = (0..6).fold(Archive::new(), |archive, n| archive.dir(&n.to_string(), 0o755));
    assert!(matches!(Place::new().unpack_limited(many, limits), Err(UnpackError::Limit { what: "entries", .. })));
    let big = Archive::new().file("a", 0o644, vec![0; 6000]).file("b", 0o644, vec![0; 6000]);
    assert!(matches!(Place::new().unpack_limited(big, limits), Err(UnpackError::Limit { what: "bytes", .. })));
}

#[test]
fn truncated_archives_are_errors() {
    let place = Place::new();
    let archive = Archive::new().file("f", 0o644, vec![1; 5000]).into_tar();
    let result = unpack(&archive[..3000], &place.path("root"), &[], &place.path("trash"), Limits::default());
    assert!(matches!(result, Err(UnpackError::Archive(_))), "{result:?}");
}

#[test]
fn the_root_itself_has_attributes() {
    let place = Place::new();
    place.unpack(Archive::new().owner(5, 6).dir(".", 0o711)).unwrap();
    assert_eq!((place.meta("").mode() & 0o7777, place.meta("").uid()), (0o711, 5));
}

#[test]
fn a_hard_link_to_a_file_below_brings_it_up() {
    let place = Place::new();
    let (parent, grandparent) = (place.path("parent"), place.path("grandparent"));
    std::fs::create_dir_all(parent.join("bin")).unwrap();
    for folder in ["lib", "gone", "opaque"] {
        std::fs::create_dir_all(grandparent.join(folder)).unwrap();
        std::fs::write(grandparent.join(folder).join("deep"), "deep").unwrap();
    }
    std::fs::create_dir_all(parent.join("opaque")).unwrap();
    rustix::fs::setxattr(parent.join("opaque"), OPAQUE, b"y", XattrFlags::empty()).unwrap();
    std::fs::write(parent.join("bin/tool"), "content").unwrap();
    std::os::unix::fs::chown(parent.join("bin/tool"), Some(7), Some(8)).unwrap();
    std::fs::set_permissions(parent.join("bin/tool"), std::os::unix::fs::PermissionsExt::from_mode(0o4711)).unwrap();
    rustix::fs::setxattr(parent.join("bin/tool"), "user.note", b"kept", XattrFlags::empty()).unwrap();
    let parents = [parent.clone(), grandparent];
    let unpack = |archive: Archive| {
        let root = &place.path("root");
        unpack(&archive.into_tar()[..], root, &parents, &place.path("trash"), Limits::default())
    };
    let archive = Archive::new().hard_link("bin/alias", "bin/tool").hard_link("other", "lib/deep");
    let usage = unpack(archive).unwrap();
    assert_eq!((place.read("bin/alias").as_str(), place.read("other").as_str()), ("content", "deep"));
    let (tool, alias) = (place.meta("bin/tool"), place.meta("bin/alias"));
    assert_eq!((tool.ino(), tool.nlink(), tool.mode() & 0o7777), (alias.ino(), 2, 0o4711));
    assert_eq!((tool.uid(), tool.gid()), (7, 8));
    assert_eq!(tool.mtime(), std::fs::metadata(parent.join("bin/tool")).unwrap().mtime());
    assert_eq!(place.xattr("bin/alias", "user.note").as_deref(), Some(&b"kept"[..]));
    assert_eq!(usage.bytes, 2 * 4096);
    // What is below, but hidden from here, is no file to link to.
    for (name, archive) in [
        ("whiteout", Archive::new().file("gone/.wh.deep", 0, "").hard_link("a", "gone/deep")),
        ("opaque", Archive::new().hard_link("b", "opaque/deep")),
        ("nowhere", Archive::new().hard_link("c", "no/such")),
    ] {
        assert!(matches!(unpack(archive), Err(UnpackError::Entry { action: "link", .. })), "{name}");
    }
}
