//! A container's log, from the file that the runtime writes: lines of `<RFC 3339 time> <stream> <P|F> <text>`.
//! Upstream: cri-client pkg/logs.

mod follow;
mod lines;
pub(crate) mod rotate;

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};
use std::pin::Pin;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::{self, BoxStream, StreamExt};
use jiff::Timestamp;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use follow::Changes;
use lines::{Line, tail_offset};

/// What part of a log is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on until the container has ended.
    pub follow: bool,
    /// Each line with its time.
    pub timestamps: bool,
    pub since: Option<Timestamp>,
    /// The last so many lines.
    pub tail_lines: Option<u64>,
    /// At most so many bytes.
    pub limit_bytes: Option<u64>,
    /// `Some("stdout")` or `Some("stderr")`: that stream alone.
    pub stream: Option<String>,
}

/// How much is read at once.
const CHUNK: usize = 64 * 1024;

/// The wanted part of the log at `path`. With `follow` it goes on until `ended` is ready and everything written before has been
/// told; rotation is followed.
pub async fn read(
    path: &Path,
    options: LogOptions,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
    let changes = if options.follow { Some(Changes::of(path)?) } else { None };
    let mut file = File::open(path).await?;
    if let Some(wanted) = options.tail_lines {
        let offset = tail_offset(&mut file, wanted).await?;
        file.seek(SeekFrom::Start(offset)).await?;
    }
    let left = options.limit_bytes.unwrap_or(u64::MAX);
    let reader =
        Reader { path: path.to_owned(), file, pending: Vec::new(), options, left, changes, ended, over: false };
    Ok(stream::unfold(reader, |mut reader| async move {
        let next = reader.next().await.transpose()?;
        if next.is_err() {
            reader.left = 0;
        }
        Some((next, reader))
    })
    .boxed())
}

struct Reader {
    path: PathBuf,
    file: File,
    /// The beginning of a line whose end is not written yet.
    pending: Vec<u8>,
    options: LogOptions,
    left: u64,
    changes: Option<Changes>,
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// The container has ended: what is in the file is all.
    over: bool,
}

impl Reader {
    /// The next bytes to tell; `None` at the end.
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while self.left > 0 {
            let start = self.pending.len();
            self.pending.resize(start + CHUNK, 0);
            let n = self.file.read(&mut self.pending[start..]).await?;
            self.pending.truncate(start + n);
            if n > 0 {
                let out = self.take_lines();
                if !out.is_empty() {
                    return Ok(Some(out));
                }
                continue;
            }
            let Some(changes) = &mut self.changes else { return Ok(None) };
            if changes.rotated() {
                self.file = open_new(&self.path).await?;
                self.changes = Some(Changes::of(&self.path)?);
                self.pending.clear();
                continue;
            }
            if self.over {
                return Ok(None);
            }
            tokio::select! {
                changed = changes.wait() => changed?,
                () = &mut self.ended => self.over = true,
            }
        }
        Ok(None)
    }

    /// The complete lines of `pending`, as they are told.
    fn take_lines(&mut self) -> Bytes {
        let Some(end) = self.pending.iter().rposition(|byte| *byte == b'\n') else { return Bytes::new() };
        let rest = self.pending.split_off(end + 1);
        let complete = std::mem::replace(&mut self.pending, rest);
        let mut out = Vec::with_capacity(complete.len());
        for line in complete.split_inclusive(|byte| *byte == b'\n').filter_map(Line::parse) {
            let other_stream = self.options.stream.as_deref().is_some_and(|wanted| wanted.as_bytes() != line.stream);
            if other_stream || self.options.since.is_some_and(|since| line.time().is_some_and(|time| time < since)) {
                continue;
            }
            if self.options.timestamps {
                out.extend_from_slice(line.timestamp);
                out.push(b' ');
            }
            out.extend_from_slice(line.text);
            if !line.partial {
                out.push(b'\n');
            }
        }
        out.truncate(usize::try_from(self.left).unwrap_or(usize::MAX));
        self.left -= out.len() as u64;
        out.into()
    }
}

/// After a rotation the new file may come a moment after the old one went.
async fn open_new(path: &Path) -> io::Result<File> {
    match File::open(path).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut changes = Changes::of_folder(path)?;
            loop {
                match File::open(path).await {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => changes.wait().await?,
                    result => return result,
                }
            }
        }
        result => result,
    }
}

/// Reads a whole stream; for answers that aren't streamed.
pub async fn collect(mut log: impl Stream<Item = io::Result<Bytes>> + Unpin) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    while let Some(part) = log.next().await {
        all.extend_from_slice(&part?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests;
