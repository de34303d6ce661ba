//! RFC 6902, with the leniences of the library upstream uses: an index may be negative (counted from the end), an absent
//! `value` is null, and testing an absent member against null succeeds.

use super::PatchError;
use crate::Value;

const MAX_OPERATIONS: usize = 10_000;
/// All `copy` operations of a patch together may add as much as a request may hold.
const MAX_COPIED: usize = 3 * 1024 * 1024;
/// Patched documents stay as shallow as parsed ones must be.
const MAX_DEPTH: usize = 120;

/// A decoded JSON patch.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPatch {
    operations: Vec<Operation>,
}

#[derive(Clone, Debug, PartialEq)]
struct Operation {
    kind: String,
    path: Option<String>,
    from: Option<String>,
    value: Value,
}

impl JsonPatch {
    pub fn decode(patch: Value) -> Result<JsonPatch, PatchError> {
        let mismatch = |value: &Value, of: &str| {
            let found = value.type_name();
            PatchError::Malformed(format!("error decoding patch: json: cannot unmarshal {found} into Go {of}"))
        };
        let Value::Array(items) = patch else {
            return Err(mismatch(&patch, "value of type []handlers.jsonPatchOp"));
        };
        if items.len() > MAX_OPERATIONS {
            return Err(PatchError::TooManyOperations { max: MAX_OPERATIONS, actual: items.len() });
        }
        let decode = |mut item: Value| {
            if item.as_object().is_none() {
                return Err(mismatch(&item, "value of type handlers.jsonPatchOp"));
            }
            let mut text = |key: &str| match item.remove(&[key]) {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(text)) => Ok(Some(text)),
                Some(other) => Err(mismatch(&other, &format!("struct field jsonPatchOp.{key} of type string"))),
            };
            let (kind, path, from) =
                (text("op")?.unwrap_or_else(|| "unknown".to_owned()), text("path")?, text("from")?);
            Ok(Operation { kind, path, from, value: item.remove(&["value"]).unwrap_or_default() })
        };
        Ok(JsonPatch { operations: items.into_iter().map(decode).collect::<Result<_, _>>()? })
    }

    /// The document after all operations, or the first that fails.
    pub fn apply(&self, mut document: Value) -> Result<Value, PatchError> {
        let mut copied = 0;
        for operation in &self.operations {
            operation.apply(&mut document, &mut copied).map_err(PatchError::NotApplicable)?;
        }
        Ok(document)
    }
}

impl Operation {
    fn apply(&self, document: &mut Value, copied: &mut usize) -> Result<(), String> {
        let kind = self.kind.as_str();
        if !matches!(kind, "add" | "remove" | "replace" | "move" | "test" | "copy") {
            return Err(format!("Unexpected kind: {kind}"));
        }
        let path = Pointer::read(self.path.as_deref(), kind, "path")?;
        match kind {
            "add" => path.add(document, self.value.clone()),
            "remove" => path.remove(document).map(drop),
            "replace" => {
                *path.find_mut(document)? = path.fitting(self.value.clone())?;
                Ok(())
            }
            "test" => match path.find(document) {
                Some(found) if *found == self.value => Ok(()),
                None if self.value.is_null() && path.parent_exists(document) => Ok(()),
                _ => Err(format!("testing value {} failed: test failed", path.text)),
            },
            "move" => {
                let from = Pointer::read(self.from.as_deref(), kind, "from")?;
                let value = from.remove(document)?;
                path.add(document, value)
            }
            _ => {
                let from = Pointer::read(self.from.as_deref(), kind, "from")?;
                let value = from.find(document).ok_or_else(|| from.missing())?.clone();
                *copied += value.to_json().len();
                if *copied > MAX_COPIED {
                    return Err(format!(
                        "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit \
                         {MAX_COPIED}"
                    ));
                }
                path.add(document, value)
            }
        }
    }
}

/// A JSON pointer (RFC 6901) and the operation it belongs to, for error messages.
struct Pointer<'a> {
    text: &'a str,
    operation: &'a str,
    steps: Vec<String>,
}

impl<'a> Pointer<'a> {
    fn read(text: Option<&'a str>, operation: &'a str, member: &str) -> Result<Pointer<'a>, String> {
        let text = text.ok_or_else(|| format!("{operation} operation failed to decode {member}: missing value"))?;
        let steps = match text.strip_prefix('/') {
            Some(rest) => rest.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect(),
            None if text.is_empty() => Vec::new(),
            None => {
                return Err(format!(
                    "{operation} operation does not apply: doc is missing path: {text:?}: missing value"
                ));
            }
        };
        Ok(Pointer { text, operation, steps })
    }

    fn missing(&self) -> String {
        format!("{} operation does not apply: doc is missing path: {:?}: missing value", self.operation, self.text)
    }

    fn find<'v>(&self, document: &'v Value) -> Option<&'v Value> {
        self.steps.iter().try_fold(document, |value, step| match value {
            Value::Object(map) => map.get(step),
            Value::Array(items) => items.get(position(step, items.len())?),
            _ => None,
        })
    }

    fn find_mut<'v>(&self, document: &'v mut Value) -> Result<&'v mut Value, String> {
        walk(document, &self.steps).ok_or_else(|| self.missing())
    }

    fn parent_exists(&self, document: &Value) -> bool {
        let parent = Pointer { steps: self.steps[..self.steps.len().saturating_sub(1)].to_vec(), ..*self };
        matches!(parent.find(document), Some(Value::Object(_)))
    }

    /// The value, if the document is not too deep with it.
    fn fitting(&self, value: Value) -> Result<Value, String> {
        if self.steps.len() + depth(&value) > MAX_DEPTH {
            return Err(format!("{} operation does not apply: the document would be too deep", self.operation));
        }
        Ok(value)
    }

    fn add(&self, document: &mut Value, value: Value) -> Result<(), String> {
        let value = self.fitting(value)?;
        let Some((last, way)) = self.steps.split_last() else {
            *document = value;
            return Ok(());
        };
        match walk(document, way) {
            Some(Value::Object(map)) => {
                map.insert(last.clone(), value);
                Ok(())
            }
            Some(Value::Array(items)) => {
                let at = if last == "-" { Some(items.len()) } else { position(last, items.len() + 1) };
                items.insert(at.ok_or_else(|| self.bad_index(last))?, value);
                Ok(())
            }
            _ => Err(self.missing()),
        }
    }

    fn remove(&self, document: &mut Value) -> Result<Value, String> {
        let Some((last, way)) = self.steps.split_last() else {
            return Err(self.missing());
        };
        match walk(document, way) {
            Some(Value::Object(map)) => map.remove(last).ok_or_else(|| {
                format!(
                    "error in remove for path: '{}': Unable to remove nonexistent key: {last}: missing value",
                    self.text
                )
            }),
            Some(Value::Array(items)) => match position(last, items.len()) {
                Some(at) => Ok(items.remove(at)),
                None => Err(self.bad_index(last)),
            },
            _ => Err(self.missing()),
        }
    }

    fn bad_index(&self, index: &str) -> String {
        format!(
            "error in {} for path: '{}': Unable to access invalid index: {index}: invalid index referenced",
            self.operation, self.text
        )
    }
}

fn walk<'v>(document: &'v mut Value, steps: &[String]) -> Option<&'v mut Value> {
    steps.iter().try_fold(document, |value, step| match value {
        Value::Object(map) => map.get_mut(step),
        Value::Array(items) => {
            let at = position(step, items.len())?;
            items.get_mut(at)
        }
        _ => None,
    })
}

/// The index `step` means among `len` items.
fn position(step: &str, len: usize) -> Option<usize> {
    let index: i64 = step.parse().ok()?;
    let len = len as i64;
    (-len..len).contains(&index).then(|| if index < 0 { index + len } else { index } as usize)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(map) => 1 + map.iter().map(|(_, member)| depth(member)).max().unwrap_or(0),
        _ => 0,
    }
}
