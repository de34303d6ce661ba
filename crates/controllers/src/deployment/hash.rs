//! The hash that tells a Deployment's ReplicaSets apart.

use apimachinery::Value;

pub(super) const HASH_LABEL: &str = "pod-template-hash";

/// Letters and digits that spell no words.
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Stable for a template; `collisions` makes another after two templates hashed alike.
///
/// Upstream hashes a dump of Go structures, which nobody else can: only the form is the same. Sets that upstream named are
/// found by their templates, not by their hashes.
pub(super) fn hash(template: &Value, collisions: Option<i64>) -> String {
    let mut bytes = super::view::comparable(template).to_json();
    if let Some(collisions) = collisions {
        bytes.extend_from_slice(&(collisions as u32).to_le_bytes());
    }
    // FNV-1a.
    let sum = bytes.iter().fold(0x811c_9dc5_u32, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    safe_encode(&sum.to_string())
}

/// Upstream: apimachinery pkg/util/rand SafeEncodeString.
fn safe_encode(text: &str) -> String {
    text.bytes().map(|byte| ALPHABET[usize::from(byte) % ALPHABET.len()] as char).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_stable_and_differ() {
        let template = Value::parse(br#"{"metadata":{"labels":{"a":"b"}}}"#).unwrap();
        let labelled = Value::parse(br#"{"metadata":{"labels":{"a":"b","pod-template-hash":"x"}}}"#).unwrap();
        assert_eq!(hash(&template, None), hash(&labelled, None));
        assert_ne!(hash(&template, None), hash(&template, Some(1)));
        assert!(hash(&template, None).bytes().all(|byte| ALPHABET.contains(&byte)));
        assert_eq!(safe_encode("0123456789"), "456789bcdf");
    }
}
