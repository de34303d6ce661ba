//! Subjects of certificates as Go's signers write them: what they know of the request's, in their order, values of one kind together.
//! `rcgen` knows one value of each kind, and users may be in several groups.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::SigningKey;

use crate::PkiError;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const UTF8: u8 = 0x0c;
const PRINTABLE: u8 = 0x13;
const BITS: u8 = 0x03;

/// Country, province, locality, street, postal code, organization, unit, common name and serial number: the last number of each
/// attribute's type, 2.5.4.x. Of the last two, the last value counts.
const ORDER: [u8; 9] = [6, 8, 7, 9, 17, 10, 11, 3, 5];
const SINGLE: [u8; 2] = [3, 5];

/// The DER of a subject with these attributes; those that Go does not know are left out.
pub(crate) fn encode(attributes: &[(Vec<u64>, String)]) -> Vec<u8> {
    let mut names = Vec::new();
    for kind in ORDER {
        let of_kind = |(own, _): &&(Vec<u64>, String)| *own == [2, 5, 4, u64::from(kind)];
        let mut values: Vec<&str> = attributes.iter().filter(of_kind).map(|(_, text)| text.as_str()).collect();
        if SINGLE.contains(&kind) {
            values = values.pop().into_iter().filter(|text| !text.is_empty()).collect();
        }
        // A set's members are in the order of their bytes.
        let mut encoded: Vec<Vec<u8>> = values.into_iter().map(|text| attribute(kind, text)).collect();
        encoded.sort();
        if !encoded.is_empty() {
            names.extend(element(SET, &encoded.concat()));
        }
    }
    element(SEQUENCE, &names)
}

/// Whether the subject (DER) says nothing.
pub(crate) fn is_empty(subject: &[u8]) -> bool {
    subject == [SEQUENCE, 0]
}

fn attribute(kind: u8, text: &str) -> Vec<u8> {
    let is_printable = |c: char| c.is_ascii_alphanumeric() || " '()+,-./:=?".contains(c);
    let tag = if text.chars().all(is_printable) { PRINTABLE } else { UTF8 };
    let kind = element(OID, &[0x55, 0x04, kind]);
    element(SEQUENCE, &[kind, element(tag, text.as_bytes())].concat())
}

/// The certificate (DER) with this subject (DER), signed again; PEM.
pub(crate) fn replaced(certificate: &[u8], subject: &[u8], key: &impl SigningKey) -> Result<String, PkiError> {
    let mut parts = elements(content(certificate)?)?.into_iter();
    let (Some(inner), Some(algorithm)) = (parts.next(), parts.next()) else { return Err(malformed()) };
    // Version, number, algorithm, issuer, validity; then the subject.
    let mut fields = elements(content(inner)?)?;
    *fields.get_mut(5).ok_or_else(malformed)? = subject;
    let inner = element(SEQUENCE, &fields.concat());
    let mut signature = vec![0];
    signature.extend(key.sign(&inner)?);
    let whole = element(SEQUENCE, &[&inner, algorithm, &element(BITS, &signature)].concat());
    Ok(pem(&whole))
}

fn pem(certificate: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(certificate);
    let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn malformed() -> PkiError {
    PkiError::Invalid("certificate")
}

fn element(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match u8::try_from(content.len()) {
        Ok(length) if length < 0x80 => out.push(length),
        _ => {
            let bytes = content.len().to_be_bytes();
            let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            out.push(0x80 | bytes.len() as u8);
            out.extend_from_slice(bytes);
        }
    }
    out.extend_from_slice(content);
    out
}

/// The first element of some DER.
struct First<'a> {
    element: &'a [u8],
    content: &'a [u8],
    rest: &'a [u8],
}

fn split(der: &[u8]) -> Result<First<'_>, PkiError> {
    let (&first, after) = der.get(1..).and_then(<[u8]>::split_first).ok_or_else(malformed)?;
    let long = if first < 0x80 { 0 } else { usize::from(first & 0x7f) };
    let (length, rest) = after.split_at_checked(long).ok_or_else(malformed)?;
    let length = match long {
        0 => usize::from(first),
        1..=4 => length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)),
        _ => return Err(malformed()),
    };
    let (content, rest) = rest.split_at_checked(length).ok_or_else(malformed)?;
    Ok(First { element: &der[..der.len() - rest.len()], content, rest })
}

fn content(element: &[u8]) -> Result<&[u8], PkiError> {
    Ok(split(element)?.content)
}

fn elements(mut content: &[u8]) -> Result<Vec<&[u8]>, PkiError> {
    let mut found = Vec::new();
    while !content.is_empty() {
        let first = split(content)?;
        found.push(first.element);
        content = first.rest;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use x509_parser::prelude::FromDer;
    use x509_parser::x509::X509Name;

    use super::*;

    #[test]
    fn subjects_are_written_in_gos_order() {
        let check = |attributes: &[(&[u64], &str)], expect: &str| {
            let attributes: Vec<_> =
                attributes.iter().map(|(kind, text)| (kind.to_vec(), (*text).to_owned())).collect();
            let der = encode(&attributes);
            assert_eq!(X509Name::from_der(&der).unwrap().1.to_string(), expect);
        };
        let (name, group): (&[u64], &[u64]) = (&[2, 5, 4, 3], &[2, 5, 4, 10]);
        check(&[(name, "jane"), (group, "b"), (group, "a")], "O=a + O=b, CN=jane");
        check(&[(name, "first"), (name, "jürgen*")], "CN=jürgen*");
        let (unit, place): (&[u64], &[u64]) = (&[2, 5, 4, 11], &[2, 5, 4, 7]);
        check(&[(name, "jane"), (unit, "u"), (group, "g"), (place, "here")], "L=here, O=g, OU=u, CN=jane");
        check(&[(name, ""), (&[1, 2, 840, 113549, 1, 9, 1], "a@b.example")], "");
    }

    #[test]
    fn lengths_are_read_as_they_are_written() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let content = vec![7; length];
            let mut der = element(SEQUENCE, &content);
            assert_eq!(split(&der).unwrap().content, content);
            der.push(1);
            assert_eq!(split(&der).unwrap().rest, [1]);
            der.truncate(der.len().saturating_sub(2));
            assert!(split(&der).is_err(), "{length}");
        }
        assert!(split(&[]).is_err());
    }
}
