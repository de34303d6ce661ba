//! Container logs in the CRI format: `<time> <stream> <P or F> <text>`, a line each.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A longer line is written in parts (upstream: containerd's `max_container_log_line_size`).
const MAX_LINE: usize = 16 * 1024;

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    fn name(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// A container's log file.
pub(crate) struct Log {
    path: PathBuf,
    file: File,
}

impl Log {
    pub(crate) fn open(path: &Path) -> io::Result<Log> {
        Ok(Log { path: path.to_owned(), file: open(path)? })
    }

    /// Goes on in a new file, after somebody moved the old one away.
    pub(crate) fn reopen(&mut self) -> io::Result<()> {
        self.file = open(&self.path)?;
        Ok(())
    }

    /// Writes lines made by [`Lines`]. A full disk loses lines rather than stopping the container.
    pub(crate) fn write(&mut self, lines: &[u8]) {
        let mut left = lines;
        while !left.is_empty() {
            match self.file.write(left) {
                Ok(0) => break,
                Ok(written) => left = &left[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let written = &lines[..lines.len() - left.len()];
        let torn = written.len() - written.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        if torn > 0
            && let Ok(file) = self.file.metadata()
        {
            // Half a line would spoil the next one that finds room.
            let _ = self.file.set_len(file.len().saturating_sub(torn as u64));
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o640).open(path)
}

/// Cuts one stream into lines.
pub(crate) struct Lines {
    stream: Stream,
    /// The beginning of a line whose end has not come yet.
    partial: Vec<u8>,
}

impl Lines {
    pub(crate) fn new(stream: Stream) -> Lines {
        Lines { stream, partial: Vec::new() }
    }

    /// The log lines that `data` completes, stamped with `time`.
    pub(crate) fn take(&mut self, data: &[u8], time: &str) -> Vec<u8> {
        let mut out = Vec::new();
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            self.partial.extend_from_slice(text);
            let mut rest = &self.partial[..];
            while rest.len() > MAX_LINE {
                line(&mut out, time, self.stream, b'P', &rest[..MAX_LINE]);
                rest = &rest[MAX_LINE..];
            }
            if ends {
                line(&mut out, time, self.stream, b'F', rest);
                self.partial.clear();
            } else if rest.len() < self.partial.len() {
                self.partial = rest.to_vec();
            }
        }
        if self.partial.is_empty() {
            // Kept small: a shim holds this for as long as its container lives.
            self.partial = Vec::new();
        }
        out
    }

    /// What is left when the stream ends.
    pub(crate) fn finish(&mut self, time: &str) -> Vec<u8> {
        let mut out = Vec::new();
        let rest = std::mem::take(&mut self.partial);
        if !rest.is_empty() {
            line(&mut out, time, self.stream, b'P', &rest);
        }
        out
    }
}

fn line(out: &mut Vec<u8>, time: &str, stream: Stream, tag: u8, text: &[u8]) {
    out.extend_from_slice(time.as_bytes());
    out.push(b' ');
    out.extend_from_slice(stream.name().as_bytes());
    out.extend_from_slice(&[b' ', tag, b' ']);
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// `2026-11-21T12:00:00.123456789Z`.
pub(crate) fn stamp(nanoseconds: i64) -> String {
    let (seconds, fraction) = (nanoseconds.div_euclid(1_000_000_000), nanoseconds.rem_euclid(1_000_000_000));
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // Days to a date of the Gregorian calendar, in years that begin in March.
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_upstream_reads_them() {
        let check = |nanoseconds: i64, expect: &str| assert_eq!(stamp(nanoseconds), expect);
        check(0, "1970-01-01T00:00:00.000000000Z");
        check(951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z");
        check(1_767_225_599_999_999_999, "2025-12-31T23:59:59.999999999Z");
        check(4_107_542_399_000_000_000, "2100-02-28T23:59:59.000000000Z");
    }

    #[test]
    fn streams_become_lines() {
        let check = |chunks: &[&str], expect: &str| {
            let mut lines = Lines::new(Stream::Stdout);
            let mut out = Vec::new();
            for chunk in chunks {
                out.extend(lines.take(chunk.as_bytes(), "T"));
            }
            out.extend(lines.finish("T"));
            assert_eq!(String::from_utf8(out).unwrap(), expect);
        };
        check(&["a\nb\n"], "T stdout F a\nT stdout F b\n");
        check(&["a", "b", "\n"], "T stdout F ab\n");
        check(&["\n\n"], "T stdout F \nT stdout F \n");
        check(&["a\nrest"], "T stdout F a\nT stdout P rest\n");
        let long = "x".repeat(MAX_LINE);
        check(&[&long, "\n"], &format!("T stdout F {long}\n"));
        check(&[&long, "yz\n"], &format!("T stdout P {long}\nT stdout F yz\n"));
        check(&[&format!("{long}{long}z\n")], &format!("T stdout P {long}\nT stdout P {long}\nT stdout F z\n"));
    }
}
