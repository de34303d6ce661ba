//! Service-account tokens: JSON web tokens signed with ES256, bound to the objects they were made for.
//!
//! Upstream: pkg/serviceaccount. Whether those objects still exist is for the authenticator to ask.

use std::collections::HashSet;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use parking_lot::RwLock;
use rcgen::{KeyPair, PublicKeyData};
use ring::digest::{SHA256, digest};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey};
use serde::{Deserialize, Serialize};

use crate::PkiError;
use crate::authority::load_or_create_key;

/// Clocks may differ by this many seconds.
const LEEWAY: i64 = 60;
/// More signatures than this are forgotten together, and looked at anew.
const MAX_SIGNED: usize = 16 * 1024;

/// The key that signs service-account tokens.
pub struct TokenKey {
    key: EcdsaKeyPair,
    /// The uncompressed point.
    public: Vec<u8>,
    id: String,
    /// Digests of tokens whose signature was right: clients show theirs with each request, and looking costs more than the rest
    /// of a small one.
    signed: RwLock<HashSet<[u8; 32]>>,
}

/// What a token says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub aud: Vec<String>,
    /// Seconds since the epoch, as all times here.
    pub exp: i64,
    pub iat: i64,
    pub iss: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub jti: String,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: KubernetesClaims,
    pub nbf: i64,
    /// `system:serviceaccount:<namespace>:<name>`
    pub sub: String,
}

/// The objects a token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesClaims {
    pub namespace: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<BoundObject>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<BoundObject>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<BoundObject>,
    pub serviceaccount: BoundObject,
    /// From then on a use is worth a warning: the client doesn't reread its token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warnafter: Option<i64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundObject {
    pub name: String,
    pub uid: String,
}

/// What a token says that is kept in a Secret. It never ends, but with its Secret or account.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LegacyClaims {
    iss: String,
    #[serde(rename = "kubernetes.io/serviceaccount/namespace")]
    pub namespace: String,
    #[serde(rename = "kubernetes.io/serviceaccount/secret.name")]
    pub secret: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.name")]
    pub account: String,
    #[serde(rename = "kubernetes.io/serviceaccount/service-account.uid")]
    pub uid: String,
    /// `system:serviceaccount:<namespace>:<name>`
    pub sub: String,
}

const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";

impl LegacyClaims {
    /// Of the account `namespace`/`account` with this uid, kept in `secret`.
    pub fn new(namespace: &str, account: &str, uid: &str, secret: &str) -> LegacyClaims {
        LegacyClaims {
            iss: LEGACY_ISSUER.to_owned(),
            namespace: namespace.to_owned(),
            secret: secret.to_owned(),
            account: account.to_owned(),
            uid: uid.to_owned(),
            sub: format!("system:serviceaccount:{namespace}:{account}"),
        }
    }
}

/// A JSON web signature of `content` by a shared secret (HS256), without the content between its dots.
pub fn sign_detached(content: &str, id: &str, secret: &str) -> String {
    let header = serde_json::json!({ "alg": "HS256", "kid": id }).to_string();
    let header = URL_SAFE_NO_PAD.encode(header);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, signed.as_bytes())))
}

/// Why a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("token is malformed")]
    Malformed,
    #[error("token was signed with an unknown key or algorithm")]
    UnknownKey,
    #[error("token's signature is wrong")]
    Signature,
    #[error("service account token has expired")]
    Expired,
    #[error("token is not valid yet")]
    NotYetValid,
    #[error("token was issued by somebody else")]
    Issuer,
    #[error("token audiences are invalid for the target audiences")]
    Audience,
}

#[derive(Serialize, Deserialize)]
struct Header {
    alg: String,
    kid: String,
}

impl TokenKey {
    /// Loads the key from `path`, or makes it.
    pub fn load_or_create(path: &Path) -> Result<TokenKey, PkiError> {
        TokenKey::new(&load_or_create_key(path)?)
    }

    fn new(pair: &KeyPair) -> Result<TokenKey, PkiError> {
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pair.serialized_der(), &SystemRandom::new())
                .map_err(|_| PkiError::Invalid("service account key"))?;
        let id = URL_SAFE_NO_PAD.encode(digest(&SHA256, &pair.subject_public_key_info()));
        Ok(TokenKey { key, public: pair.public_key_raw().to_vec(), id, signed: RwLock::default() })
    }

    /// The token that says `claims`.
    pub fn sign(&self, claims: &Claims) -> Result<String, PkiError> {
        self.sign_any(claims)
    }

    /// A token that never ends, kept in a Secret.
    pub fn sign_legacy(&self, claims: &LegacyClaims) -> Result<String, PkiError> {
        self.sign_any(claims)
    }

    fn sign_any(&self, claims: &impl Serialize) -> Result<String, PkiError> {
        let header = Header { alg: "ES256".into(), kid: self.id.clone() };
        let part = |json: serde_json::Result<Vec<u8>>| {
            json.map(|json| URL_SAFE_NO_PAD.encode(json)).map_err(|_| PkiError::Invalid("claims"))
        };
        let mut token = format!("{}.{}", part(serde_json::to_vec(&header))?, part(serde_json::to_vec(claims))?);
        let signature =
            self.key.sign(&SystemRandom::new(), token.as_bytes()).map_err(|_| PkiError::Invalid("random numbers"))?;
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Ok(token)
    }

    /// What `token` says, if this key signed it for `issuer` and it is valid at `now`; and those of `audiences` it is for.
    pub fn verify(
        &self,
        token: &str,
        issuer: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<(Claims, Vec<String>), TokenError> {
        let claims: Claims = self.claims(token)?;
        let now = now.as_second();
        if claims.iss != issuer {
            return Err(TokenError::Issuer);
        }
        if now > claims.exp.saturating_add(LEEWAY) {
            return Err(TokenError::Expired);
        }
        if now < claims.nbf.saturating_sub(LEEWAY) {
            return Err(TokenError::NotYetValid);
        }
        let matching: Vec<String> = audiences.iter().filter(|wanted| claims.aud.contains(wanted)).cloned().collect();
        if matching.is_empty() {
            return Err(TokenError::Audience);
        }
        Ok((claims, matching))
    }

    /// What a token out of a Secret says; `None`: it is none of those.
    pub fn verify_legacy(&self, token: &str) -> Option<LegacyClaims> {
        // Most tokens are others: their signature need not be looked at here.
        let said = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        serde_json::from_slice::<LegacyClaims>(&said).ok().filter(|claims| claims.iss == LEGACY_ISSUER)?;
        self.claims(token).ok()
    }

    fn claims<T: serde::de::DeserializeOwned>(&self, token: &str) -> Result<T, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| TokenError::Malformed)?;
        if header.alg != "ES256" || header.kid != self.id {
            return Err(TokenError::UnknownKey);
        }
        self.check_signature(token, signed, &decode(signature)?)?;
        serde_json::from_slice(&decode(claims)?).map_err(|_| TokenError::Malformed)
    }

    /// Whether this key signed what is before the last dot of `token`.
    fn check_signature(&self, token: &str, signed: &str, signature: &[u8]) -> Result<(), TokenError> {
        let mut known = [0; 32];
        known.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        if self.signed.read().contains(&known) {
            return Ok(());
        }
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.public);
        key.verify(signed.as_bytes(), signature).map_err(|_| TokenError::Signature)?;
        let mut all = self.signed.write();
        if all.len() >= MAX_SIGNED {
            all.clear();
        }
        all.insert(known);
        Ok(())
    }

    /// The key set at `/openid/v1/jwks`.
    pub fn jwks(&self) -> serde_json::Value {
        let (x, y) = self.public.get(1..65).unwrap_or(&[0; 64]).split_at(32);
        serde_json::json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x), "y": URL_SAFE_NO_PAD.encode(y),
        }]})
    }
}

/// The document at `/.well-known/openid-configuration`.
pub fn discovery_document(issuer: &str, jwks_uri: &str) -> serde_json::Value {
    serde_json::json!({
        "issuer": issuer,
        "jwks_uri": jwks_uri,
        "response_types_supported": ["id_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

    fn key() -> TokenKey {
        TokenKey::new(&KeyPair::generate().unwrap()).unwrap()
    }

    fn claims() -> Claims {
        let object = |name: &str| BoundObject { name: name.into(), uid: format!("{name}-uid") };
        Claims {
            aud: vec![ISSUER.into()],
            exp: 4600,
            iat: 1000,
            iss: ISSUER.into(),
            jti: "id".into(),
            kubernetes: KubernetesClaims {
                namespace: "n".into(),
                pod: Some(object("p")),
                node: Some(object("node")),
                serviceaccount: object("default"),
                warnafter: Some(4607),
                ..KubernetesClaims::default()
            },
            nbf: 1000,
            sub: "system:serviceaccount:n:default".into(),
        }
    }

    #[test]
    fn tokens_say_what_upstreams_say() {
        let token = key().sign(&claims()).unwrap();
        let body = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
        assert_eq!(
            String::from_utf8(body).unwrap(),
            r#"{"aud":["https://kubernetes.default.svc.cluster.local"],"exp":4600,"iat":1000,"iss":"https://kubernetes.default.svc.cluster.local","jti":"id","kubernetes.io":{"namespace":"n","node":{"name":"node","uid":"node-uid"},"pod":{"name":"p","uid":"p-uid"},"serviceaccount":{"name":"default","uid":"default-uid"},"warnafter":4607},"nbf":1000,"sub":"system:serviceaccount:n:default"}"#
        );
    }

    #[test]
    fn tokens_are_verified() {
        let key = key();
        let token = key.sign(&claims()).unwrap();
        let audiences = [ISSUER.to_owned(), "other".to_owned()];
        let check = |token: &str, issuer: &str, audiences: &[String], second: i64| {
            key.verify(token, issuer, audiences, Timestamp::from_second(second).unwrap())
        };
        assert_eq!(check(&token, ISSUER, &audiences, 2000), Ok((claims(), vec![ISSUER.to_owned()])));
        assert_eq!(check(&token, ISSUER, &audiences, 4661), Err(TokenError::Expired));
        assert_eq!(check(&token, ISSUER, &audiences, 939), Err(TokenError::NotYetValid));
        assert_eq!(check(&token, "x", &audiences, 2000), Err(TokenError::Issuer));
        assert_eq!(check(&token, ISSUER, &audiences[1..], 2000), Err(TokenError::Audience));
        assert_eq!(check("a.b", ISSUER, &audiences, 2000), Err(TokenError::Malformed));
        assert_eq!(check("", ISSUER, &audiences, 2000), Err(TokenError::Malformed));
        let (signed, _) = token.rsplit_once('.').unwrap();
        let forged = format!("{signed}.{}", URL_SAFE_NO_PAD.encode([1; 64]));
        assert_eq!(check(&forged, ISSUER, &audiences, 2000), Err(TokenError::Signature));
        let mut parts: Vec<&str> = token.split('.').collect();
        let none = URL_SAFE_NO_PAD.encode(br#"{"alg":"none","kid":""}"#);
        parts[0] = &none;
        assert_eq!(check(&parts.join("."), ISSUER, &audiences, 2000), Err(TokenError::UnknownKey));
        let other = super::tests::key().sign(&claims()).unwrap();
        assert_eq!(check(&other, ISSUER, &audiences, 2000), Err(TokenError::UnknownKey));
    }

    #[test]
    fn tokens_of_secrets_are_told_from_others() {
        let key = key();
        let legacy = LegacyClaims::new("n", "a", "uid", "s");
        let token = key.sign_legacy(&legacy).unwrap();
        assert_eq!(key.verify_legacy(&token), Some(legacy));
        assert_eq!(key.verify_legacy(&key.sign(&claims()).unwrap()), None);
        assert_eq!(super::tests::key().verify_legacy(&token), None);
    }

    #[test]
    fn contents_are_signed_as_kubeadm_checks_them() {
        // From the specification of JSON web signatures: header and signature only.
        let signed = sign_detached("content", "abcdef", "secret");
        let (header, signature) = signed.split_once("..").unwrap();
        assert_eq!(URL_SAFE_NO_PAD.decode(header).unwrap(), br#"{"alg":"HS256","kid":"abcdef"}"#);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"secret");
        let all = format!("{header}.{}", URL_SAFE_NO_PAD.encode("content"));
        ring::hmac::verify(&key, all.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    }

    #[test]
    fn the_key_set_names_the_key() {
        let key = key();
        let set = key.jwks();
        assert_eq!((&set["keys"][0]["kty"], &set["keys"][0]["kid"]), (&"EC".into(), &key.id.clone().into()));
        assert_eq!(URL_SAFE_NO_PAD.decode(set["keys"][0]["x"].as_str().unwrap()).unwrap(), key.public[1..33]);
    }
}
