//! What certificate requests ask for.

use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

/// The organizations, which are groups, that the subject of a request (PEM) names; `None` if it cannot be read.
pub fn request_organizations(pem: &[u8]) -> Option<Vec<String>> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(pem).ok()?;
    let (_, request) = X509CertificationRequest::from_der(&pem.contents).ok()?;
    let subject = &request.certification_request_info.subject;
    Some(subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_a_request() {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, "system:masters");
        let key = rcgen::KeyPair::generate().unwrap();
        let pem = params.serialize_request(&key).unwrap().pem().unwrap();
        assert_eq!(request_organizations(pem.as_bytes()).unwrap(), ["system:masters"]);
        assert_eq!(request_organizations(b"nothing"), None);
    }
}
