//! What certificate requests ask for, and certificates made from them.

use std::net::IpAddr;

use jiff::Timestamp;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType, SubjectPublicKeyInfo,
};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA384_ASN1, ECDSA_P384_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519,
    RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY, RSA_PKCS1_2048_8192_SHA384, UnparsedPublicKey,
    VerificationAlgorithm,
};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

use crate::{Authority, PkiError, subject};

/// A request (PKCS #10).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateRequest {
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub emails: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub uris: Vec<String>,
    /// Attributes of the subject in their order, by the numbers of their type.
    pub subject: Vec<(Vec<u64>, String)>,
    /// SubjectPublicKeyInfo, DER.
    pub public_key: Vec<u8>,
}

/// Why something is no request. The words are upstream's, and Go's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    #[error("PEM block type must be CERTIFICATE REQUEST")]
    Pem,
    #[error("asn1: structure error: not a certificate request")]
    Malformed,
    #[error("asn1: syntax error: trailing data")]
    Trailing,
    /// Also where Go knows the algorithm: ECDSA on P-521, or with SHA-512.
    #[error("x509: cannot verify signature: algorithm unimplemented")]
    Algorithm,
    #[error("{}", match .0 {
        Signature::Rsa => "crypto/rsa: verification error",
        Signature::Ecdsa => "x509: ECDSA verification failure",
        Signature::Ed25519 => "x509: Ed25519 verification failure",
    })]
    Signature(Signature),
}

/// What a request is signed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    Rsa,
    Ecdsa,
    Ed25519,
}

impl CertificateRequest {
    /// Reads a request (PEM) whose owner has the key: its signature is right.
    pub fn parse(pem: &[u8]) -> Result<CertificateRequest, RequestError> {
        let invalid = || RequestError::Malformed;
        let (_, pem) = x509_parser::pem::parse_x509_pem(pem).map_err(|_| RequestError::Pem)?;
        if pem.label != "CERTIFICATE REQUEST" {
            return Err(RequestError::Pem);
        }
        let (rest, request) = X509CertificationRequest::from_der(&pem.contents).map_err(|_| invalid())?;
        if !rest.is_empty() {
            return Err(RequestError::Trailing);
        }
        check_signature(&request)?;
        let info = &request.certification_request_info;
        let mut read =
            CertificateRequest { public_key: info.subject_pki.raw.to_vec(), ..CertificateRequest::default() };
        for attribute in info.subject.iter_attributes() {
            let kind: Vec<u64> = attribute.attr_type().iter().ok_or_else(invalid)?.collect();
            read.subject.push((kind, attribute.as_str().map_err(|_| invalid())?.to_owned()));
        }
        let of = |kind: &[u64]| {
            read.subject.iter().filter(|(own, _)| own == kind).map(|(_, text)| text.clone()).collect::<Vec<_>>()
        };
        // The last one counts, as in Go.
        let common_name = of(&[2, 5, 4, 3]).pop().unwrap_or_default();
        (read.common_name, read.organizations) = (common_name, of(&[2, 5, 4, 10]));
        let names = request.requested_extensions().into_iter().flatten().filter_map(|extension| match extension {
            ParsedExtension::SubjectAlternativeName(names) => Some(&names.general_names),
            _ => None,
        });
        for name in names.flatten() {
            match name {
                GeneralName::DNSName(name) => read.dns_names.push((*name).to_owned()),
                GeneralName::RFC822Name(name) => read.emails.push((*name).to_owned()),
                GeneralName::URI(name) => read.uris.push((*name).to_owned()),
                GeneralName::IPAddress(bytes) => {
                    let address = match bytes.len() {
                        4 => <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from),
                        _ => <[u8; 16]>::try_from(*bytes).ok().map(IpAddr::from),
                    };
                    read.addresses.push(address.ok_or_else(invalid)?);
                }
                _ => {}
            }
        }
        Ok(read)
    }

    fn alternative_names(&self) -> Result<Vec<SanType>, PkiError> {
        let mut all = Vec::new();
        for name in &self.dns_names {
            all.push(SanType::DnsName(name.as_str().try_into()?));
        }
        for name in &self.emails {
            all.push(SanType::Rfc822Name(name.as_str().try_into()?));
        }
        all.extend(self.addresses.iter().copied().map(SanType::IpAddress));
        for name in &self.uris {
            all.push(SanType::URI(name.as_str().try_into()?));
        }
        Ok(all)
    }
}

impl Authority {
    /// A certificate (PEM) for what `request` says, good for `usages` (words as CertificateSigningRequests have them) from `not_before`
    /// to `not_after`, at most as long as the authority's own.
    pub fn sign(
        &self,
        request: &CertificateRequest,
        usages: &[String],
        not_before: Timestamp,
        not_after: Timestamp,
    ) -> Result<String, PkiError> {
        let mut params = self.blank()?;
        params.distinguished_name = DistinguishedName::new();
        let subject = subject::encode(&request.subject);
        if !subject::is_empty(&subject) {
            // The subject comes later, but without one further names would be critical.
            params.distinguished_name.push(DnType::CommonName, &*request.common_name);
        }
        params.subject_alt_names = request.alternative_names()?;
        params.use_authority_key_identifier_extension = true;
        // Said explicitly, but without rcgen's identifier of the key, which Go gives to authorities only.
        params.is_ca = IsCa::NoCa;
        params.custom_extensions = vec![no_authority()];
        params.not_before = crate::authority::date(not_before)?;
        params.not_after = crate::authority::date(not_after.min(self.not_after()))?;
        usages_of(usages, &mut params)?;
        let key = SubjectPublicKeyInfo::from_der(&request.public_key)?;
        let certificate = params.signed_by(&key, self.issuer())?;
        subject::replaced(certificate.der(), &subject, self.issuer().key())
    }
}

/// Basic constraints: an empty sequence.
fn no_authority() -> CustomExtension {
    let mut extension = CustomExtension::from_oid_content(&[2, 5, 29, 19], vec![0x30, 0]);
    extension.set_criticality(true);
    extension
}

fn usages_of(usages: &[String], params: &mut CertificateParams) -> Result<(), PkiError> {
    use {ExtendedKeyUsagePurpose as Extended, KeyUsagePurpose as Key};
    for usage in usages {
        match usage.as_str() {
            "signing" | "digital signature" => params.key_usages.push(Key::DigitalSignature),
            "content commitment" => params.key_usages.push(Key::ContentCommitment),
            "key encipherment" => params.key_usages.push(Key::KeyEncipherment),
            "key agreement" => params.key_usages.push(Key::KeyAgreement),
            "data encipherment" => params.key_usages.push(Key::DataEncipherment),
            "cert sign" => params.key_usages.push(Key::KeyCertSign),
            "crl sign" => params.key_usages.push(Key::CrlSign),
            "encipher only" => params.key_usages.push(Key::EncipherOnly),
            "decipher only" => params.key_usages.push(Key::DecipherOnly),
            "any" => params.extended_key_usages.push(Extended::Any),
            "server auth" => params.extended_key_usages.push(Extended::ServerAuth),
            "client auth" => params.extended_key_usages.push(Extended::ClientAuth),
            "code signing" => params.extended_key_usages.push(Extended::CodeSigning),
            "email protection" | "s/mime" => params.extended_key_usages.push(Extended::EmailProtection),
            "ipsec end system" => params.extended_key_usages.push(other(&[1, 3, 6, 1, 5, 5, 7, 3, 5])),
            "ipsec tunnel" => params.extended_key_usages.push(other(&[1, 3, 6, 1, 5, 5, 7, 3, 6])),
            "ipsec user" => params.extended_key_usages.push(other(&[1, 3, 6, 1, 5, 5, 7, 3, 7])),
            "timestamping" => params.extended_key_usages.push(Extended::TimeStamping),
            "ocsp signing" => params.extended_key_usages.push(Extended::OcspSigning),
            "microsoft sgc" => params.extended_key_usages.push(other(&[1, 3, 6, 1, 4, 1, 311, 10, 3, 3])),
            "netscape sgc" => params.extended_key_usages.push(other(&[2, 16, 840, 1, 113730, 4, 1])),
            _ => return Err(PkiError::Invalid("key usage")),
        }
    }
    let mut seen = Vec::new();
    params.key_usages.retain(|usage| {
        !seen.contains(usage) && {
            seen.push(*usage);
            true
        }
    });
    let mut seen = Vec::new();
    params.extended_key_usages.retain(|usage| {
        !seen.contains(usage) && {
            seen.push(usage.clone());
            true
        }
    });
    Ok(())
}

fn other(oid: &[u64]) -> ExtendedKeyUsagePurpose {
    ExtendedKeyUsagePurpose::Other(oid.to_vec())
}

/// Refuses what the key that it is for didn't sign. Short keys and SHA-1 are for the signer to judge.
fn check_signature(request: &X509CertificationRequest<'_>) -> Result<(), RequestError> {
    let info = &request.certification_request_info;
    let curve =
        info.subject_pki.algorithm.parameters.as_ref().and_then(|p| p.as_oid().ok()).map(|oid| oid.to_id_string());
    let is_p384 = curve.as_deref() == Some("1.3.132.0.34");
    if curve.as_deref() == Some("1.3.132.0.35") {
        return Err(RequestError::Algorithm);
    }
    let (kind, algorithm): (Signature, &'static dyn VerificationAlgorithm) =
        match request.signature_algorithm.algorithm.to_id_string().as_str() {
            "1.2.840.113549.1.1.5" => (Signature::Rsa, &RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY),
            "1.2.840.113549.1.1.11" => (Signature::Rsa, &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY),
            "1.2.840.113549.1.1.12" => (Signature::Rsa, &RSA_PKCS1_2048_8192_SHA384),
            "1.2.840.113549.1.1.13" => (Signature::Rsa, &RSA_PKCS1_1024_8192_SHA512_FOR_LEGACY_USE_ONLY),
            "1.2.840.10045.4.3.2" if is_p384 => (Signature::Ecdsa, &ECDSA_P384_SHA256_ASN1),
            "1.2.840.10045.4.3.2" => (Signature::Ecdsa, &ECDSA_P256_SHA256_ASN1),
            "1.2.840.10045.4.3.3" if is_p384 => (Signature::Ecdsa, &ECDSA_P384_SHA384_ASN1),
            "1.2.840.10045.4.3.3" => (Signature::Ecdsa, &ECDSA_P256_SHA384_ASN1),
            "1.3.101.112" => (Signature::Ed25519, &ED25519),
            _ => return Err(RequestError::Algorithm),
        };
    let key = UnparsedPublicKey::new(algorithm, &info.subject_pki.subject_public_key.data);
    key.verify(info.raw, &request.signature_value.data).map_err(|_| RequestError::Signature(kind))
}

/// The organizations, which are groups, that the subject of a request (PEM) names; `None` if it cannot be read.
pub fn request_organizations(pem: &[u8]) -> Option<Vec<String>> {
    CertificateRequest::parse(pem).ok().map(|request| request.organizations)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use env::Env;
    use rcgen::KeyPair;

    use super::*;
    use crate::ClusterPki;
    use crate::leaf::Facts;

    /// `/O=one/CN=jane/O=two/OU=unit/emailAddress=a@b.example/L=here`
    const OF_TWO_GROUPS: &str = "\
-----BEGIN CERTIFICATE REQUEST-----\n\
MIIBIDCBxwIBADBlMQwwCgYDVQQKDANvbmUxDTALBgNVBAMMBGphbmUxDDAKBgNV\n\
BAoMA3R3bzENMAsGA1UECwwEdW5pdDEaMBgGCSqGSIb3DQEJARYLYUBiLmV4YW1w\n\
bGUxDTALBgNVBAcMBGhlcmUwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARrLOeN\n\
3zx8gEacCnATB37lvhbixb0bVJoKt3xqoX4PY3saXy9AfTNzODgj55nfAkrHaIOy\n\
po6LFL1mQhVYWZzNoAAwCgYIKoZIzj0EAwIDSAAwRQIgJwF2zRtFOtByxWGMz2oj\n\
HU9MfQXll3haghtDcADntqQCIQDLJkWq5YY9kWNwDL8h/zMDej0ZFselBLrnM67E\n\
0uVOyw==\n\
-----END CERTIFICATE REQUEST-----\n";

    fn request(groups: &[&str], names: &[&str], key: &KeyPair) -> String {
        let mut params =
            CertificateParams::new(names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "jane");
        for group in groups {
            params.distinguished_name.push(DnType::OrganizationName, *group);
        }
        params.serialize_request(key).unwrap().pem().unwrap()
    }

    #[test]
    fn requests_are_read() {
        let key = KeyPair::generate().unwrap();
        let read = CertificateRequest::parse(request(&["g"], &["a.example", "10.0.0.1"], &key).as_bytes()).unwrap();
        assert_eq!((read.common_name.as_str(), read.organizations.join(",").as_str()), ("jane", "g"));
        assert_eq!((read.dns_names.join(","), read.addresses.len()), ("a.example".to_owned(), 1));
        assert_eq!(request_organizations(b"nothing"), None);
        let own = request(&["g"], &[], &key);
        let check = |pem: &str, expect| assert_eq!(CertificateRequest::parse(pem.as_bytes()).err(), expect, "{pem}");
        check(&format!("text before\n{own}"), None);
        check(&own.replace(" CERTIFICATE", " NEW CERTIFICATE"), Some(RequestError::Pem));
        check(
            "-----BEGIN CERTIFICATE REQUEST-----\naGVsbG8=\n-----END CERTIFICATE REQUEST-----\n",
            Some(RequestError::Malformed),
        );
        // Somebody else's signature.
        let (own, other) = (request(&["g"], &[], &key), request(&["h"], &[], &KeyPair::generate().unwrap()));
        let der = |pem: &str| x509_parser::pem::parse_x509_pem(pem.as_bytes()).unwrap().1.contents;
        let (mut forged, other) = (der(&own), der(&other));
        let end = forged.len() - 20;
        forged[end..].copy_from_slice(&other[other.len() - 20..]);
        use base64::Engine;
        let body = base64::prelude::BASE64_STANDARD.encode(forged);
        let forged = format!("-----BEGIN CERTIFICATE REQUEST-----\n{body}\n-----END CERTIFICATE REQUEST-----\n");
        check(&forged, Some(RequestError::Signature(Signature::Ecdsa)));
    }

    #[test]
    fn requests_are_signed() {
        let folder = tempfile::tempdir().unwrap();
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let pki = ClusterPki::load_or_create(folder.path(), &Env::seeded(1, start)).unwrap();
        let key = KeyPair::generate().unwrap();
        let read = CertificateRequest::parse(request(&["a"], &["x.example"], &key).as_bytes()).unwrap();
        let sign = |usages: &[&str], days: u64| {
            let usages: Vec<String> = usages.iter().map(|usage| (*usage).to_owned()).collect();
            pki.ca().sign(&read, &usages, start, start + Duration::from_secs(days * 86_400))
        };
        let facts = Facts::read(&sign(&["client auth", "digital signature"], 2).unwrap()).unwrap();
        assert_eq!((facts.common_name.as_str(), facts.organizations.join(",").as_str()), ("jane", "a"));
        assert_eq!((facts.dns_names.join(","), facts.not_before), ("x.example".to_owned(), start));
        assert_eq!(facts.public_key, key.public_key_raw());
        // Not longer than the authority, nor for what nobody knows.
        let facts = Facts::read(&sign(&["server auth"], 20_000).unwrap()).unwrap();
        assert_eq!(facts.not_after, pki.ca().not_after());
        assert!(sign(&["flying"], 1).is_err());
        // Who has the key is who the certificate says.
        let pem = sign(&["client auth"], 2).unwrap();
        let chain = crate::leaf::certificates(&pem).unwrap();
        let identity = pki.client_verifier().unwrap().identify(&chain, start + Duration::from_secs(60)).unwrap();
        assert_eq!((identity.user.as_str(), identity.groups), ("jane", vec!["a".to_owned()]));
    }

    #[test]
    fn all_groups_are_signed() {
        let folder = tempfile::tempdir().unwrap();
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let pki = ClusterPki::load_or_create(folder.path(), &Env::seeded(1, start)).unwrap();
        let read = CertificateRequest::parse(OF_TWO_GROUPS.as_bytes()).unwrap();
        let usages = ["client auth".to_owned()];
        let pem = pki.ca().sign(&read, &usages, start, start + Duration::from_secs(86_400)).unwrap();
        let chain = crate::leaf::certificates(&pem).unwrap();
        let identity = pki.client_verifier().unwrap().identify(&chain, start + Duration::from_secs(60)).unwrap();
        assert_eq!((identity.user.as_str(), identity.groups), ("jane", vec!["one".to_owned(), "two".to_owned()]));
    }
}
