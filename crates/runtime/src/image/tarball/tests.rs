use std::io::Read;

use testkit::image::Layer;

use super::*;

/// Each entry as one line, or the error.
fn list(bytes: &[u8]) -> Result<Vec<String>, String> {
    let mut tarball = Tarball::new(bytes);
    let mut lines = Vec::new();
    while let Some(entry) = tarball.next_entry().map_err(|error| error.to_string())? {
        let mut content = String::new();
        tarball.read_to_string(&mut content).map_err(|error| error.to_string())?;
        let name = String::from_utf8_lossy(&entry.path).into_owned();
        let link = String::from_utf8_lossy(&entry.link).into_owned();
        lines.push(format!("{:?} {name} {link} {:o} {content}", entry.kind, entry.mode));
    }
    Ok(lines)
}

#[test]
fn plain_entries_are_read() {
    let tar =
        Layer::new().dir("d", 0o755).file("d/f", 0o4755, "text").symlink("l", "d/f").hard_link("h", "d/f").into_tar();
    assert_eq!(
        list(&tar).unwrap(),
        ["Directory d/  755 ", "File d/f  4755 text", "Symlink l d/f 777 ", "HardLink h d/f 644 "]
    );
    assert_eq!(list(&[]).unwrap(), [""; 0]);
    assert_eq!(list(&[0; 1024]).unwrap(), [""; 0]);
}

#[test]
fn long_names_of_gnu_and_pax_are_read() {
    let (name, target) = ("n".repeat(200), "t/".repeat(300));
    let gnu = Layer::new().symlink(&name, &target).into_tar();
    assert_eq!(list(&gnu).unwrap(), [format!("Symlink {name} {target} 777 ")]);
    let pax = Layer::new()
        .pax(&[("path", name.as_bytes()), ("linkpath", target.as_bytes())])
        .entry(tar::EntryType::Symlink, "short", 0o777, "short", &[])
        .into_tar();
    assert_eq!(list(&pax).unwrap(), [format!("Symlink {name} {target} 777 ")]);
}

#[test]
fn ustar_prefixes_are_read() {
    let mut header = tar::Header::new_ustar();
    header.set_path(format!("{}/{}", "a".repeat(90), "b".repeat(90))).unwrap();
    header.set_size(0);
    header.set_cksum();
    let lines = list(header.as_bytes()).unwrap();
    assert!(lines[0].contains(&format!("{}/{}", "a".repeat(90), "b".repeat(90))), "{lines:?}");
}

#[test]
fn pax_numbers_and_attributes_are_read() {
    let tar = Layer::new()
        .pax(&[("uid", b"70000"), ("gid", b"4294967295"), ("mtime", b"-1.5"), ("SCHILY.xattr.user.k", b"a\0=b")])
        .file("f", 0o644, "x")
        .into_tar();
    let entry = Tarball::new(&tar[..]).next_entry().unwrap().unwrap();
    assert_eq!((entry.uid, entry.gid, entry.mtime), (70000, u32::MAX, (-2, 500_000_000)));
    assert_eq!(entry.xattrs, [(b"user.k".to_vec(), b"a\0=b".to_vec())]);
}

#[test]
fn numbers_are_octal_or_binary() {
    for (field, expect) in [
        (&b"0000644\0"[..], Some(0o644)),
        (b"   644 \0", Some(0o644)),
        (b"\0\0\0\0\0\0\0\0", Some(0)),
        (b"\x80\0\0\0\0\0\x01\0", Some(256)),
        (b"9\0\0\0\0\0\0\0", None),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff", None),
        (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
    ] {
        assert_eq!(number(field).ok(), expect, "{field:?}");
    }
}

#[test]
fn what_is_damaged_or_unknown_is_refused() {
    let good = Layer::new().file("f", 0o644, "x".repeat(1000)).into_tar();
    let mut damaged = good.clone();
    damaged[0] ^= 1;
    let entry = |kind: u8| Layer::new().entry(tar::EntryType::new(kind), "f", 0o644, "", &[]).into_tar();
    let huge = {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_size(1 << 40);
        header.set_cksum();
        header.as_bytes().to_vec()
    };
    for (what, bytes, expect) in [
        ("checksum", damaged, "checksum"),
        ("not an archive", b"hello".repeat(200), "checksum"),
        ("within a header", good[..100].to_vec(), "truncated"),
        ("within content", good[..1000].to_vec(), "truncated"),
        ("sparse", entry(b'S'), "sparse"),
        ("PAX sparse", Layer::new().pax(&[("GNU.sparse.major", b"1")]).file("f", 0o644, "").into_tar(), "sparse"),
        ("multi-volume", entry(b'M'), "unknown entry type"),
        ("NUL in a name", Layer::new().pax(&[("path", b"a\0b")]).file("f", 0o644, "").into_tar(), "NUL"),
        ("negative size", Layer::new().pax(&[("size", b"-1")]).file("f", 0o644, "").into_tar(), "size"),
        ("malformed PAX", Layer::new().entry(tar::EntryType::XHeader, "x", 0o644, "", b"99 a=b\n").into_tar(), "PAX"),
        ("PAX of a terabyte", huge, "too long"),
        ("a long name for nothing", Layer::new().pax(&[("path", b"x")]).into_tar(), "ends after"),
    ] {
        let error = list(&bytes).expect_err(what);
        assert!(error.contains(expect), "{what}: {error}");
    }
}
