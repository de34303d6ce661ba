//! What types and fields are for. Kept compressed; unpacked while a document is written.

use std::collections::HashMap;
use std::io::Read;
use std::ops::Range;

use flate2::read::DeflateDecoder;

static COMPRESSED: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptions.deflate"));

pub(super) struct Descriptions {
    text: String,
    /// Where each type's block lies in the text.
    blocks: HashMap<String, Range<usize>>,
}

impl Descriptions {
    pub(super) fn unpack() -> Descriptions {
        let mut text = String::new();
        // The build script made it, so it unpacks; without descriptions a document is still right.
        let _ = DeflateDecoder::new(COMPRESSED).read_to_string(&mut text);
        let mut blocks = HashMap::new();
        let mut at = 0;
        for block in text.split_inclusive('\n').collect::<Vec<_>>().chunk_by(|_, line| !line.starts_with('=')) {
            let len: usize = block.iter().map(|line| line.len()).sum();
            if let Some((name, _)) = block[0].strip_prefix('=').and_then(|line| line.split_once('\t')) {
                blocks.insert(name.to_owned(), at..at + len);
            }
            at += len;
        }
        Descriptions { text, blocks }
    }

    /// By field; the type's own under the empty name.
    pub(super) fn of(&self, ty: &str) -> HashMap<&str, String> {
        let Some(range) = self.blocks.get(ty) else { return HashMap::new() };
        let block = &self.text[range.clone()];
        let mut lines = block.lines();
        let own = lines.next().and_then(|line| line.split_once('\t')).map(|(_, text)| ("", text));
        own.into_iter()
            .chain(lines.filter_map(|line| line.split_once('\t')))
            .filter(|(_, text)| !text.is_empty())
            .filter_map(|(name, text)| Some((name, serde_json::from_str(&format!("\"{text}\"")).ok()?)))
            .collect()
    }
}
