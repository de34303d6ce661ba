//! Who is let in, and as whom.

use bytes::Bytes;
use http::StatusCode;
use pki::CertificateSpec;

use crate::fixture::Fixture;
use crate::wire::Wire;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn certificates_and_tokens_name_users() {
    let fixture = Fixture::start().await;
    let mut nobody = Wire::connect_as(&fixture, None).await;
    let (code, _, body) = nobody.send("GET", MAPS, &[], Bytes::new()).await;
    let text = String::from_utf8_lossy(&body).into_owned();
    let refusal = r#"User \"system:anonymous\" cannot list resource \"configmaps\""#;
    assert!(code == StatusCode::FORBIDDEN && text.contains(refusal), "{text}");
    for (path, expect) in [("/version", StatusCode::OK), ("/livez", StatusCode::OK), ("/apis", StatusCode::FORBIDDEN)] {
        let (code, _, _) = nobody.send("GET", path, &[], Bytes::new()).await;
        assert_eq!(code, expect, "{path}");
    }
    let (code, _, _) = nobody.send("GET", MAPS, &[("authorization", "Bearer nonsense")], Bytes::new()).await;
    assert_eq!(code, StatusCode::UNAUTHORIZED);

    let alice = fixture.pki.certificate("alice", &CertificateSpec::client("alice", "team")).unwrap();
    let mut alice = Wire::connect_as(&fixture, Some(alice)).await;
    let (code, _, _) = alice.send("GET", MAPS, &[], Bytes::new()).await;
    assert_eq!(code, StatusCode::FORBIDDEN);
    let role = r#"{"metadata":{"name":"r"},"rules":[{"apiGroups":[""],"resources":["configmaps"],"verbs":["list"]}]}"#;
    let roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    fixture.ok("POST", &format!("{roles}/roles"), role).await;
    let binding = r#"{"metadata":{"name":"b"},"roleRef":{"apiGroup":"rbac.authorization.k8s.io","kind":"Role","name":"r"},
        "subjects":[{"kind":"Group","name":"team","apiGroup":"rbac.authorization.k8s.io"},
        {"kind":"ServiceAccount","name":"default","namespace":"default"}]}"#;
    fixture.ok("POST", &format!("{roles}/rolebindings"), binding).await;
    let (code, _, _) = alice.send("GET", MAPS, &[], Bytes::new()).await;
    assert_eq!(code, StatusCode::OK, "a binding counts for the next request");
    let (code, _, _) = alice.send("DELETE", MAPS, &[], Bytes::new()).await;
    assert_eq!(code, StatusCode::FORBIDDEN);

    let accounts = "/api/v1/namespaces/default/serviceaccounts";
    let issued =
        fixture.ok("POST", &format!("{accounts}/default/token"), r#"{"spec":{"expirationSeconds":600}}"#).await;
    let bearer = format!("Bearer {}", issued["status"]["token"].as_str().unwrap());
    let (code, _, _) = nobody.send("GET", MAPS, &[("authorization", &bearer)], Bytes::new()).await;
    assert_eq!(code, StatusCode::OK);
    fixture.ok("DELETE", &format!("{accounts}/default"), "").await;
    let (code, _, _) = nobody.send("GET", MAPS, &[("authorization", &bearer)], Bytes::new()).await;
    assert_eq!(code, StatusCode::UNAUTHORIZED, "the account is gone");
}

#[tokio::test]
async fn reviews_are_answered() {
    let fixture = Fixture::start().await;
    let reviews = "/apis/authorization.k8s.io/v1";
    let body = r#"{"spec":{"resourceAttributes":{"verb":"get","resource":"pods","namespace":"default"}}}"#;
    let own = fixture.ok("POST", &format!("{reviews}/selfsubjectaccessreviews"), body).await;
    assert_eq!(
        (own["kind"].as_str(), own["status"]["allowed"].as_bool()),
        (Some("SelfSubjectAccessReview"), Some(true))
    );
    let body = r#"{"spec":{"user":"bob","resourceAttributes":{"verb":"get","resource":"pods","namespace":"default"}}}"#;
    let other = fixture.ok("POST", &format!("{reviews}/subjectaccessreviews"), body).await;
    assert_eq!(other["status"]["allowed"], false);
    fixture.check("GET", &format!("{reviews}/subjectaccessreviews"), "", 405, "").await;
    let whoami = fixture.ok("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", "{}").await;
    assert_eq!(whoami["status"]["userInfo"]["username"], "kubernetes-admin");
}

#[tokio::test]
async fn the_issuer_is_discoverable() {
    let fixture = Fixture::start().await;
    let configuration = fixture.ok("GET", "/.well-known/openid-configuration", "").await;
    assert_eq!(configuration["issuer"], "https://kubernetes.default.svc.cluster.local");
    let keys = fixture.ok("GET", "/openid/v1/jwks", "").await;
    assert_eq!(keys["keys"].as_array().unwrap().len(), 1);
}
