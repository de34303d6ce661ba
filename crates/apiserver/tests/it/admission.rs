//! What admission adds and refuses, through the whole server.

use serde_json::{Value, json};

use crate::fixture::Fixture;

#[tokio::test]
async fn ingresses_get_the_default_class() {
    let fixture = Fixture::start().await;
    let classes = "/apis/networking.k8s.io/v1/ingressclasses";
    for (name, default) in [("a", "false"), ("b", "true")] {
        let annotations = json!({"ingressclass.kubernetes.io/is-default-class": default});
        let class = json!({"metadata": {"name": name, "annotations": annotations}, "spec": {"controller": "x.io/y"}});
        fixture.ok("POST", classes, &class.to_string()).await;
    }
    // The cache that admission reads has them by now.
    fixture.ok("GET", classes, "").await;
    let create = async |name: &str, class: Option<&str>| {
        let backend = json!({"service": {"name": "s", "port": {"number": 80}}});
        let body = json!({"metadata": {"name": name}, "spec": {"ingressClassName": class, "defaultBackend": backend}});
        let made =
            fixture.ok("POST", "/apis/networking.k8s.io/v1/namespaces/default/ingresses", &body.to_string()).await;
        made["spec"]["ingressClassName"].clone()
    };
    assert_eq!((create("x", None).await, create("y", Some("a")).await), (json!("b"), json!("a")));
}

#[tokio::test]
async fn bound_pods_have_the_zone_of_their_node() {
    let fixture = Fixture::start().await;
    fixture.account("default").await;
    let labels = json!({"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "o"});
    fixture.ok("POST", "/api/v1/nodes", &json!({"metadata": {"name": "n1", "labels": labels}}).to_string()).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    fixture.ok("POST", pods, &pod.to_string()).await;
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}});
    fixture.ok("POST", &format!("{pods}/p/binding"), &binding.to_string()).await;
    let labels = fixture.ok("GET", &format!("{pods}/p"), "").await["metadata"]["labels"].clone();
    assert_eq!(labels, json!({"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z"}));
}

#[tokio::test]
async fn bound_pods_are_promised_no_node() {
    let fixture = Fixture::start().await;
    fixture.account("default").await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    fixture.ok("POST", pods, &pod.to_string()).await;
    let promise = json!({"status": {"nominatedNodeName": "n1"}});
    let promised = fixture.ok("PATCH", &format!("{pods}/p/status"), &promise.to_string()).await;
    assert_eq!(promised["status"]["nominatedNodeName"], "n1");
    let binding = json!({"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n2"}});
    fixture.ok("POST", &format!("{pods}/p/binding"), &binding.to_string()).await;
    let bound = fixture.ok("GET", &format!("{pods}/p"), "").await;
    assert_eq!((&bound["spec"]["nodeName"], &bound["status"]["nominatedNodeName"]), (&json!("n2"), &Value::Null));
}

fn pem_of(der: &[u8], label: &str) -> String {
    use base64::Engine;
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", base64::prelude::BASE64_STANDARD.encode(der))
}

#[tokio::test]
async fn certificates_are_for_who_may() {
    use base64::Engine;
    use rustls::pki_types::pem::PemObject;
    let fixture = Fixture::start().await;
    let requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let request = |name: &str, group: &str, signer: &str| {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::OrganizationName, group);
        let pem = params.serialize_request(&rcgen::KeyPair::generate().unwrap()).unwrap().pem().unwrap();
        let pem = base64::prelude::BASE64_STANDARD.encode(pem);
        json!({"metadata": {"name": name}, "spec": {"request": pem, "signerName": signer, "usages": ["client auth"]}})
            .to_string()
    };
    let signer = "kubernetes.io/kube-apiserver-client";
    let why = "use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed";
    fixture.check("POST", requests, &request("a", "system:masters", signer), 403, why).await;
    let mut made: Value = serde_json::from_str(&request("a", "people", signer)).unwrap();
    made["spec"]["username"] = json!("somebody else");
    made["spec"]["extra"] = json!({"k": ["v"]});
    let jane = [
        ("impersonate-user", "jane"),
        ("impersonate-group", "system:masters"),
        ("impersonate-uid", "77"),
        ("impersonate-extra-scopes", "a"),
        ("impersonate-extra-scopes", "b"),
    ];
    let reply = fixture.send_as("POST", requests, "application/json", made.to_string().as_bytes(), &jane).await;
    assert_eq!(reply.code, 201, "{}", reply.text);
    let made = reply.json;
    let asked = json!({"username": "jane", "uid": "77", "groups": ["system:masters", "system:authenticated"], "extra": {"scopes": ["a", "b"]}});
    for key in ["username", "uid", "groups", "extra"] {
        assert_eq!(made["spec"][key], asked[key], "{key}");
    }
    // Somebody else's key, or no request at all.
    let pem = base64::prelude::BASE64_STANDARD.decode(made["spec"]["request"].as_str().unwrap()).unwrap();
    let der = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(&pem).unwrap().to_vec();
    let at = der.windows(6).position(|bytes| bytes == b"people").unwrap();
    let mut forged = der.clone();
    forged[at] = b'q';
    let cases = [
        (pem_of(&forged, "CERTIFICATE REQUEST"), "x509: ECDSA verification failure"),
        (pem_of(&der, "CERTIFICATE"), "PEM block type must be CERTIFICATE REQUEST"),
        (pem_of(&[&der[..], b"x"].concat(), "CERTIFICATE REQUEST"), "asn1: syntax error: trailing data"),
        (String::new(), "spec.request: Invalid value: \\\"\\\": PEM block type must be CERTIFICATE REQUEST"),
    ];
    for (pem, why) in cases {
        let spec = json!({"request": base64::prelude::BASE64_STANDARD.encode(pem), "signerName": "example.com/s", "usages": ["client auth"]});
        fixture.check("POST", requests, &json!({"metadata": {"name": "b"}, "spec": spec}).to_string(), 422, why).await;
    }
    let spec = json!({"signerName": "example.com/s", "usages": ["client auth"]});
    let why = "spec.request: Invalid value: null: PEM block type must be CERTIFICATE REQUEST";
    fixture.check("POST", requests, &json!({"metadata": {"name": "b"}, "spec": spec}).to_string(), 422, why).await;
    // Somebody who may approve, but not for this signer.
    let rule = json!({"verbs": ["update"], "apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval"]});
    let role = json!({"metadata": {"name": "approver"}, "rules": [rule]});
    let roles = "/apis/rbac.authorization.k8s.io/v1";
    fixture.ok("POST", &format!("{roles}/clusterroles"), &role.to_string()).await;
    let subject = json!({"kind": "User", "name": "carol", "apiGroup": "rbac.authorization.k8s.io"});
    let target = json!({"kind": "ClusterRole", "name": "approver", "apiGroup": "rbac.authorization.k8s.io"});
    let binding = json!({"metadata": {"name": "approver"}, "roleRef": target, "subjects": [subject]});
    fixture.ok("POST", &format!("{roles}/clusterrolebindings"), &binding.to_string()).await;
    let mut approved = made.clone();
    approved["status"]["conditions"] = json!([{"type": "Approved", "status": "True", "reason": "x"}]);
    let at = format!("{requests}/a/approval");
    let carol = [("impersonate-user", "carol")];
    let reply = fixture.send_as("PUT", &at, "application/json", approved.to_string().as_bytes(), &carol).await;
    let why = r#"user not permitted to approve requests with signerName \"kubernetes.io/kube-apiserver-client\""#;
    assert!(reply.code == 403 && reply.text.contains(why), "{}", reply.text);
    fixture.ok("PUT", &at, &approved.to_string()).await;
}
