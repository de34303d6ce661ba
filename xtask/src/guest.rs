//! What this program does inside of an emulated machine: writes, acknowledges on standard output, and after a power cut says what is
//! there. The other half, which compares, is `powercut`.

pub mod cluster;
pub mod store;

use std::io::Write;

use anyhow::{Result, bail};

/// What one writer wrote at its step `n`: the same on each side, without asking.
pub fn content(writer: u32, n: u64) -> String {
    let mut rng = fastrand::Rng::with_seed(u64::from(writer) << 40 | n);
    let length = if rng.u8(0..16) == 0 { rng.usize(0..30_000) } else { rng.usize(1..900) };
    let tail = std::iter::repeat_with(|| rng.alphanumeric()).take(length);
    format!("{writer} {n} ").chars().chain(tail).collect()
}

/// The writer and step of what [`content`] gave; `None` if it isn't whole.
pub fn read_content(text: &str) -> Option<(u32, u64)> {
    let mut words = text.split(' ');
    let (writer, n) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    (content(writer, n) == text).then_some((writer, n))
}

/// One line to the world outside, whole.
pub fn say(line: &str) -> Result<()> {
    Ok(std::io::stdout().write_all(format!("{line}\n").as_bytes())?)
}

/// `guest store FOLDER` or `guest cluster REVISION ROUND`.
pub fn run(args: &[&str]) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        match args {
            ["store", folder] => store::run(folder).await,
            ["cluster", revision, round] => cluster::run(revision.parse()?, round.parse()?).await,
            _ => bail!("guest store FOLDER | guest cluster REVISION ROUND"),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_tells_where_it_comes_from() {
        for n in 0..100 {
            assert_eq!(read_content(&content(3, n)), Some((3, n)));
        }
        let mut torn = content(3, 7);
        torn.pop();
        assert_eq!(read_content(&torn), None);
        assert_eq!(read_content(""), None);
    }
}
