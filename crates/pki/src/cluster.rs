//! A cluster's keys and certificates in one folder.

use std::path::{Path, PathBuf};
use std::time::Duration;

use env::Env;

use crate::files::{read, write_private};
use crate::{Authority, CertificateSpec, ClientVerifier, Leaf, PkiError, TokenKey, leaf};

/// The cluster's authority, the front proxy's, the service accounts' key, and the certificates issued from them.
pub struct ClusterPki {
    folder: PathBuf,
    ca: Authority,
    front_proxy_ca: Authority,
    token_key: TokenKey,
    longest: Option<Duration>,
    env: Env,
}

impl ClusterPki {
    /// Loads what `folder` holds and makes what it lacks: `ca.crt`, `ca.key`, `front-proxy-ca.crt`, `front-proxy-ca.key`,
    /// `sa.key`. Blocks on the disk.
    pub fn load_or_create(folder: &Path, env: &Env) -> Result<ClusterPki, PkiError> {
        Ok(ClusterPki {
            folder: folder.to_owned(),
            ca: Authority::load_or_create(folder, "ca", "kubernetes", env)?,
            front_proxy_ca: Authority::load_or_create(folder, "front-proxy-ca", "front-proxy-ca", env)?,
            token_key: TokenKey::load_or_create(&folder.join("sa.key"))?,
            longest: None,
            env: env.clone(),
        })
    }

    /// Certificates of servers and users are issued for no longer than this.
    pub fn limit_lifetime(mut self, longest: Duration) -> ClusterPki {
        self.longest = Some(longest);
        self
    }

    /// The authority of servers and users.
    pub fn ca(&self) -> &Authority {
        &self.ca
    }

    /// The authority of those who may speak for others to aggregated API servers.
    pub fn front_proxy_ca(&self) -> &Authority {
        &self.front_proxy_ca
    }

    /// What signs service-account tokens.
    pub fn token_key(&self) -> &TokenKey {
        &self.token_key
    }

    /// The certificate kept as `<name>.pem`, if it says what `spec` asks for and is not due for renewal; else a new one, kept
    /// under that name. Call it again when [`Leaf::renew_at`] has passed. Blocks on the disk.
    pub fn certificate(&self, name: &str, spec: &CertificateSpec) -> Result<Leaf, PkiError> {
        let path = self.folder.join(format!("{name}.pem"));
        let kept = read(&path)?.and_then(|pem| Leaf::from_pem(&pem).ok());
        if let Some(leaf) = kept
            && leaf.renew_at() > self.env.now()
            && leaf.satisfies(spec, self.ca.certificate_pem())
        {
            return Ok(leaf);
        }
        let lifetime = self.longest.map_or(spec.lifetime, |longest| longest.min(spec.lifetime));
        let leaf = self.ca.issue(&CertificateSpec { lifetime, ..spec.clone() })?;
        write_private(&path, leaf.to_pem().as_bytes())?;
        Ok(leaf)
    }

    /// Whether this authority issued the certificate for what `spec` says, whenever that was.
    pub fn issued(&self, certificate_pem: &str, spec: &CertificateSpec) -> bool {
        leaf::Facts::read(certificate_pem)
            .is_ok_and(|facts| facts.satisfy(certificate_pem, spec, self.ca.certificate_pem()))
    }

    /// Checks certificates of clients of this cluster.
    pub fn client_verifier(&self) -> Result<ClientVerifier, PkiError> {
        ClientVerifier::new(self.ca.certificate_pem())
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::Usage;

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn at(days: u64) -> Env {
        Env::seeded(days, start() + Duration::from_secs(days * 24 * 3600))
    }

    #[test]
    fn a_folder_gives_the_same_again() {
        let folder = tempfile::tempdir().unwrap();
        let first = ClusterPki::load_or_create(folder.path(), &at(0)).unwrap();
        let spec =
            CertificateSpec::server("kube-apiserver", &["kubernetes", "localhost"], &["127.0.0.1".parse().unwrap()]);
        let leaf = first.certificate("apiserver", &spec).unwrap();
        let second = ClusterPki::load_or_create(folder.path(), &at(1)).unwrap();
        assert_eq!(first.ca().certificate_pem(), second.ca().certificate_pem());
        assert_eq!(first.token_key().jwks(), second.token_key().jwks());
        assert_eq!(leaf.to_pem(), second.certificate("apiserver", &spec).unwrap().to_pem());
        let names: Vec<_> = ["ca.crt", "ca.key", "sa.key", "front-proxy-ca.crt", "apiserver.pem"]
            .into_iter()
            .filter(|name| !folder.path().join(name).exists())
            .collect();
        assert!(names.is_empty(), "{names:?}");
    }

    #[test]
    fn certificates_are_renewed_and_follow_their_spec() {
        let folder = tempfile::tempdir().unwrap();
        let spec = CertificateSpec::client("a", "g");
        let issue = |days, spec: &CertificateSpec| {
            ClusterPki::load_or_create(folder.path(), &at(days)).unwrap().certificate("x", spec).unwrap()
        };
        let first = issue(0, &spec);
        assert_eq!(first.renew_at().duration_since(start()).as_secs() / 86400, 243);
        assert_eq!(issue(243, &spec).to_pem(), first.to_pem());
        let renewed = issue(244, &spec);
        assert_ne!(renewed.to_pem(), first.to_pem());
        assert!(renewed.not_after() > first.not_after());
        assert_ne!(issue(244, &CertificateSpec::client("b", "g")).to_pem(), renewed.to_pem());
        assert_ne!(
            issue(244, &CertificateSpec::client("b", "")).to_pem(),
            issue(244, &CertificateSpec::client("b", "g")).to_pem()
        );
        // A new authority doesn't keep what the old one signed.
        let kept = issue(244, &spec);
        std::fs::remove_file(folder.path().join("ca.crt")).unwrap();
        std::fs::remove_file(folder.path().join("ca.key")).unwrap();
        assert_ne!(issue(244, &spec).to_pem(), kept.to_pem());
        // Rubbish in the file doesn't stay.
        std::fs::write(folder.path().join("x.pem"), "rubbish").unwrap();
        issue(244, &spec);
    }

    #[test]
    fn lifetimes_can_be_limited_and_origins_told() {
        let folder = tempfile::tempdir().unwrap();
        let env = at(0);
        let pki = ClusterPki::load_or_create(folder.path(), &env).unwrap().limit_lifetime(Duration::from_secs(12));
        let spec = CertificateSpec::client("a", "g");
        let leaf = pki.certificate("x", &spec).unwrap();
        let seconds = |at: Timestamp| at.duration_since(start()).as_secs();
        assert_eq!((seconds(leaf.not_after()), seconds(leaf.renew_at())), (12, 7));
        assert!(pki.issued(leaf.certificate_pem(), &spec));
        assert!(!pki.issued(leaf.certificate_pem(), &CertificateSpec::client("b", "g")));
        assert!(!pki.issued("rubbish", &spec));
        let other = tempfile::tempdir().unwrap();
        let other = ClusterPki::load_or_create(other.path(), &at(1)).unwrap();
        assert!(!other.issued(leaf.certificate_pem(), &spec));
    }

    #[test]
    fn a_creation_cut_short_is_completed_and_a_mixture_refused() {
        let folder = tempfile::tempdir().unwrap();
        ClusterPki::load_or_create(folder.path(), &at(0)).unwrap();
        let key = std::fs::read(folder.path().join("ca.key")).unwrap();
        std::fs::remove_file(folder.path().join("ca.crt")).unwrap();
        ClusterPki::load_or_create(folder.path(), &at(0)).unwrap();
        assert_eq!(std::fs::read(folder.path().join("ca.key")).unwrap(), key);
        std::fs::copy(folder.path().join("front-proxy-ca.key"), folder.path().join("ca.key")).unwrap();
        assert!(matches!(ClusterPki::load_or_create(folder.path(), &at(0)), Err(PkiError::Mismatch { .. })));
        std::fs::write(folder.path().join("ca.key"), "rubbish").unwrap();
        assert!(matches!(ClusterPki::load_or_create(folder.path(), &at(0)), Err(PkiError::Malformed { .. })));
    }

    #[test]
    fn clients_are_identified() {
        let folder = tempfile::tempdir().unwrap();
        let pki = ClusterPki::load_or_create(folder.path(), &at(0)).unwrap();
        let verifier = pki.client_verifier().unwrap();
        let identify = |leaf: &Leaf, days| verifier.identify(&leaf.chain().unwrap(), at(days).now());
        let node = pki.ca().issue(&CertificateSpec::client("system:node:a", "system:nodes")).unwrap();
        let identity = identify(&node, 1).unwrap();
        assert_eq!((identity.user.as_str(), identity.groups), ("system:node:a", vec!["system:nodes".to_owned()]));
        assert!(identity.credential_id.starts_with("X509SHA256=") && identity.credential_id.len() == 75);
        let both = CertificateSpec { usage: Usage::Both, ..CertificateSpec::client("x", "") };
        assert!(identify(&pki.ca().issue(&both).unwrap(), 1).unwrap().groups.is_empty());
        // Expired, not yet valid, a server's, nobody's, another authority's.
        assert!(matches!(identify(&node, 366), Err(PkiError::Untrusted(_))));
        let future = Authority::load_or_create(folder.path(), "ca", "", &at(9)).unwrap();
        assert!(identify(&future.issue(&CertificateSpec::client("a", "")).unwrap(), 1).is_err());
        assert!(identify(&pki.ca().issue(&CertificateSpec::server("s", &["s"], &[])).unwrap(), 1).is_err());
        assert!(identify(&pki.ca().issue(&CertificateSpec::client("", "g")).unwrap(), 1).is_err());
        assert!(identify(&pki.front_proxy_ca().issue(&CertificateSpec::client("a", "")).unwrap(), 1).is_err());
    }
}
