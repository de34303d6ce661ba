//! Content digests: what a blob, a layer or an image is called.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256, Sha512};

/// A digest as OCI writes it: `sha256:` and 64, or `sha512:` and 128 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(Value);

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Value {
    Sha256([u8; 32]),
    Sha512([u8; 64]),
}

/// Not a digest this store understands.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid or unsupported digest {0:?}")]
pub struct DigestError(pub String);

impl Digest {
    /// The sha256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Value::Sha256(Sha256::digest(bytes).into()))
    }

    /// The digest of `bytes` by the algorithm of this one.
    pub fn like(&self, bytes: &[u8]) -> Digest {
        match self.0 {
            Value::Sha256(_) => Digest::of(bytes),
            Value::Sha512(_) => Digest(Value::Sha512(Sha512::digest(bytes).into())),
        }
    }

    /// What it is called before the colon.
    pub fn algorithm(&self) -> &'static str {
        match self.0 {
            Value::Sha256(_) => "sha256",
            Value::Sha512(_) => "sha512",
        }
    }

    /// The hexadecimal digits alone: the name of a file or folder.
    pub fn hex(&self) -> String {
        let bytes: &[u8] = match &self.0 {
            Value::Sha256(bytes) => bytes,
            Value::Sha512(bytes) => bytes,
        };
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The digest whose digits are `hex`; how many there are tells the algorithm.
    pub fn from_hex(hex: &str) -> Result<Digest, DigestError> {
        let error = || DigestError(hex.to_owned());
        let value = match hex.len() {
            64 => Value::Sha256(bytes(hex).ok_or_else(error)?),
            128 => Value::Sha512(bytes(hex).ok_or_else(error)?),
            _ => return Err(error()),
        };
        Ok(Digest(value))
    }
}

fn bytes<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm(), self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let error = || DigestError(text.to_owned());
        let (algorithm, hex) = text.split_once(':').ok_or_else(error)?;
        let digest = Digest::from_hex(hex).map_err(|_| error())?;
        if digest.algorithm() == algorithm { Ok(digest) } else { Err(error()) }
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Digest, DigestError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

/// Hashes and counts what passes through it, read or written.
pub(crate) struct Hashing<T> {
    inner: T,
    hasher: Hasher,
    bytes: u64,
}

enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    fn update(&mut self, bytes: &[u8]) {
        match self {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
    }
}

impl<T> Hashing<T> {
    /// By sha256.
    pub(crate) fn new(inner: T) -> Hashing<T> {
        Hashing { inner, hasher: Hasher::Sha256(Sha256::new()), bytes: 0 }
    }

    /// By the algorithm of what is expected.
    pub(crate) fn expecting(inner: T, expected: Digest) -> Hashing<T> {
        match expected.0 {
            Value::Sha256(_) => Hashing::new(inner),
            Value::Sha512(_) => Hashing { inner, hasher: Hasher::Sha512(Sha512::new()), bytes: 0 },
        }
    }

    /// How many bytes have passed.
    pub(crate) fn count(&self) -> u64 {
        self.bytes
    }

    /// What was passed through, the digest and the number of bytes.
    pub(crate) fn finish(self) -> (T, Digest, u64) {
        let value = match self.hasher {
            Hasher::Sha256(hasher) => Value::Sha256(hasher.finalize().into()),
            Hasher::Sha512(hasher) => Value::Sha512(hasher.finalize().into()),
        };
        (self.inner, Digest(value), self.bytes)
    }
}

impl<T: Read> Read for Hashing<T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }
}

impl<T: Write> Write for Hashing<T> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buffer)?;
        self.hasher.update(&buffer[..n]);
        self.bytes += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_strict() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").to_string(), empty);
        assert_eq!(empty.parse(), Ok(Digest::of(b"")));
        let long = format!("sha512:{}", "0a".repeat(64));
        let digest: Digest = long.parse().unwrap();
        assert_eq!((digest.to_string(), digest.algorithm()), (long.clone(), "sha512"));
        assert!(digest.like(b"").hex().starts_with("cf83e1357eefb8bdf1542850d66d8007"));
        let crossed = long.replace("sha512", "sha256");
        for bad in
            ["", "sha256:", "sha512:00", &crossed, &empty.to_uppercase(), &empty[..70], "sha256:../../../../etc/passwd"]
        {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hashing_sees_what_passes() {
        let mut reader = Hashing::new(&b"abc"[..]);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!(reader.finish().1, Digest::of(b"abc"));
        let expected = Digest::from_hex(&"00".repeat(64)).unwrap().like(b"abc");
        let mut reader = Hashing::expecting(&b"abc"[..], expected);
        io::copy(&mut reader, &mut io::sink()).unwrap();
        assert_eq!(reader.finish().1, expected);
    }
}
