//! Semantic versions. Upstream: `blang/semver/v4`, as the library `semver` calls it.

use std::cmp::Ordering;

#[derive(Clone, Debug)]
pub struct Version {
    pub major: u64,
    pub minor: u64,
    pub patch: u64,
    pre: Vec<Identifier>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Identifier {
    Number(u64),
    Text(String),
}

impl Version {
    /// `normalize` takes a `v` in front, leading zeros and missing parts.
    pub(crate) fn parse(text: &str, normalize: bool) -> Result<Version, String> {
        let text = if normalize { normalized(text) } else { text.to_owned() };
        if text.is_empty() {
            return Err("Version string empty".to_owned());
        }
        let (text, build) = text.split_once('+').map_or((text.as_str(), None), |(text, build)| (text, Some(build)));
        let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
        let parts: Vec<&str> = core.splitn(3, '.').collect();
        let [major, minor, patch] = parts.as_slice() else {
            return Err("No Major.Minor.Patch elements found".to_owned());
        };
        let number = |what: &str, text: &str| -> Result<u64, String> {
            if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
                return Err(format!("Invalid character(s) found in {what} number {text:?}"));
            }
            if text.len() > 1 && text.starts_with('0') {
                return Err(format!("{} number must not contain leading zeroes {text:?}", title(what)));
            }
            text.parse().map_err(|_| format!("strconv.ParseUint: parsing {text:?}: value out of range"))
        };
        let mut version = Version {
            major: number("major", major)?,
            minor: number("minor", minor)?,
            patch: number("patch", patch)?,
            pre: Vec::new(),
        };
        for part in pre.into_iter().flat_map(|pre| pre.split('.')) {
            version.pre.push(identifier(part)?);
        }
        for part in build.into_iter().flat_map(|build| build.split('.')) {
            if part.is_empty() {
                return Err("Build meta data is empty".to_owned());
            }
            if !valid(part) {
                return Err(format!("Invalid character(s) found in build meta data {part:?}"));
            }
        }
        Ok(version)
    }

    pub(crate) fn cmp(&self, other: &Version) -> Ordering {
        let core = (self.major, self.minor, self.patch).cmp(&(other.major, other.minor, other.patch));
        core.then_with(|| match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => self.pre.cmp(&other.pre),
        })
    }
}

fn title(word: &str) -> String {
    word[..1].to_uppercase() + &word[1..]
}

fn valid(part: &str) -> bool {
    part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn identifier(part: &str) -> Result<Identifier, String> {
    if part.is_empty() {
        return Err("Prerelease is empty".to_owned());
    }
    if part.bytes().all(|b| b.is_ascii_digit()) {
        if part.len() > 1 && part.starts_with('0') {
            return Err(format!("Numeric PreRelease version must not contain leading zeroes {part:?}"));
        }
        return part.parse().map(Identifier::Number).map_err(|error| error.to_string());
    }
    if valid(part) {
        Ok(Identifier::Text(part.to_owned()))
    } else {
        Err(format!("Invalid character(s) found in prerelease {part:?}"))
    }
}

fn normalized(text: &str) -> String {
    let text = text.strip_prefix('v').unwrap_or(text);
    let end = text.find(['-', '+']).unwrap_or(text.len());
    let (core, rest) = text.split_at(end);
    let mut parts: Vec<String> = core
        .split('.')
        .map(|part| {
            let trimmed = part.trim_start_matches('0');
            if trimmed.is_empty() && !part.is_empty() { "0".to_owned() } else { trimmed.to_owned() }
        })
        .collect();
    while parts.len() < 3 {
        parts.push("0".to_owned());
    }
    format!("{}{rest}", parts.join("."))
}
