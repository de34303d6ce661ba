//! A reader of tar streams: ustar, GNU and PAX, with nothing taken on trust.
//!
//! Headers are bounded in size, checksums are checked, and what this reader doesn't understand (sparse files, volume
//! labels) is refused rather than guessed. It knows nothing of file systems.

use std::collections::BTreeMap;
use std::io::{self, Read};

const BLOCK: usize = 512;
/// How long a PAX header or a GNU long name may be.
const MAX_EXTENSION: u64 = 1 << 20;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    Char,
    Block,
    Directory,
    Fifo,
}

/// One entry's header. Names are bytes exactly as the archive has them.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub path: Vec<u8>,
    pub link: Vec<u8>,
    pub kind: Kind,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds and nanoseconds since the epoch.
    pub mtime: (i64, i64),
    pub size: u64,
    /// Major and minor number.
    pub device: (u32, u32),
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Reads one entry after the other; between two calls of [`Tarball::next_entry`] it is the [`Read`]er of the entry's content.
pub(crate) struct Tarball<R> {
    reader: R,
    remaining: u64,
    padding: u64,
    global: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<R: Read> Tarball<R> {
    pub(crate) fn new(reader: R) -> Tarball<R> {
        Tarball { reader, remaining: 0, padding: 0, global: BTreeMap::new() }
    }

    pub(crate) fn into_inner(self) -> R {
        self.reader
    }

    /// The next entry, or `None` at the archive's end. What was left unread of the one before is skipped.
    pub(crate) fn next_entry(&mut self) -> io::Result<Option<Entry>> {
        let mut pax = BTreeMap::new();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            self.skip_rest()?;
            let Some(header) = self.header()? else {
                return if pax.is_empty() && long_name.is_none() && long_link.is_none() {
                    Ok(None)
                } else {
                    Err(invalid("the archive ends after an extension header"))
                };
            };
            match header.flag() {
                b'x' => pax = parse_pax(&self.extension(&header)?)?,
                b'g' => {
                    let more = parse_pax(&self.extension(&header)?)?;
                    self.global.extend(more);
                }
                b'L' => long_name = Some(until_nul(&self.extension(&header)?).to_vec()),
                b'K' => long_link = Some(until_nul(&self.extension(&header)?).to_vec()),
                _ => {
                    let mut all = self.global.clone();
                    all.extend(pax);
                    let entry = header.entry(all, long_name, long_link)?;
                    self.remaining = entry.size;
                    self.padding = entry.size.next_multiple_of(BLOCK as u64) - entry.size;
                    return Ok(Some(entry));
                }
            }
        }
    }

    fn skip_rest(&mut self) -> io::Result<()> {
        let mut left = self.remaining + self.padding;
        let mut buffer = [0; 16 << 10];
        while left > 0 {
            let want = left.min(buffer.len() as u64) as usize;
            self.reader.read_exact(&mut buffer[..want]).map_err(truncated)?;
            left -= want as u64;
        }
        (self.remaining, self.padding) = (0, 0);
        Ok(())
    }

    /// The next header block; `None` for a block of zeros or a clean end of the stream.
    fn header(&mut self) -> io::Result<Option<Header>> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.reader.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(truncated(io::ErrorKind::UnexpectedEof.into())),
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if block.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = Header(block);
        header.check()?;
        Ok(Some(header))
    }

    fn extension(&mut self, header: &Header) -> io::Result<Vec<u8>> {
        let size = number(header.field(124, 12))?;
        if size > MAX_EXTENSION {
            return Err(invalid(format!("an extension header of {size} bytes is too long")));
        }
        let mut content = vec![0; size as usize];
        self.reader.read_exact(&mut content).map_err(truncated)?;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(content)
    }
}

impl<R: Read> Read for Tarball<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = self.remaining.min(buffer.len() as u64) as usize;
        if want == 0 {
            return Ok(0);
        }
        let n = self.reader.read(&mut buffer[..want])?;
        if n == 0 {
            return Err(truncated(io::ErrorKind::UnexpectedEof.into()));
        }
        self.remaining -= n as u64;
        Ok(n)
    }
}

struct Header([u8; BLOCK]);

impl Header {
    fn field(&self, start: usize, length: usize) -> &[u8] {
        &self.0[start..start + length]
    }

    fn flag(&self) -> u8 {
        self.0[156]
    }

    fn check(&self) -> io::Result<()> {
        let field = 148..156;
        let bytes = || self.0.iter().enumerate().map(|(i, byte)| if field.contains(&i) { b' ' } else { *byte });
        let unsigned: u64 = bytes().map(u64::from).sum();
        // Some old programs added the bytes as signed numbers.
        let signed: i64 = bytes().map(|byte| byte as i8 as i64).sum();
        match number(self.field(148, 8)) {
            Ok(sum) if sum == unsigned || sum as i64 == signed => Ok(()),
            _ => Err(invalid("not a tar archive, or a damaged one: a header's checksum is wrong")),
        }
    }

    fn entry(
        &self,
        pax: BTreeMap<Vec<u8>, Vec<u8>>,
        long_name: Option<Vec<u8>>,
        long_link: Option<Vec<u8>>,
    ) -> io::Result<Entry> {
        if pax.keys().any(|key| key.starts_with(b"GNU.sparse.")) {
            return Err(invalid("sparse files are not supported"));
        }
        let get = |key: &str| pax.get(key.as_bytes());
        let decimal = |key: &str| get(key).map(|value| parse_decimal(key, value)).transpose();
        let path = get("path").cloned().or(long_name).unwrap_or_else(|| self.path());
        let link = get("linkpath").cloned().or(long_link).unwrap_or_else(|| until_nul(self.field(157, 100)).to_vec());
        if path.contains(&0) || link.contains(&0) {
            return Err(invalid("a name contains a NUL byte"));
        }
        let kind = match self.flag() {
            b'0' | 0 | b'7' if path.ends_with(b"/") => Kind::Directory,
            b'0' | 0 | b'7' => Kind::File,
            b'1' => Kind::HardLink,
            b'2' => Kind::Symlink,
            b'3' => Kind::Char,
            b'4' => Kind::Block,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return Err(invalid("sparse files are not supported")),
            other => return Err(invalid(format!("unknown entry type {:?}", other as char))),
        };
        let id =
            |value: u64| u32::try_from(value).map_err(|_| invalid(format!("user or group {value} is out of range")));
        let size = match decimal("size")? {
            Some(size) => size,
            None => number(self.field(124, 12))?,
        };
        let mtime = match get("mtime") {
            Some(value) => parse_time(value)?,
            None => (number(self.field(136, 12)).unwrap_or(0) as i64, 0),
        };
        Ok(Entry {
            kind,
            mode: number(self.field(100, 8))? as u32 & 0o7777,
            uid: id(decimal("uid")?.map_or_else(|| number(self.field(108, 8)), Ok)?)?,
            gid: id(decimal("gid")?.map_or_else(|| number(self.field(116, 8)), Ok)?)?,
            mtime,
            // Only files have content, whatever the header of something else claims.
            size: if kind == Kind::File { size } else { 0 },
            device: match kind {
                Kind::Char | Kind::Block => (number(self.field(329, 8))? as u32, number(self.field(337, 8))? as u32),
                _ => (0, 0),
            },
            xattrs: pax
                .iter()
                .filter_map(|(key, value)| Some((key.strip_prefix(b"SCHILY.xattr.")?.to_vec(), value.clone())))
                .collect(),
            path,
            link,
        })
    }

    /// The name from the header itself, with ustar's prefix.
    fn path(&self) -> Vec<u8> {
        let name = until_nul(self.field(0, 100));
        let prefix = until_nul(self.field(345, 155));
        match (self.field(257, 6), prefix) {
            (b"ustar\0", prefix) if !prefix.is_empty() => [prefix, b"/", name].concat(),
            _ => name.to_vec(),
        }
    }
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or(field)
}

/// An octal number, or GNU's big-endian binary one where the first bit is set.
fn number(field: &[u8]) -> io::Result<u64> {
    if field[0] & 0x80 != 0 {
        if field[0] & 0x40 != 0 {
            return Err(invalid("a number in a header is negative"));
        }
        let first = u64::from(field[0] & 0x3f);
        return field[1..].iter().try_fold(first, |sum, byte| {
            let shifted = sum.checked_mul(256).ok_or_else(|| invalid("a number in a header is out of range"))?;
            Ok(shifted | u64::from(*byte))
        });
    }
    let digits = until_nul(field).trim_ascii();
    digits.iter().try_fold(0_u64, |sum, byte| match byte {
        b'0'..=b'7' => {
            let shifted = sum.checked_mul(8).ok_or_else(|| invalid("a number in a header is out of range"))?;
            Ok(shifted | u64::from(byte - b'0'))
        }
        _ => Err(invalid("a number in a header is malformed")),
    })
}

/// Records of the form `LENGTH KEY=VALUE\n`, LENGTH counting all of it.
fn parse_pax(mut content: &[u8]) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let malformed = || invalid("a PAX header is malformed");
    let mut records = BTreeMap::new();
    while !content.is_empty() {
        let space = content.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
        let length = parse_decimal("length", &content[..space]).map_err(|_| malformed())? as usize;
        if length <= space + 1 || length > content.len() || content[length - 1] != b'\n' {
            return Err(malformed());
        }
        let record = &content[space + 1..length - 1];
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
        records.insert(record[..equals].to_vec(), record[equals + 1..].to_vec());
        content = &content[length..];
    }
    Ok(records)
}

fn parse_decimal(key: &str, value: &[u8]) -> io::Result<u64> {
    let parsed = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
    parsed.ok_or_else(|| invalid(format!("the PAX record {key} is malformed")))
}

/// `seconds[.fraction]`, possibly negative.
fn parse_time(value: &[u8]) -> io::Result<(i64, i64)> {
    let malformed = || invalid("the PAX record mtime is malformed");
    let text = std::str::from_utf8(value).map_err(|_| malformed())?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let whole: i64 = seconds.parse().map_err(|_| malformed())?;
    if !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(malformed());
    }
    let nanos: i64 = format!("{:0<9}", &fraction[..fraction.len().min(9)]).parse().map_err(|_| malformed())?;
    match seconds.starts_with('-') && nanos > 0 {
        true => Ok((whole - 1, 1_000_000_000 - nanos)),
        false => Ok((whole, nanos)),
    }
}

fn invalid(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

fn truncated(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is truncated"),
        _ => error,
    }
}

#[cfg(test)]
mod tests;
