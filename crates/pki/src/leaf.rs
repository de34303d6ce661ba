//! A certificate with its key, and what can be read out of it.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::{CertificateSpec, PkiError};

/// A certificate and its private key, both PEM, as a kubeconfig holds them (before base64).
#[derive(Clone)]
pub struct Leaf {
    certificate_pem: String,
    key_pem: String,
    not_before: Timestamp,
    not_after: Timestamp,
}

impl Leaf {
    pub(crate) fn new(certificate_pem: String, key_pem: String) -> Result<Leaf, PkiError> {
        let facts = Facts::read(&certificate_pem)?;
        Ok(Leaf { certificate_pem, key_pem, not_before: facts.not_before, not_after: facts.not_after })
    }

    /// Reads certificate and key from one text.
    pub fn from_pem(pem: &str) -> Result<Leaf, PkiError> {
        let key_at = pem.find("-----BEGIN PRIVATE KEY-----").ok_or(PkiError::Invalid("private key"))?;
        let (certificate, key) = pem.split_at(key_at);
        let leaf = Leaf::new(certificate.to_owned(), key.to_owned())?;
        leaf.private_key()?;
        Ok(leaf)
    }

    /// Certificate and key as one text.
    pub fn to_pem(&self) -> String {
        format!("{}{}", self.certificate_pem, self.key_pem)
    }

    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The certificate as TLS takes it.
    pub fn chain(&self) -> Result<Vec<CertificateDer<'static>>, PkiError> {
        certificates(&self.certificate_pem)
    }

    /// The key as TLS takes it.
    pub fn private_key(&self) -> Result<PrivateKeyDer<'static>, PkiError> {
        PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes()).map_err(|_| PkiError::Invalid("private key"))
    }

    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// When it should be replaced: after two thirds of its life.
    pub fn renew_at(&self) -> Timestamp {
        let life = self.not_after.duration_since(self.not_before);
        let third = Duration::try_from(life).unwrap_or_default() / 3;
        self.not_after.saturating_sub(third).unwrap_or(self.not_before)
    }

    /// Whether it says what `spec` asks for, and was signed by the authority of this certificate.
    pub(crate) fn satisfies(&self, spec: &CertificateSpec, authority_pem: &str) -> bool {
        Facts::read(&self.certificate_pem).is_ok_and(|facts| facts.satisfy(&self.certificate_pem, spec, authority_pem))
    }
}

impl std::fmt::Debug for Leaf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Leaf(until {})", self.not_after)
    }
}

/// What a certificate says.
#[derive(Debug, PartialEq)]
pub(crate) struct Facts {
    pub common_name: String,
    pub organizations: Vec<String>,
    /// The value of the attribute that carries a user's uid (1.3.6.1.4.1.57683.2).
    pub uid: Option<String>,
    /// Sorted.
    pub dns_names: Vec<String>,
    /// Sorted.
    pub addresses: Vec<IpAddr>,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub public_key: Vec<u8>,
}

impl Facts {
    /// Of the first certificate in a PEM text.
    pub(crate) fn read(pem: &str) -> Result<Facts, PkiError> {
        let chain = certificates(pem)?;
        Facts::of(chain.first().ok_or(PkiError::Invalid("certificate"))?)
    }

    pub(crate) fn of(der: &CertificateDer<'_>) -> Result<Facts, PkiError> {
        let invalid = || PkiError::Invalid("certificate");
        let (_, certificate) = X509Certificate::from_der(der).map_err(|_| invalid())?;
        let subject = certificate.subject();
        let text =
            |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| attribute.as_str().ok().map(str::to_owned);
        let uid_type = x509_parser::der_parser::oid!(1.3.6.1.4.1.57683.2);
        let (mut dns_names, mut addresses) = (Vec::new(), Vec::new());
        if let Ok(Some(names)) = certificate.subject_alternative_name() {
            for name in &names.value.general_names {
                match name {
                    GeneralName::DNSName(name) => dns_names.push((*name).to_owned()),
                    GeneralName::IPAddress(bytes) => addresses.extend(address(bytes)),
                    _ => {}
                }
            }
        }
        dns_names.sort();
        addresses.sort();
        let at = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).map_err(|_| invalid());
        Ok(Facts {
            common_name: subject.iter_common_name().find_map(text).unwrap_or_default(),
            organizations: subject.iter_organization().filter_map(text).collect(),
            uid: subject.iter_by_oid(&uid_type).find_map(text),
            dns_names,
            addresses,
            not_before: at(certificate.validity().not_before)?,
            not_after: at(certificate.validity().not_after)?,
            public_key: certificate.public_key().subject_public_key.data.to_vec(),
        })
    }

    /// Whether the certificate in `pem`, which these are of, says what `spec` asks for and was signed by the authority of this certificate.
    pub(crate) fn satisfy(&self, pem: &str, spec: &CertificateSpec, authority_pem: &str) -> bool {
        let Ok(authority) = certificates(authority_pem) else { return false };
        let mut names = spec.dns_names.clone();
        let mut addresses = spec.addresses.clone();
        names.sort();
        addresses.sort();
        self.common_name == spec.common_name
            && self.organizations.first() == spec.organization.as_ref()
            && self.dns_names == names
            && self.addresses == addresses
            && authority.first().is_some_and(|authority| self.signed_by(pem, authority))
    }

    /// Whether the first certificate in `pem` names `authority` as its issuer and authority key.
    fn signed_by(&self, pem: &str, authority: &CertificateDer<'_>) -> bool {
        let chain = certificates(pem).unwrap_or_default();
        let Some((Ok((_, certificate)), Ok((_, authority)))) =
            chain.first().map(|own| (X509Certificate::from_der(own), X509Certificate::from_der(authority)))
        else {
            return false;
        };
        let authority_key = certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            x509_parser::extensions::ParsedExtension::AuthorityKeyIdentifier(key) => key.key_identifier.as_ref(),
            _ => None,
        });
        let subject_key = authority.extensions().iter().find_map(|extension| match extension.parsed_extension() {
            x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(key) => Some(key),
            _ => None,
        });
        certificate.issuer() == authority.subject() && authority_key.is_some() && authority_key == subject_key
    }
}

pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, PkiError> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    chain.ok().filter(|chain| !chain.is_empty()).ok_or(PkiError::Invalid("certificate"))
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}
