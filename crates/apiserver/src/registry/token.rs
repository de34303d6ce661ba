//! Continue tokens: where the next page of a list begins, and at which revision. Opaque to clients.

use apimachinery::Status;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::body::json_error;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ContinueToken {
    /// -1: whatever is newest.
    pub revision: i64,
    /// The first key of the page.
    pub start: String,
}

impl ContinueToken {
    pub(crate) fn encode(&self) -> String {
        URL_SAFE_NO_PAD.encode(json!({ "v": "meta.k8s.io/v1", "rv": self.revision, "start": self.start }).to_string())
    }

    pub(crate) fn decode(token: &str) -> Result<ContinueToken, Status> {
        let invalid =
            |why: &str| Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let json = URL_SAFE_NO_PAD.decode(token).map_err(|error| invalid(&error.to_string()))?;
        let value: Value = serde_json::from_slice(&json)
            .map_err(|error| invalid(&json_error(&json).unwrap_or_else(|| error.to_string())))?;
        match (value["v"].as_str(), value["rv"].as_i64(), value["start"].as_str()) {
            (Some("meta.k8s.io/v1"), Some(revision), Some(start)) if revision != 0 && !start.is_empty() => {
                Ok(ContinueToken { revision, start: start.to_owned() })
            }
            (Some("meta.k8s.io/v1"), ..) => {
                Err(invalid("incorrect encoded start resourceVersion (version meta.k8s.io/v1)"))
            }
            (version, ..) => Err(invalid(&format!(
                "server does not recognize this encoded version {:?}",
                version.unwrap_or_default()
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_round() {
        let token = ContinueToken { revision: 7, start: "a/b\0".into() };
        assert_eq!(ContinueToken::decode(&token.encode()), Ok(token));
        for bad in ["", "x", "e30"] {
            assert_eq!(ContinueToken::decode(bad).unwrap_err().code, 400);
        }
    }
}
