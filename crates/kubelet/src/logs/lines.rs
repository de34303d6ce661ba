//! Lines of a log file.

use std::io::{self, SeekFrom};

use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// A line, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub timestamp: &'a [u8],
    pub stream: &'a [u8],
    /// The text goes on in the next line.
    pub partial: bool,
    /// Without the line's end.
    pub text: &'a [u8],
}

impl<'a> Line<'a> {
    /// `None` for what no runtime writes.
    pub(super) fn parse(line: &'a [u8]) -> Option<Line<'a>> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (timestamp, stream, tags) = (parts.next()?, parts.next()?, parts.next()?);
        let partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
        Some(Line { timestamp, stream, partial, text: parts.next().unwrap_or_default() })
    }

    pub(super) fn time(&self) -> Option<Timestamp> {
        std::str::from_utf8(self.timestamp).ok()?.parse().ok()
    }
}

/// Where the last `wanted` lines of the file begin.
pub(super) async fn tail_offset(file: &mut File, wanted: u64) -> io::Result<u64> {
    const BLOCK: u64 = 64 * 1024;
    let mut end = file.seek(SeekFrom::End(0)).await?;
    if wanted == 0 {
        return Ok(end);
    }
    let mut found = 0;
    let last = end.saturating_sub(1);
    let mut block = Vec::new();
    while end > 0 {
        let start = end.saturating_sub(BLOCK);
        block.resize((end - start) as usize, 0);
        file.seek(SeekFrom::Start(start)).await?;
        file.read_exact(&mut block).await?;
        // The very last byte ends the last line and begins none.
        let ends = block.iter().enumerate().rev().filter(|(i, byte)| **byte == b'\n' && start + *i as u64 != last);
        for (i, _) in ends {
            found += 1;
            if found == wanted {
                return Ok(start + i as u64 + 1);
            }
        }
        end = start;
    }
    Ok(0)
}
