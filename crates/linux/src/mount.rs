//! Mounts: binding, sealing, finding and removing them.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

/// One line of `/proc/self/mountinfo`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountPoint {
    /// The path within the filesystem that is mounted.
    pub root: PathBuf,
    /// Where it is mounted.
    pub path: PathBuf,
    /// Whether mounts below it appear in other namespaces too.
    pub shared: bool,
    /// Whether mounts below its peers appear here.
    pub slave: bool,
    /// Filesystem type.
    pub kind: String,
    /// Options of the filesystem.
    pub options: String,
}

/// Every mount this process sees.
pub fn mounts() -> io::Result<Vec<MountPoint>> {
    Ok(fs::read_to_string("/proc/self/mountinfo")?.lines().filter_map(parse).collect())
}

fn parse(line: &str) -> Option<MountPoint> {
    let mut fields = line.split(' ');
    let root = unescape(fields.nth(3)?);
    let path = unescape(fields.next()?);
    let tags: Vec<&str> = fields.by_ref().skip(1).take_while(|field| *field != "-").collect();
    let kind = fields.next()?.to_owned();
    let options = fields.nth(1).unwrap_or_default().to_owned();
    let shared = tags.iter().any(|tag| tag.starts_with("shared:"));
    let slave = tags.iter().any(|tag| tag.starts_with("master:"));
    Some(MountPoint { root, path, shared, slave, kind, options })
}

/// Undoes the kernel's octal escapes of blanks and backslashes.
fn unescape(field: &str) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut bytes = field.as_bytes();
    while let [first, rest @ ..] = bytes {
        let octal = rest.get(..3).filter(|digits| *first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal {
            Some(digits) => {
                out.push(digits.iter().fold(0u32, |value, digit| value * 8 + (digit - b'0') as u32) as u8);
                bytes = &rest[3..];
            }
            None => {
                out.push(*first);
                bytes = rest;
            }
        }
    }
    PathBuf::from(std::ffi::OsStr::from_bytes(&out).to_owned())
}

/// The mount that `path` lies on: the last one whose mount point is the longest prefix.
pub fn containing(path: &Path) -> io::Result<MountPoint> {
    let path = fs::canonicalize(path)?;
    let mounts = mounts()?;
    let on = mounts.into_iter().filter(|mount| path.starts_with(&mount.path));
    on.max_by_key(|mount| mount.path.components().count()).ok_or_else(|| io::Error::other("no mount holds the path"))
}

/// Whether something is mounted at exactly `path`.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    use rustix::fs::{AtFlags, StatxAttributes, StatxFlags};
    let root = StatxAttributes::MOUNT_ROOT;
    match rustix::fs::statx(rustix::fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty()) {
        Ok(found) if found.stx_attributes_mask.contains(root) => Ok(found.stx_attributes.contains(root)),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        // Linux before 5.8; a node with many pods has many mounts to read.
        _ => Ok(mounts()?.iter().any(|mount| mount.path == path)),
    }
}

/// Mounts `source` (a file or folder) at `target` too, without what is mounted below it.
pub fn bind(source: &Path, target: &Path) -> io::Result<()> {
    Ok(rustix::mount::mount_bind(source, target)?)
}

/// Mounts a folder at `target` too, with options as `mount -o` takes them.
///
/// # Errors
/// `InvalidInput` for an option that only a filesystem understands.
pub fn bind_with(source: &Path, target: &Path, options: &[String]) -> io::Result<()> {
    let (flags, others) = parse_options(options);
    if let Some(option) = others.first() {
        let message = format!("a folder can't be mounted with the option {option:?}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    bind(source, target)?;
    let remounted = rustix::mount::mount_remount(target, flags | MountFlags::BIND, c"");
    if remounted.is_err() {
        unmount_all(target)?;
    }
    Ok(remounted?)
}

/// Mounts a share of an NFS server (version 4) at `target`; the `address` is the server's.
pub fn nfs(share: &str, address: std::net::IpAddr, target: &Path, options: &[String]) -> io::Result<()> {
    let (flags, others) = parse_options(options);
    let probe = std::net::UdpSocket::bind(if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    probe.connect((address, 2049))?;
    let mut all = vec![format!("addr={address}"), format!("clientaddr={}", probe.local_addr()?.ip())];
    if !others.iter().any(|option| option.starts_with("vers=") || option.starts_with("nfsvers=")) {
        all.push("vers=4.2".to_owned());
    }
    all.extend(others);
    let text = std::ffi::CString::new(all.join(","))?;
    match rustix::mount::mount(share, target, "nfs", flags, Some(text.as_c_str())) {
        Err(rustix::io::Errno::NODEV) => {
            Err(io::Error::new(io::ErrorKind::Unsupported, "this machine's kernel has no NFS client"))
        }
        mounted => Ok(mounted?),
    }
}

/// The options that are flags of every mount, and the rest.
fn parse_options(options: &[String]) -> (MountFlags, Vec<String>) {
    let (mut flags, mut others) = (MountFlags::empty(), Vec::new());
    for option in options.iter().flat_map(|options| options.split(',')).map(str::trim) {
        match option {
            "ro" => flags |= MountFlags::RDONLY,
            "nosuid" => flags |= MountFlags::NOSUID,
            "nodev" => flags |= MountFlags::NODEV,
            "noexec" => flags |= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "strictatime" => flags |= MountFlags::STRICTATIME,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "rw" => flags -= MountFlags::RDONLY,
            "suid" => flags -= MountFlags::NOSUID,
            "dev" => flags -= MountFlags::NODEV,
            "exec" => flags -= MountFlags::NOEXEC,
            "atime" => flags -= MountFlags::NOATIME,
            "" | "defaults" | "bind" | "async" => {}
            other => others.push(other.to_owned()),
        }
    }
    (flags, others)
}

/// Mounts a tmpfs at `target`; `options` as `mount -o` takes them (`mode=1777,size=64m`).
pub fn tmpfs(target: &Path, flags: TmpfsFlags, options: &str) -> io::Result<()> {
    let options = std::ffi::CString::new(options)?;
    let mut mount_flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount_flags |= match flags {
        TmpfsFlags::ReadWrite => MountFlags::NOEXEC,
        TmpfsFlags::ReadOnly => MountFlags::NOEXEC | MountFlags::RDONLY,
        TmpfsFlags::Programs => MountFlags::empty(),
    };
    Ok(rustix::mount::mount("tmpfs", target, "tmpfs", mount_flags, Some(options.as_c_str()))?)
}

/// What a tmpfs is for. It never holds devices or set-uid programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TmpfsFlags {
    /// Files.
    ReadWrite,
    /// Nothing: it can't be written to.
    ReadOnly,
    /// Files and programs.
    Programs,
}

/// How a mount passes on what is mounted below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// In neither direction.
    Private,
    /// From the host to here.
    Slave,
    /// In both.
    Shared,
}

/// Sets the propagation of the mount at `path`, and of those below it when `recursive`.
pub fn set_propagation(path: &Path, propagation: Propagation, recursive: bool) -> io::Result<()> {
    let mut flags = match propagation {
        Propagation::Private => MountPropagationFlags::PRIVATE,
        Propagation::Slave => MountPropagationFlags::DOWNSTREAM,
        Propagation::Shared => MountPropagationFlags::SHARED,
    };
    if recursive {
        flags |= MountPropagationFlags::REC;
    }
    Ok(rustix::mount::mount_change(path, flags)?)
}

/// Takes away every mount at `path`, one above the other, also while in use. Succeeds when there is none, or no such path.
pub fn unmount_all(path: &Path) -> io::Result<()> {
    loop {
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOENT) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Takes away every mount at or below `dir`, the latest first.
pub fn unmount_below(dir: &Path) -> io::Result<()> {
    for mount in mounts()?.iter().rev().filter(|mount| mount.path.starts_with(dir)) {
        unmount_all(&mount.path)?;
    }
    Ok(())
}

/// Makes the empty, read-only folder `dir` (a mount point in a mount namespace of this process' own) the root.
pub fn seal_into(dir: &Path) -> io::Result<()> {
    set_propagation(Path::new("/"), Propagation::Private, true)?;
    tmpfs(dir, TmpfsFlags::ReadOnly, "size=4k,mode=555")?;
    std::env::set_current_dir(dir)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    std::env::set_current_dir("/")
}

/// This program's own file, opened on a read-only mount of its own that no path leads to: processes started from it cannot be
/// used to overwrite the program, not even by root in a container that gets hold of `/proc/<pid>/exe`.
pub fn own_program_sealed() -> io::Result<File> {
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        userns: u64,
    }
    // SAFETY: a constant string; a new file descriptor or -1 comes back.
    let fd = unsafe {
        let flags = libc::OPEN_TREE_CLONE | libc::OPEN_TREE_CLOEXEC;
        libc::syscall(libc::SYS_open_tree, libc::AT_FDCWD, c"/proc/self/exe".as_ptr(), flags)
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made this descriptor for us.
    let tree = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let attributes = Attributes { set: libc::MOUNT_ATTR_RDONLY, clear: 0, propagation: 0, userns: 0 };
    // SAFETY: an empty path and attributes of the given size, both outliving the call.
    let result = unsafe {
        let size = std::mem::size_of::<Attributes>();
        libc::syscall(libc::SYS_mount_setattr, tree.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, &attributes, size)
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    File::open(format!("/proc/self/fd/{}", tree.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn options_are_flags() {
        let check = |options: &[&str], expect: (MountFlags, &[&str])| {
            let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
            let (flags, others) = parse_options(&options);
            assert_eq!((flags, others), (expect.0, expect.1.iter().map(|o| (*o).to_owned()).collect()), "{options:?}");
        };
        check(&[], (MountFlags::empty(), &[]));
        check(&["ro,noexec", "hard"], (MountFlags::RDONLY | MountFlags::NOEXEC, &["hard"]));
        check(&["ro", "rw", "nfsvers=4.1"], (MountFlags::empty(), &["nfsvers=4.1"]));
    }

    #[test]
    fn mountinfo_lines_are_read() {
        let check = |line: &str, expect: (&str, &str, bool, bool, &str)| {
            let mount = parse(line).unwrap();
            let got =
                (mount.root.to_str().unwrap(), mount.path.to_str().unwrap(), mount.shared, mount.slave, &*mount.kind);
            assert_eq!(got, expect, "{line}");
        };
        check("22 1 254:0 / / rw,relatime - ext4 /dev/vda rw", ("/", "/", false, false, "ext4"));
        check(
            "9 2 0:5 /a /mnt/with\\040blank rw shared:4 master:2 - tmpfs x rw,size=4k",
            ("/a", "/mnt/with blank", true, true, "tmpfs"),
        );
    }

    #[test]
    fn mounts_are_found_and_removed() {
        let dir = std::env::temp_dir().join(format!("linux-mount-{}", std::process::id()));
        let inner = dir.join("inner");
        fs::create_dir_all(&inner).unwrap();
        tmpfs(&dir, TmpfsFlags::ReadWrite, "mode=755").unwrap();
        fs::create_dir(&inner).unwrap();
        tmpfs(&inner, TmpfsFlags::ReadOnly, "mode=755").unwrap();
        assert!(is_mount_point(&inner).unwrap());
        assert_eq!(containing(&inner).unwrap().path, inner);
        assert!(fs::write(inner.join("x"), "").is_err());
        unmount_below(&dir).unwrap();
        assert!(!is_mount_point(&dir).unwrap());
        unmount_all(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn the_sealed_program_can_be_read_not_written() {
        let mut sealed = own_program_sealed().unwrap();
        let mut magic = [0; 4];
        sealed.read_exact(&mut magic).unwrap();
        assert_eq!(&magic, b"\x7fELF");
        // Opening it for writing would say "busy" here, as it runs; what counts is the mount.
        assert!(rustix::fs::fstatvfs(&sealed).unwrap().f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    }
}
