//! Who a container's process is: numbers and names looked up in the image's own files.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::error::Error;
use crate::record::UserRecord;

/// What was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted<'a> {
    /// A user's number; comes before the name.
    pub(crate) uid: Option<i64>,
    /// A user's name.
    pub(crate) name: &'a str,
    /// A group's number.
    pub(crate) gid: Option<i64>,
    /// The image's user (`name`, `uid`, `name:group`, ...), when nothing else is said.
    pub(crate) image: &'a str,
    /// More groups.
    pub(crate) groups: &'a [i64],
    /// Whether the groups that the image's files give the user are left out.
    pub(crate) strict: bool,
}

/// Finds the user in the image below `rootfs`. Upstream: containerd's `oci.WithUser` and `WithAdditionalGIDs`.
pub(crate) fn resolve(rootfs: &Path, wanted: &Wanted<'_>) -> Result<UserRecord, Error> {
    let passwd = read(rootfs, "etc/passwd");
    let group = read(rootfs, "etc/group");
    let (user, group_part) = match (wanted.uid, wanted.name) {
        (Some(uid), _) => (uid.to_string(), ""),
        (None, "") => {
            let (user, group) = wanted.image.split_once(':').unwrap_or((wanted.image, ""));
            (user.to_owned(), group)
        }
        (None, name) => (name.to_owned(), ""),
    };
    let entry = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields.len() >= 4);
    let number = |text: &str| text.parse::<u32>().ok();
    let (uid, mut gid, name) = if user.is_empty() {
        (0, 0, "root".to_owned())
    } else {
        let by_name = entry.clone().find(|fields| fields[0] == user);
        let by_number = || entry.clone().find(|fields| number(&user).is_some() && number(fields[2]) == number(&user));
        match (by_name.or_else(by_number), number(&user)) {
            (Some(fields), _) => (number(fields[2]).unwrap_or(0), number(fields[3]).unwrap_or(0), fields[0].to_owned()),
            (None, Some(uid)) => (uid, 0, String::new()),
            (None, None) => {
                return Err(Error::Invalid(format!("unable to find user {user}: no matching entries in passwd file")));
            }
        }
    };
    let groups = group.lines().map(|line| line.split(':').collect::<Vec<_>>()).filter(|fields| fields.len() >= 3);
    if !group_part.is_empty() {
        let named = groups.clone().find(|fields| fields[0] == group_part).and_then(|fields| number(fields[2]));
        gid = named.or_else(|| number(group_part)).ok_or_else(|| {
            Error::Invalid(format!("unable to find group {group_part}: no matching entries in group file"))
        })?;
    }
    if let Some(wanted) = wanted.gid {
        gid = u32::try_from(wanted).map_err(|_| Error::Invalid(format!("invalid group {wanted}")))?;
    }
    let mut all = vec![gid];
    if !wanted.strict && !name.is_empty() {
        let member =
            |fields: &Vec<&str>| fields.get(3).is_some_and(|members| members.split(',').any(|one| one == name));
        all.extend(groups.filter(member).filter_map(|fields| number(fields[2])));
    }
    for wanted in wanted.groups {
        all.push(u32::try_from(*wanted).map_err(|_| Error::Invalid(format!("invalid group {wanted}")))?);
    }
    let mut unique = Vec::with_capacity(all.len());
    for gid in all {
        if !unique.contains(&gid) {
            unique.push(gid);
        }
    }
    Ok(UserRecord { uid, gid, groups: unique })
}

/// The file in the image, whatever links its path holds; empty when there is none.
fn read(rootfs: &Path, path: &str) -> String {
    let open = || -> rustix::io::Result<File> {
        let root = rustix::fs::open(rootfs, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(rustix::fs::openat2(&root, path, flags, Mode::empty(), resolve)?.into())
    };
    let mut text = Vec::new();
    if let Ok(file) = open()
        && file.metadata().is_ok_and(|about| about.is_file())
    {
        let _ = file.take(1 << 20).read_to_end(&mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_as_upstream_finds_them() {
        let rootfs = std::env::temp_dir().join(format!("runtime-users-{}", std::process::id()));
        std::fs::create_dir_all(rootfs.join("etc")).unwrap();
        std::fs::write(rootfs.join("etc/passwd"), "root:x:0:0::/:/bin/sh\nweb:x:33:34::/:/bin/sh\n").unwrap();
        std::fs::write(rootfs.join("etc/group"), "root:x:0:\nweb:x:34:\nadm:x:50:root,web\nmail:x:60:\n").unwrap();
        let check = |wanted: Wanted<'_>, expect: Option<(u32, u32, &[u32])>| {
            let got = resolve(&rootfs, &wanted).ok();
            let got = got.as_ref().map(|user| (user.uid, user.gid, &user.groups[..]));
            assert_eq!(got, expect, "{wanted:?}");
        };
        let nothing = Wanted::default();
        check(nothing.clone(), Some((0, 0, &[0, 50])));
        check(Wanted { image: "web", ..nothing.clone() }, Some((33, 34, &[34, 50])));
        check(Wanted { image: "33", ..nothing.clone() }, Some((33, 34, &[34, 50])));
        check(Wanted { image: "web:mail", ..nothing.clone() }, Some((33, 60, &[60, 50])));
        check(Wanted { image: "1000:2000", ..nothing.clone() }, Some((1000, 2000, &[2000])));
        check(Wanted { uid: Some(1000), image: "web", ..nothing.clone() }, Some((1000, 0, &[0])));
        check(Wanted { uid: Some(33), gid: Some(7), groups: &[8, 7], ..nothing.clone() }, Some((33, 7, &[7, 50, 8])));
        check(Wanted { name: "web", strict: true, groups: &[8], ..nothing.clone() }, Some((33, 34, &[34, 8])));
        check(Wanted { name: "nobody", ..nothing.clone() }, None);
        check(Wanted { image: "web:nogroup", ..nothing }, None);
        std::fs::remove_dir_all(rootfs).unwrap();
    }
}
