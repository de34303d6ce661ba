//! One layer's archive, entry by entry.

use tar::{EntryType, Header};

/// Every entry's time: a fixed one, so that archives are the same each time.
const MTIME: u64 = 1_700_000_000;

/// A tar archive in the making. Names are taken as they are given, however wicked.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    bytes: Vec<u8>,
    owner: (u64, u64),
    xattrs: Vec<(String, Vec<u8>)>,
}

impl Layer {
    pub fn new() -> Layer {
        Layer::default()
    }

    /// User and group of the entries that follow.
    pub fn owner(mut self, uid: u64, gid: u64) -> Layer {
        self.owner = (uid, gid);
        self
    }

    /// Gives the next entry an extended attribute.
    pub fn xattr(mut self, key: &str, value: impl AsRef<[u8]>) -> Layer {
        self.xattrs.push((key.to_owned(), value.as_ref().to_vec()));
        self
    }

    pub fn dir(self, path: &str, mode: u32) -> Layer {
        self.entry(EntryType::Directory, &format!("{path}/"), mode, "", &[])
    }

    pub fn file(self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Layer {
        self.entry(EntryType::Regular, path, mode, "", content.as_ref())
    }

    pub fn symlink(self, path: &str, target: &str) -> Layer {
        self.entry(EntryType::Symlink, path, 0o777, target, &[])
    }

    pub fn hard_link(self, path: &str, target: &str) -> Layer {
        self.entry(EntryType::Link, path, 0o644, target, &[])
    }

    pub fn fifo(self, path: &str, mode: u32) -> Layer {
        self.entry(EntryType::Fifo, path, mode, "", &[])
    }

    pub fn char_device(self, path: &str, mode: u32, major: u32, minor: u32) -> Layer {
        self.device(EntryType::Char, path, mode, (major, minor))
    }

    pub fn block_device(self, path: &str, mode: u32, major: u32, minor: u32) -> Layer {
        self.device(EntryType::Block, path, mode, (major, minor))
    }

    /// Hides `path` of the layers below.
    pub fn whiteout(self, path: &str) -> Layer {
        let (folder, name) = path.rsplit_once('/').map_or(("", path), |(folder, name)| (folder, name));
        let slash = if folder.is_empty() { "" } else { "/" };
        self.file(&format!("{folder}{slash}.wh.{name}"), 0o644, "")
    }

    /// Hides everything that layers below have in the folder `path`.
    pub fn opaque(self, path: &str) -> Layer {
        self.file(&format!("{path}/.wh..wh..opq"), 0o644, "")
    }

    /// Any entry: type flag, name, mode, link target, content.
    pub fn entry(mut self, kind: EntryType, path: &str, mode: u32, link: &str, content: &[u8]) -> Layer {
        self.extensions(path, link);
        let mut header = self.header(kind, path, mode);
        let link = &link.as_bytes()[..link.len().min(100)];
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
        header.set_size(content.len() as u64);
        self.append(header, content)
    }

    /// Bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Layer {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// A PAX header for the next entry.
    pub fn pax(self, records: &[(&str, &[u8])]) -> Layer {
        let mut content = Vec::new();
        for (key, value) in records {
            let rest = key.len() + value.len() + 3; // blank, equals sign, line end
            let mut length = rest + 1;
            while rest + length.to_string().len() != length {
                length += 1;
            }
            content.extend_from_slice(format!("{length} {key}=").as_bytes());
            content.extend_from_slice(value);
            content.push(b'\n');
        }
        let mut header = self.header(EntryType::XHeader, "pax", 0o644);
        header.set_size(content.len() as u64);
        self.append(header, &content)
    }

    /// The archive with its end.
    pub fn into_tar(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 1024]);
        self.bytes
    }

    fn device(mut self, kind: EntryType, path: &str, mode: u32, device: (u32, u32)) -> Layer {
        self.extensions(path, "");
        let mut header = self.header(kind, path, mode);
        header.set_device_major(device.0).expect("a GNU header has device numbers");
        header.set_device_minor(device.1).expect("a GNU header has device numbers");
        self.append(header, &[])
    }

    /// What doesn't fit into the entry's header goes before it: long names in GNU's way, attributes in PAX's.
    fn extensions(&mut self, path: &str, link: &str) {
        for (kind, text) in [(EntryType::GNULongName, path), (EntryType::GNULongLink, link)] {
            if text.len() > 100 {
                let content = [text.as_bytes(), b"\0"].concat();
                let mut header = self.header(kind, "././@LongLink", 0o644);
                header.set_size(content.len() as u64);
                *self = std::mem::take(self).append(header, &content);
            }
        }
        let xattrs = std::mem::take(&mut self.xattrs);
        if !xattrs.is_empty() {
            let keys: Vec<String> = xattrs.iter().map(|(key, _)| format!("SCHILY.xattr.{key}")).collect();
            let records: Vec<(&str, &[u8])> =
                keys.iter().zip(&xattrs).map(|(key, (_, value))| (key.as_str(), value.as_slice())).collect();
            *self = std::mem::take(self).pax(&records);
        }
    }

    fn header(&self, kind: EntryType, path: &str, mode: u32) -> Header {
        let mut header = Header::new_gnu();
        let name = &path.as_bytes()[..path.len().min(100)];
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(self.owner.0);
        header.set_gid(self.owner.1);
        header.set_mtime(MTIME);
        header
    }

    fn append(mut self, mut header: Header, content: &[u8]) -> Layer {
        header.set_cksum();
        self.bytes.extend_from_slice(header.as_bytes());
        self.bytes.extend_from_slice(content);
        self.bytes.resize(self.bytes.len().next_multiple_of(512), 0);
        self
    }
}
