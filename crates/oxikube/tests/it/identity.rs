//! Users, accounts and nodes that prove who they are, and which controllers run, with the real kubectl.

use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use testkit::machine::Machine;

use crate::support::{SOON, Step, every, jsonpath, started};

#[test]
fn who_is_who() {
    let machine = started("identity");
    let steps: [Step; 5] = [
        ("a_user_asks_for_a_certificate", a_user_asks_for_a_certificate),
        ("a_kubelet_is_approved", a_kubelet_is_approved),
        ("a_secret_holds_a_token", a_secret_holds_a_token),
        ("a_node_joins_by_token", a_node_joins_by_token),
        ("a_node_says_how_long_secrets_are_good", a_node_says_how_long_secrets_are_good),
    ];
    every(&machine, &steps);
}

#[test]
fn controllers_can_be_switched_off() {
    let machine = Machine::new("switched", env!("CARGO_BIN_EXE_oxikube"));
    let said = machine.oxikube("start --controllers=*,-foo").failed();
    assert!(said.contains(r#""foo" is not in the list of known controllers"#), "{said}");
    machine.oxikube("start --controllers=*,-deployment-controller").ok();
    machine.kubectl("create deployment d --image=nobody/has:this").ok();
    // Another controller acts, so that this one would have.
    machine.kubectl("create namespace other").ok();
    machine.eventually("others act", SOON, || {
        let account = machine.kubectl("-n other get serviceaccount default -o name").code;
        (account == Some(0)).then_some(())
    });
    let sets = || machine.kubectl("get replicasets -o name").ok();
    let observed = || jsonpath(&machine, "deployment d", "{.status.observedGeneration}");
    assert_eq!((sets().as_str(), observed().as_str()), ("", ""));
    // The choice outlives a restart.
    machine.oxikube("stop").ok();
    machine.oxikube("start").ok();
    machine.kubectl("create namespace another").ok();
    machine.eventually("others act", SOON, || {
        let account = machine.kubectl("-n another get serviceaccount default -o name").code;
        (account == Some(0)).then_some(())
    });
    assert_eq!((sets().as_str(), observed().as_str()), ("", ""));
    machine.oxikube("stop").ok();
    machine.oxikube("start --controllers=*").ok();
    machine.eventually("it is rolled out", SOON, || (!sets().is_empty() && observed() == "1").then_some(()));
}

/// A new key and a request for a certificate.
fn request(machine: &Machine, name: &str, subject: &str) -> String {
    let folder = machine.folder();
    let (key, request) = (folder.join(format!("{name}.key")), folder.join(format!("{name}.csr")));
    let made = Command::new("openssl")
        .args(["req", "-new", "-newkey", "rsa:2048", "-nodes", "-subj", subject, "-keyout"])
        .arg(&key)
        .arg("-out")
        .arg(&request)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    BASE64_STANDARD.encode(std::fs::read(request).unwrap())
}

fn signing_request(name: &str, request: &str, signer: &str, usages: &str) -> String {
    format!(
        r#"{{"apiVersion":"certificates.k8s.io/v1","kind":"CertificateSigningRequest","metadata":{{"name":"{name}"}},
        "spec":{{"request":"{request}","signerName":"kubernetes.io/{signer}","expirationSeconds":86400,"usages":[{usages}]}}}}"#
    )
}

/// As the Kubernetes documentation tells it.
fn a_user_asks_for_a_certificate(machine: &Machine) {
    let asked = request(machine, "jane", "/O=team/CN=jane");
    let client = r#""client auth""#;
    machine.kubectl_with("apply -f -", &signing_request("jane", &asked, "kube-apiserver-client", client)).ok();
    let row = || machine.kubectl("get csr jane --no-headers").ok();
    assert!(row().trim_end().ends_with("Pending"), "{}", row());
    assert_eq!(
        machine.kubectl("certificate approve jane").ok(),
        "certificatesigningrequest.certificates.k8s.io/jane approved\n"
    );
    let certificate = machine.eventually("it is issued", SOON, || {
        Some(jsonpath(machine, "csr jane", "{.status.certificate}")).filter(|text| !text.is_empty())
    });
    assert!(row().trim_end().ends_with("Approved,Issued"), "{}", row());
    let (folder, pem) = (machine.folder(), BASE64_STANDARD.decode(certificate).unwrap());
    std::fs::write(folder.join("jane.crt"), pem).unwrap();
    let (key, crt) = (folder.join("jane.key"), folder.join("jane.crt"));
    let (key, crt) = (key.to_str().unwrap(), crt.to_str().unwrap());
    let credentials =
        format!("config set-credentials jane --client-key={key} --client-certificate={crt} --embed-certs=true");
    machine.kubectl(&credentials).ok();
    assert_eq!(machine.kubectl("--user jane auth whoami -o jsonpath={.status.userInfo.username}").ok(), "jane");
    let groups = machine.kubectl("--user jane auth whoami -o jsonpath={.status.userInfo.groups}").ok();
    assert_eq!(groups, r#"["team","system:authenticated"]"#);
    let said = machine.kubectl("--user jane get pods").failed();
    assert!(said.contains(r#"User "jane" cannot list resource "pods""#), "{said}");
    machine.kubectl("create role reader --verb=list --resource=pods").ok();
    machine.kubectl("create rolebinding team-reads --role=reader --group=team").ok();
    machine.kubectl("--user jane get pods").ok();
    // One that is denied gets nothing, and one for superusers is not even taken.
    machine.kubectl_with("apply -f -", &signing_request("denied", &asked, "kube-apiserver-client", client)).ok();
    machine.kubectl("certificate deny denied").ok();
    let row = machine.kubectl("get csr denied --no-headers").ok();
    assert!(row.trim_end().ends_with("Denied"), "{row}");
    let masters = request(machine, "masters", "/O=system:masters/CN=jane");
    let said =
        machine.kubectl_with("apply -f -", &signing_request("m", &masters, "kube-apiserver-client", client)).failed();
    assert!(
        said.contains("use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"),
        "{said}"
    );
    // What its signer does not sign fails, and says why.
    let server = r#""server auth""#;
    machine.kubectl_with("apply -f -", &signing_request("server", &asked, "kube-apiserver-client", server)).ok();
    machine.kubectl("certificate approve server").ok();
    let failed = r#"{.status.conditions[?(@.type=="Failed")].message}"#;
    machine.eventually("it fails", SOON, || {
        let why = jsonpath(machine, "csr server", failed);
        (why == "invalid usage for client certificate: server auth").then_some(())
    });
}

/// Who may ask for kubelets' certificates gets them at once.
fn a_kubelet_is_approved(machine: &Machine) {
    let asked = request(machine, "node", "/O=system:nodes/CN=system:node:other");
    let usages = r#""client auth","digital signature""#;
    let body = signing_request("node", &asked, "kube-apiserver-client-kubelet", usages);
    let create = "create role nothing --verb=get --resource=pods --dry-run=client";
    machine.kubectl(create).ok();
    let asks = "create clusterrole asks --verb=create,get --resource=certificatesigningrequests.certificates.k8s.io";
    machine.kubectl(asks).ok();
    machine.kubectl("create clusterrolebinding bootstrap-asks --clusterrole=asks --user=installer").ok();
    machine.kubectl_with("--as installer create -f -", &body).ok();
    // Nobody allowed it yet: somebody approves later.
    let bind = "create clusterrolebinding bootstrap-approved --clusterrole=system:certificates.k8s.io:certificatesigningrequests:nodeclient --user=installer";
    machine.kubectl(bind).ok();
    machine.eventually("it is issued", SOON, || {
        let row = machine.kubectl("get csr node --no-headers").ok();
        row.trim_end().ends_with("Approved,Issued").then_some(())
    });
    let why = jsonpath(machine, "csr node", "{.status.conditions[0].reason}: {.status.conditions[0].message}");
    assert_eq!(why, "AutoApproved: Auto approving kubelet client certificate after SubjectAccessReview.");
}

/// A Secret made by hand, beside `kubectl create token`.
fn a_secret_holds_a_token(machine: &Machine) {
    machine.kubectl("create serviceaccount robot").ok();
    let short = machine.kubectl("create token robot").ok();
    let who = |token: &str| {
        let args = ["--token", token.trim(), "auth", "whoami", "-o", "jsonpath={.status.userInfo.username}"];
        let mut all = vec!["--kubeconfig", "/dev/null"];
        let server = jsonpath_of_config(machine, "{.clusters[0].cluster.server}");
        all.extend(["--server", &server, "--insecure-skip-tls-verify"]);
        all.extend(args);
        machine.kubectl_args(&all)
    };
    assert_eq!(who(&short).ok(), "system:serviceaccount:default:robot");
    let secret = r#"{"apiVersion":"v1","kind":"Secret","type":"kubernetes.io/service-account-token",
        "metadata":{"name":"robot-token","annotations":{"kubernetes.io/service-account.name":"robot"}}}"#;
    machine.kubectl_with("apply -f -", secret).ok();
    let token = machine.eventually("it is filled", SOON, || {
        Some(jsonpath(machine, "secret robot-token", "{.data.token}")).filter(|token| !token.is_empty())
    });
    let token = String::from_utf8(BASE64_STANDARD.decode(token).unwrap()).unwrap();
    assert_eq!(who(&token).ok(), "system:serviceaccount:default:robot");
    assert_ne!(jsonpath(machine, "secret robot-token", r"{.data.ca\.crt}"), "");
    machine.eventually("its use is noted", SOON, || {
        let used = jsonpath(machine, "secret robot-token", r"{.metadata.labels.kubernetes\.io/legacy-token-last-used}");
        (!used.is_empty()).then_some(())
    });
    let tracked = "-n kube-system configmap kube-apiserver-legacy-service-account-token-tracking";
    assert_eq!(jsonpath(machine, tracked, "{.data.since}").len(), "2026-01-01".len());
    // With its account, it goes.
    machine.kubectl("delete serviceaccount robot").ok();
    machine.eventually("it goes", SOON, || {
        machine.kubectl("get secret robot-token --ignore-not-found -o name").ok().is_empty().then_some(())
    });
    let said = who(&token).failed();
    assert!(said.contains("Unauthorized") || said.contains("logged in"), "{said}");
}

fn jsonpath_of_config(machine: &Machine, path: &str) -> String {
    machine.kubectl_args(&["config", "view", "--raw", "--minify", "-o", &format!("jsonpath={path}")]).ok()
}

fn a_node_joins_by_token(machine: &Machine) {
    let secret = r#"{"apiVersion":"v1","kind":"Secret","type":"bootstrap.kubernetes.io/token","metadata":{"name":"bootstrap-token-abcdef","namespace":"kube-system"},
        "stringData":{"token-id":"abcdef","token-secret":"0123456789abcdef","usage-bootstrap-authentication":"true",
        "auth-extra-groups":"system:bootstrappers:workers"}}"#;
    machine.kubectl_with("apply -f -", secret).ok();
    let server = jsonpath_of_config(machine, "{.clusters[0].cluster.server}");
    let args = |token: &'static str| {
        let all = ["--kubeconfig", "/dev/null", "--server", &server, "--insecure-skip-tls-verify", "--token", token];
        let mut all = all.to_vec();
        all.extend(["auth", "whoami", "-o", "jsonpath={.status.userInfo.username} {.status.userInfo.groups}"]);
        machine.kubectl_args(&all)
    };
    let expect =
        r#"system:bootstrap:abcdef ["system:bootstrappers","system:bootstrappers:workers","system:authenticated"]"#;
    assert_eq!(args("abcdef.0123456789abcdef").ok(), expect);
    args("abcdef.0123456789abcdee").failed();
}

fn a_node_says_how_long_secrets_are_good(machine: &Machine) {
    let ttl = r"{.items[0].metadata.annotations.node\.alpha\.kubernetes\.io/ttl}";
    machine.eventually("it is said", SOON, || (jsonpath(machine, "nodes", ttl) == "0").then_some(()));
}
