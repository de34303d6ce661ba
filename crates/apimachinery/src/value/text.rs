//! Texts of JSON, eight bytes at a time: nearly all of them hold nothing that needs an escape.

/// How many bytes come before the first that JSON escapes in a text: a quote, a backslash, or less than a space.
pub(super) fn plain_length(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (at, word) in words.iter().enumerate() {
        let special = special_bytes(u64::from_le_bytes(*word));
        if special != 0 {
            return at * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..0x20);
    bytes.len() - rest.len() + rest.iter().position(special).unwrap_or(rest.len())
}

/// The highest bit of the first special byte of a word, and perhaps of later ones.
fn special_bytes(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHEST: u64 = 0x80 * ONES;
    let below = |word: u64, bound: u64| word.wrapping_sub(bound * ONES) & !word & HIGHEST;
    let equal = |byte: u8| below(word ^ (u64::from(byte) * ONES), 1);
    below(word, 0x20) | equal(b'"') | equal(b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_special_byte_is_found() {
        let check = |text: &str, expect: usize| assert_eq!(plain_length(text.as_bytes()), expect, "{text:?}");
        check("", 0);
        check("abc", 3);
        check("0123456789abcdef", 16);
        check("0123456789abcdefg\"", 17);
        for special in ['"', '\\', '\n', '\0', '\u{1f}'] {
            for at in 0..20 {
                let text = format!("{}{special}\u{1}\"ü", "x".repeat(at));
                check(&text, at);
            }
        }
        for plain in [' ', '!', '#', '[', ']', '\u{7f}', 'ü', '漢', '\u{10ffff}'] {
            let text = plain.to_string().repeat(9);
            check(&text, text.len());
        }
    }
}
