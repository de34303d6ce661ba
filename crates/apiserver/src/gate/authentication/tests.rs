use std::collections::BTreeMap;

use http::HeaderValue;
use pki::CertificateSpec;

use super::super::TokenIssuer;
use super::*;
use crate::gate::tests::World;
use apimachinery::Value;
use env::Env;

const ISSUER: &str = "https://kubernetes.default.svc.cluster.local";

struct Cluster {
    _folder: tempfile::TempDir,
    env: Env,
    pki: Arc<ClusterPki>,
    authenticator: Authenticator,
    world: World,
}

fn cluster() -> Cluster {
    let folder = tempfile::tempdir().unwrap();
    let env = Env::seeded(1, "2026-01-01T00:00:00Z".parse().unwrap());
    let pki = Arc::new(ClusterPki::load_or_create(folder.path(), &env).unwrap());
    let authenticator = Authenticator::new(pki.clone(), ISSUER).unwrap();
    let world = World::default();
    world.put("", "serviceaccounts", r#"{"metadata":{"name":"sa","namespace":"n","uid":"sa-1"}}"#);
    world.put(
        "",
        "pods",
        r#"{"metadata":{"name":"p","namespace":"n","uid":"p-1"},"spec":{"serviceAccountName":"sa","nodeName":"a"}}"#,
    );
    world.put("", "nodes", r#"{"metadata":{"name":"a","uid":"a-1"}}"#);
    world.put("", "secrets", r#"{"metadata":{"name":"s","namespace":"n","uid":"s-1"}}"#);
    Cluster { _folder: folder, env, pki, authenticator, world }
}

impl Cluster {
    fn request(&self, name: &str, spec: &str) -> Result<Value, Status> {
        let request = Value::parse(format!(r#"{{"spec":{spec}}}"#).as_bytes()).unwrap();
        TokenIssuer::new(self.pki.clone(), ISSUER).issue(&self.world, &self.env, "n", name, request)
    }

    fn token(&self, spec: &str) -> String {
        self.request("sa", spec).unwrap().str_at(&["status", "token"]).unwrap().to_owned()
    }

    fn bearer(&self, token: &str, after_seconds: i64) -> Result<UserInfo, u16> {
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
        let now = self.env.now() + SignedDuration::from_secs(after_seconds);
        self.authenticator.authenticate(&headers, &[], &self.world, now).map_err(|status| status.code)
    }
}

#[test]
fn certificates_name_users() {
    let cluster = cluster();
    let ask = |spec: &CertificateSpec| {
        let leaf = cluster.pki.ca().issue(spec).unwrap();
        let chain = leaf.chain().unwrap();
        cluster.authenticator.authenticate(&HeaderMap::new(), &chain, &cluster.world, cluster.env.now())
    };
    let admin = ask(&CertificateSpec::client("kubernetes-admin", "system:masters")).unwrap();
    assert_eq!(
        (admin.name.as_str(), admin.groups.join(" ")),
        ("kubernetes-admin", "system:masters system:authenticated".into())
    );
    assert!(admin.extra[CREDENTIAL_ID][0].starts_with("X509SHA256="));
    assert_eq!(ask(&CertificateSpec::server("s", &["s"], &[])).unwrap_err().code, 401);
    // Known from the first time on, and yet not when its time is over.
    let leaf = cluster.pki.ca().issue(&CertificateSpec::client("once", "group")).unwrap();
    let chain = leaf.chain().unwrap();
    let at =
        |now| cluster.authenticator.authenticate(&HeaderMap::new(), &chain, &cluster.world, now).map(|user| user.name);
    let last = leaf.not_after();
    for now in [cluster.env.now(), last, cluster.env.now()] {
        assert_eq!(at(now).unwrap(), "once");
    }
    assert_eq!(at(last + SignedDuration::from_secs(1)).unwrap_err().code, 401);
    let nobody = cluster.authenticator.authenticate(&HeaderMap::new(), &[], &cluster.world, cluster.env.now()).unwrap();
    assert_eq!(nobody, UserInfo::anonymous());
}

#[test]
fn tokens_name_service_accounts() {
    let cluster = cluster();
    let user = cluster.bearer(&cluster.token("{}"), 0).unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:n:sa", "sa-1"));
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:n", "system:authenticated"]);
    assert!(user.extra[CREDENTIAL_ID][0].starts_with("JTI="));

    let bound = cluster.token(r#"{"boundObjectRef":{"apiVersion":"v1","kind":"Pod","name":"p","uid":"p-1"}}"#);
    let user = cluster.bearer(&bound, 0).unwrap();
    let extra = |key: &str| user.extra[&format!("authentication.kubernetes.io/{key}")].join(",");
    assert_eq!(["pod-name", "pod-uid", "node-name", "node-uid"].map(extra), ["p", "p-1", "a", "a-1"]);
    assert_eq!(cluster.bearer(&bound, 3661), Err(401));
    assert_eq!(cluster.bearer("nonsense", 0), Err(401));
    assert_eq!(cluster.bearer(&cluster.token(r#"{"audiences":["other"]}"#), 0), Err(401));

    // The pod is being deleted: for a minute the token is still good.
    let deleting =
        r#"{"metadata":{"name":"p","namespace":"n","uid":"p-1","deletionTimestamp":"2026-01-01T00:00:00Z"}}"#;
    cluster.world.put("", "pods", deleting);
    assert!(cluster.bearer(&bound, 30).is_ok());
    assert_eq!(cluster.bearer(&bound, 61), Err(401));
    cluster.world.put("", "pods", r#"{"metadata":{"name":"p","namespace":"n","uid":"p-2"}}"#);
    assert_eq!(cluster.bearer(&bound, 0), Err(401));
    cluster.world.put("", "serviceaccounts", r#"{"metadata":{"name":"sa","namespace":"n","uid":"sa-2"}}"#);
    assert_eq!(cluster.bearer(&cluster.token("{}"), 0).map(|user| user.uid), Ok("sa-2".into()));
    assert_eq!(cluster.bearer(&bound, 0), Err(401));
}

#[test]
fn bindings_are_checked() {
    let cluster = cluster();
    let refused = |name: &str, spec: &str| {
        let status = cluster.request(name, spec).unwrap_err();
        format!("{} {}", status.code, status.message)
    };
    assert_eq!(refused("x", "{}"), "404 serviceaccounts \"x\" not found");
    assert_eq!(
        refused("sa", r#"{"expirationSeconds":599}"#),
        "422 TokenRequest.authentication.k8s.io \"\" is invalid: spec.expirationSeconds: Invalid value: 599: may not specify a \
         duration less than 10 minutes"
    );
    assert_eq!(
        refused("sa", r#"{"boundObjectRef":{"apiVersion":"v1","kind":"Pod","name":"q"}}"#),
        "404 pods \"q\" not found"
    );
    assert_eq!(
        refused("sa", r#"{"boundObjectRef":{"apiVersion":"apps/v1","kind":"Deployment","name":"q"}}"#),
        "400 cannot bind token to object of type apps/v1, Kind=Deployment"
    );
    assert!(
        refused("sa", r#"{"boundObjectRef":{"apiVersion":"v1","kind":"Pod","name":"p","uid":"x"}}"#)
            .starts_with("409 ")
    );
    cluster.world.put("", "serviceaccounts", r#"{"metadata":{"name":"other","namespace":"n","uid":"o"}}"#);
    assert_eq!(
        refused("other", r#"{"boundObjectRef":{"apiVersion":"v1","kind":"Pod","name":"p"}}"#),
        "400 cannot bind token for serviceaccount \"other\" to pod running with different serviceaccount name."
    );
}

#[test]
fn a_kubelets_token_outlives_its_warning() {
    let cluster = cluster();
    let spec = r#"{"expirationSeconds":3607,"boundObjectRef":{"apiVersion":"v1","kind":"Pod","name":"p"}}"#;
    let answer = cluster.request("sa", spec).unwrap();
    assert_eq!(answer.str_at(&["status", "expirationTimestamp"]), Some("2026-01-01T01:00:07Z"));
    let token = answer.str_at(&["status", "token"]).unwrap();
    assert!(cluster.bearer(token, 364 * 24 * 3600).is_ok());
    let secret =
        cluster.token(r#"{"expirationSeconds":3607,"boundObjectRef":{"apiVersion":"v1","kind":"Secret","name":"s"}}"#);
    assert_eq!(cluster.bearer(&secret, 3700), Err(401));
}

#[test]
fn browsers_show_their_token_as_a_subprotocol() {
    let cluster = cluster();
    let encoded = URL_SAFE_NO_PAD.encode(cluster.token("{}"));
    let mut headers = HeaderMap::new();
    let value = format!("v5.channel.k8s.io, base64url.bearer.authorization.k8s.io.{encoded}");
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(&value).unwrap());
    let user = cluster.authenticator.authenticate(&headers, &[], &cluster.world, cluster.env.now()).unwrap();
    assert_eq!(user.name, "system:serviceaccount:n:sa");
}

#[test]
fn tokens_of_secrets_name_accounts_while_both_are_there() {
    use base64::prelude::BASE64_STANDARD;
    let cluster = cluster();
    let token = cluster.pki.token_key().sign_legacy(&pki::LegacyClaims::new("n", "sa", "sa-1", "t")).unwrap();
    let put = |token: &str, more: &str| {
        let data = BASE64_STANDARD.encode(token);
        let json =
            format!(r#"{{"metadata":{{"name":"t","namespace":"n","uid":"t-1"{more}}},"data":{{"token":"{data}"}}}}"#);
        cluster.world.put("", "secrets", &json);
    };
    let why = |after: i64| {
        let now = cluster.env.now() + SignedDuration::from_secs(after);
        let result = cluster.authenticator.token(&token, &[ISSUER.to_owned()], &cluster.world, now);
        result.map(|(user, _)| user).map_err(|why| why.trim_start_matches("[invalid bearer token, ").to_owned())
    };
    assert_eq!(why(0).unwrap_err(), "service account token has been invalidated]");
    put(&token, "");
    let user = why(400 * 86_400).unwrap();
    assert_eq!((user.name.as_str(), user.uid.as_str()), ("system:serviceaccount:n:sa", "sa-1"));
    assert_eq!(user.groups, ["system:serviceaccounts", "system:serviceaccounts:n", "system:authenticated"]);
    let noted = futures_util::FutureExt::now_or_never(cluster.authenticator.uses().next());
    assert_eq!(noted, Some(vec![(ObjectKey::new("n", "t"), "2027-02-05".to_owned())]));
    put("another", "");
    assert_eq!(why(0).unwrap_err(), "service account token does not match server's copy]");
    put(&token, r#","labels":{"kubernetes.io/legacy-token-invalid-since":"2026-01-01"}"#);
    assert!(
        why(0)
            .unwrap_err()
            .starts_with("the token in secret n/t for service account n/sa has been marked invalid. Use")
    );
    put(&token, r#","deletionTimestamp":"2026-01-01T00:00:00Z""#);
    assert_eq!(why(0).unwrap_err(), "service account token has been invalidated]");
    put(&token, "");
    cluster.world.put("", "serviceaccounts", r#"{"metadata":{"name":"sa","namespace":"n","uid":"sa-2"}}"#);
    assert_eq!(why(0).unwrap_err(), "service account UID (sa-2) does not match claim (sa-1)]");
}

#[test]
fn bootstrap_tokens_name_who_joins() {
    use base64::prelude::BASE64_STANDARD;
    let cluster = cluster();
    let put = |members: &[(&str, &str)]| {
        let mut all = BTreeMap::from([
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
        ]);
        all.extend(members.iter().copied());
        let data: Vec<String> =
            all.iter().map(|(key, value)| format!(r#""{key}":"{}""#, BASE64_STANDARD.encode(value))).collect();
        let json = format!(
            r#"{{"metadata":{{"name":"bootstrap-token-abcdef","namespace":"kube-system","uid":"b"}},"type":"bootstrap.kubernetes.io/token","data":{{{}}}}}"#,
            data.join(",")
        );
        cluster.world.put("", "secrets", &json);
    };
    let groups =
        || cluster.bearer("abcdef.0123456789abcdef", 0).map(|user| format!("{} {}", user.name, user.groups.join(" ")));
    assert_eq!(groups(), Err(401));
    put(&[]);
    assert_eq!(groups().unwrap(), "system:bootstrap:abcdef system:bootstrappers system:authenticated");
    assert_eq!(cluster.bearer("abcdef.0123456789abcdee", 0), Err(401));
    put(&[("auth-extra-groups", "system:bootstrappers:kubeadm:default-node-token")]);
    let expect = "system:bootstrap:abcdef system:bootstrappers system:bootstrappers:kubeadm:default-node-token system:authenticated";
    assert_eq!(groups().unwrap(), expect);
    for refused in [
        ("auth-extra-groups", "system:masters"),
        ("expiration", "2025-12-31T23:59:59Z"),
        ("expiration", "soon"),
        ("usage-bootstrap-authentication", "false"),
        ("token-id", "other0"),
    ] {
        put(&[refused]);
        assert_eq!(groups(), Err(401), "{refused:?}");
    }
    put(&[("expiration", "2026-01-01T00:00:01Z")]);
    assert!(groups().is_ok());
}
