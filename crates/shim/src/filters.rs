//! The file that carries system call filters from the daemon, which compiles them, to the process that installs them.
//!
//! Per filter: the number of instructions (four bytes), then eight bytes each, all in this machine's byte order. The file is made
//! and read by the same machine within one boot.

use std::io;
use std::path::Path;

use linux::process::FilterInstruction;

/// Writes `filters` to `path`; they are installed in this order.
pub fn save(filters: &[Vec<FilterInstruction>], path: &Path) -> io::Result<()> {
    std::fs::write(path, encode(filters))
}

fn encode(filters: &[Vec<FilterInstruction>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for filter in filters {
        bytes.extend((filter.len() as u32).to_ne_bytes());
        bytes.extend(filter.iter().flat_map(|instruction| instruction.to_bytes()));
    }
    bytes
}

/// Reads the filters in `path`.
pub fn load(path: &Path) -> io::Result<Vec<Vec<FilterInstruction>>> {
    decode(&std::fs::read(path)?)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "broken system call filter file"))
}

fn decode(mut bytes: &[u8]) -> Option<Vec<Vec<FilterInstruction>>> {
    let mut filters = Vec::new();
    while !bytes.is_empty() {
        let (len, rest) = bytes.split_first_chunk::<4>()?;
        let (mut body, rest) = rest.split_at_checked(u32::from_ne_bytes(*len) as usize * 8)?;
        let mut filter = Vec::with_capacity(body.len() / 8);
        while let Some((instruction, rest)) = body.split_first_chunk::<8>() {
            filter.push(FilterInstruction::from_bytes(*instruction));
            body = rest;
        }
        filters.push(filter);
        bytes = rest;
    }
    Some(filters)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_survive_their_file_and_broken_ones_are_refused() {
        let one = FilterInstruction { code: 6, jt: 0, jf: 0, k: 0x7fff_0000 };
        let filters = vec![vec![one], vec![one, one]];
        let bytes = encode(&filters);
        assert_eq!(decode(&bytes), Some(filters));
        assert_eq!(decode(&bytes[..bytes.len() - 1]), None);
    }
}
