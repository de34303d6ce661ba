//! A certificate authority and what it issues.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use env::Env;
use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SerialNumber,
};

use crate::files::{read, write_private};
use crate::leaf::Leaf;
use crate::{PkiError, leaf};

const DAY: Duration = Duration::from_secs(24 * 3600);
/// Clocks of other machines may be behind ours by this much (less with certificates that live shorter than an hour).
const SKEW: Duration = Duration::from_secs(300);

/// A self-signed authority with its key.
pub struct Authority {
    certificate_pem: String,
    issuer: Issuer<'static, KeyPair>,
    env: Env,
}

/// What a certificate shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateSpec {
    /// A client's user name.
    pub common_name: String,
    /// A client's group.
    pub organization: Option<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    pub usage: Usage,
    pub lifetime: Duration,
}

/// The sides of a connection a certificate is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    Server,
    Client,
    Both,
}

impl CertificateSpec {
    /// A user's certificate, for a year.
    pub fn client(user: &str, group: &str) -> CertificateSpec {
        CertificateSpec {
            common_name: user.to_owned(),
            organization: (!group.is_empty()).then(|| group.to_owned()),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            usage: Usage::Client,
            lifetime: 365 * DAY,
        }
    }

    /// A server's certificate, for a year.
    pub fn server(name: &str, dns_names: &[&str], addresses: &[IpAddr]) -> CertificateSpec {
        CertificateSpec {
            common_name: name.to_owned(),
            organization: None,
            dns_names: dns_names.iter().map(|name| (*name).to_owned()).collect(),
            addresses: addresses.to_vec(),
            usage: Usage::Server,
            lifetime: 365 * DAY,
        }
    }
}

impl Authority {
    /// Loads the authority from `<name>.crt` and `<name>.key` in `folder`, or makes it, for ten years. A key without
    /// certificate (a creation that was cut short) gets a new certificate.
    pub fn load_or_create(folder: &Path, name: &str, common_name: &str, env: &Env) -> Result<Authority, PkiError> {
        let (certificate_path, key_path) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
        let key = load_or_create_key(&key_path)?;
        if let Some(certificate_pem) = read(&certificate_path)? {
            let malformed = || PkiError::Malformed { path: certificate_path.clone(), expected: "certificate" };
            let facts = leaf::Facts::read(&certificate_pem).map_err(|_| malformed())?;
            if facts.public_key != key.public_key_raw() {
                return Err(PkiError::Mismatch { path: certificate_path });
            }
            let issuer = Issuer::from_ca_cert_pem(&certificate_pem, key).map_err(|_| malformed())?;
            return Ok(Authority { certificate_pem, issuer, env: env.clone() });
        }
        let mut params = params(common_name, None, 3650 * DAY, env)?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages =
            vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
        let certificate_pem = params.self_signed(&key)?.pem();
        write_private(&certificate_path, certificate_pem.as_bytes())?;
        Ok(Authority { certificate_pem, issuer: Issuer::new(params, key), env: env.clone() })
    }

    /// The authority's certificate, as `certificate-authority-data` holds it (before base64).
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// When its certificate ends.
    pub(crate) fn not_after(&self) -> Timestamp {
        leaf::Facts::read(&self.certificate_pem).map_or(Timestamp::UNIX_EPOCH, |facts| facts.not_after)
    }

    pub(crate) fn issuer(&self) -> &Issuer<'static, KeyPair> {
        &self.issuer
    }

    /// A certificate's beginning: it has a serial number.
    pub(crate) fn blank(&self) -> Result<CertificateParams, PkiError> {
        params("", None, DAY, &self.env)
    }

    /// A new key and a certificate for it.
    pub fn issue(&self, spec: &CertificateSpec) -> Result<Leaf, PkiError> {
        let key = KeyPair::generate()?;
        let mut params = params(&spec.common_name, spec.organization.as_deref(), spec.lifetime, &self.env)?;
        let addresses = spec.addresses.iter().map(IpAddr::to_string);
        params.subject_alt_names =
            CertificateParams::new(spec.dns_names.iter().cloned().chain(addresses).collect::<Vec<_>>())?
                .subject_alt_names;
        params.use_authority_key_identifier_extension = true;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        params.extended_key_usages = match spec.usage {
            Usage::Server => vec![ExtendedKeyUsagePurpose::ServerAuth],
            Usage::Client => vec![ExtendedKeyUsagePurpose::ClientAuth],
            Usage::Both => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        };
        let certificate = params.signed_by(&key, &self.issuer)?;
        Leaf::new(certificate.pem(), key.serialize_pem())
    }
}

/// The ECDSA P-256 key at `path`, made if there is none.
pub(crate) fn load_or_create_key(path: &Path) -> Result<KeyPair, PkiError> {
    if let Some(pem) = read(path)? {
        return KeyPair::from_pem(&pem)
            .map_err(|_| PkiError::Malformed { path: path.to_owned(), expected: "private key" });
    }
    let key = KeyPair::generate()?;
    write_private(path, key.serialize_pem().as_bytes())?;
    Ok(key)
}

fn params(
    common_name: &str,
    organization: Option<&str>,
    lifetime: Duration,
    env: &Env,
) -> Result<CertificateParams, PkiError> {
    let now = env.now();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    if let Some(organization) = organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.not_before = date(now.saturating_sub(SKEW.min(lifetime / 12)).map_err(|_| PkiError::Invalid("time"))?)?;
    params.not_after = date(now.saturating_add(lifetime).map_err(|_| PkiError::Invalid("time"))?)?;
    let mut serial = [0; 16];
    env.secret(&mut serial);
    // Positive and of full length.
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(params)
}

pub(crate) fn date(at: Timestamp) -> Result<time::OffsetDateTime, PkiError> {
    time::OffsetDateTime::from_unix_timestamp(at.as_second()).map_err(|_| PkiError::Invalid("time"))
}
