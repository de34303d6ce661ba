//! Plain, gzip and zstd, told apart by their first bytes, as media types lie.

use std::io::{self, BufRead, BufReader, Read};

/// How much memory one zstd frame may ask for (2^27 bytes, zstd's own default).
const ZSTD_WINDOW_LOG: u32 = 27;

/// A reader of what `reader` holds when decompressed.
pub(crate) fn decompress<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(128 << 10, reader);
    let mut start = reader.fill_buf()?;
    if start.len() < 4 {
        // A short first read says nothing; ask until four bytes are there or the stream ends.
        let mut head = Vec::new();
        (&mut reader).take(4).read_to_end(&mut head)?;
        let rest = io::Cursor::new(head.clone()).chain(reader);
        return by_magic(&head, BufReader::with_capacity(128 << 10, rest));
    }
    start = &start[..4];
    let magic = start.to_vec();
    by_magic(&magic, reader)
}

fn by_magic<'a>(magic: &[u8], reader: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(reader)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        _ => Box::new(reader),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// Gives one byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let n = self.0.len().min(buffer.len()).min(1);
            buffer[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn kinds_are_told_by_their_first_bytes() {
        let text = b"something to compress".repeat(10);
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&text).unwrap();
        let zstd = zstd::encode_all(&text[..], 1).unwrap();
        for packed in [text.clone(), gzip.finish().unwrap(), zstd] {
            let mut fast = Vec::new();
            decompress(&packed[..]).unwrap().read_to_end(&mut fast).unwrap();
            assert_eq!(fast, text);
            let mut slow = Vec::new();
            decompress(Slow(&packed)).unwrap().read_to_end(&mut slow).unwrap();
            assert_eq!(slow, text);
        }
        for short in [&b""[..], b"a", b"\x1f"] {
            let mut out = Vec::new();
            decompress(short).unwrap().read_to_end(&mut out).unwrap();
            assert_eq!(out, short);
        }
    }
}
