//! Named formats: `format.dns1123Label().validate(text)`, `format.named('uri')`.

use std::rc::Rc;

use apimachinery::validation as v;
use base64::Engine;

use super::opaque::Opaque;
use crate::error::no_overload;
use crate::eval::Outcome;
use crate::value::Value;

pub struct NamedFormat {
    pub(crate) name: &'static str,
    check: fn(&str) -> Vec<String>,
}

static FORMATS: [NamedFormat; 13] = [
    NamedFormat { name: "dns1123Label", check: v::dns1123_label },
    NamedFormat { name: "dns1123Subdomain", check: v::dns1123_subdomain },
    NamedFormat { name: "dns1035Label", check: v::dns1035_label },
    NamedFormat { name: "qualifiedName", check: v::qualified_name },
    NamedFormat { name: "dns1123LabelPrefix", check: |text| v::dns1123_label(&prefix(text)) },
    NamedFormat { name: "dns1123SubdomainPrefix", check: |text| v::dns1123_subdomain(&prefix(text)) },
    NamedFormat { name: "dns1035LabelPrefix", check: |text| v::dns1035_label(&prefix(text)) },
    NamedFormat { name: "labelValue", check: v::label_value },
    NamedFormat { name: "uri", check: uri },
    NamedFormat { name: "uuid", check: uuid },
    NamedFormat { name: "byte", check: byte },
    NamedFormat { name: "date", check: date },
    NamedFormat { name: "datetime", check: datetime },
];

impl NamedFormat {
    pub(crate) fn problems(&self, text: &str) -> Vec<String> {
        (self.check)(text)
    }
}

/// `format.NAME()` and `format.named(NAME)`.
pub(super) fn lookup<'a>(function: &str, args: &[Value<'a>]) -> Outcome<'a> {
    let find = |name: &str| FORMATS.iter().find(|format| format.name == name);
    match (function, args) {
        ("named", [Value::String(name)]) => {
            Ok(Value::Optional(find(name).map(|format| Rc::new(Value::Opaque(Opaque::Format(format))))))
        }
        (name, []) => find(name).map_or_else(no_overload, |format| Ok(Value::Opaque(Opaque::Format(format)))),
        _ => no_overload(),
    }
}

/// A prefix may end with a dash: what follows completes it.
fn prefix(text: &str) -> String {
    match text.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => format!("{rest}a"),
        _ => text.to_owned(),
    }
}

fn uri(text: &str) -> Vec<String> {
    let own = |why: String| why.trim_start_matches("URL parse error during conversion from string: ").to_owned();
    super::url::Url::parse(text).err().map(own).into_iter().collect()
}

fn uuid(text: &str) -> Vec<String> {
    let shape = [8, 4, 4, 4, 12];
    let dashed: Vec<&str> = text.split('-').collect();
    let parts_fit = dashed.len() == 5 && dashed.iter().zip(shape).all(|(part, len)| part.len() == len);
    let plain = text.replace('-', "");
    let hex = plain.len() == 32 && plain.bytes().all(|b| b.is_ascii_hexdigit());
    if hex && (parts_fit || dashed.len() == 1) { Vec::new() } else { vec!["does not match the UUID format".to_owned()] }
}

fn byte(text: &str) -> Vec<String> {
    match base64::engine::general_purpose::STANDARD.decode(text) {
        Ok(_) => Vec::new(),
        Err(_) => vec!["invalid base64".to_owned()],
    }
}

fn date(text: &str) -> Vec<String> {
    let day = text.parse::<jiff::civil::Date>().is_ok() && text.len() == 10;
    if day { Vec::new() } else { vec!["invalid date".to_owned()] }
}

fn datetime(text: &str) -> Vec<String> {
    if apimachinery::parse_time(text).is_some() { Vec::new() } else { vec!["invalid datetime".to_owned()] }
}
