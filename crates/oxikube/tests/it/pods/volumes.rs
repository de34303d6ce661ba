//! What pods are given: variables and files.

use testkit::machine::Machine;

use super::{busybox, create, event, log, ready, sh, shows, taken};
use crate::support::{SOON, jsonpath};

const VARIABLES: &str = r#"    resources: {limits: {memory: 32Mi, cpu: 500m}}
    envFrom: [{prefix: P_, configMapRef: {name: settings}}, {secretRef: {name: none, optional: true}}]
    env:
    - {name: COLOUR, valueFrom: {configMapKeyRef: {name: settings, key: colour}}}
    - {name: PASSWORD, valueFrom: {secretKeyRef: {name: hidden, key: password}}}
    - {name: MY_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    - {name: MY_IP, valueFrom: {fieldRef: {fieldPath: status.podIP}}}
    - {name: MY_LABEL, valueFrom: {fieldRef: {fieldPath: "metadata.labels['app']"}}}
    - {name: MEMORY, valueFrom: {resourceFieldRef: {resource: limits.memory, divisor: 1Mi}}}
    - {name: CPU, valueFrom: {resourceFieldRef: {resource: limits.cpu}}}
    - {name: BOTH, value: "$(COLOUR)-$(MY_NAME)-$$(X)"}
  restartPolicy: Never
"#;

const FILES: &str = r#"    volumeMounts:
    - {name: settings, mountPath: /settings}
    - {name: hidden, mountPath: /hidden}
    - {name: all, mountPath: /all}
    - {name: settings, mountPath: /one, subPath: colour}
  volumes:
  - {name: settings, configMap: {name: settings}}
  - {name: hidden, secret: {secretName: hidden, defaultMode: 0400}}
  - name: all
    projected:
      sources:
      - {serviceAccountToken: {path: token, audience: somebody, expirationSeconds: 600}}
      - {downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
      - {configMap: {name: settings, items: [{key: colour, path: deep/colour}]}}
"#;

pub fn begin(machine: &Machine) {
    machine.kubectl("create configmap settings --from-literal=colour=green").ok();
    machine.kubectl("create secret generic hidden --from-literal=password=sesame").ok();
    let missing = format!(
        "    volumeMounts: [{{name: d, mountPath: /d}}]\n  volumes: [{{name: d, hostPath: {{path: {}, type: Directory}}}}]\n",
        machine.folder().join("later").display()
    );
    create(
        machine,
        &[
            ("variables", &busybox("env", VARIABLES)),
            ("files", &busybox("exec sleep 1000", FILES)),
            ("missing-folder", &busybox("exec sleep 1000", &missing)),
            ("missing-map", &busybox("exec sleep 1000", "    envFrom: [{configMapRef: {name: none}}]\n")),
        ],
    );
}

pub fn environment(machine: &Machine) {
    shows(machine, "variables", "{.status.phase}", "Succeeded");
    let ip = jsonpath(machine, "pod variables", "{.status.podIP}");
    let expect = [
        "P_colour=green",
        "COLOUR=green",
        "PASSWORD=sesame",
        "MY_NAME=variables",
        &format!("MY_IP={ip}"),
        "MY_LABEL=variables",
        "MEMORY=32",
        "CPU=1",
        "BOTH=green-variables-$(X)",
        "HOSTNAME=variables",
        "KUBERNETES_SERVICE_PORT=443",
    ];
    log(machine, "variables", |log| {
        let lines: Vec<&str> = log.lines().collect();
        expect.iter().all(|line| lines.contains(line))
    });
    shows(machine, "missing-map", "{.status.containerStatuses[0].state.waiting.reason}", "CreateContainerConfigError");
    machine.kubectl("create configmap none --from-literal=a=b").ok();
    ready(machine, "missing-map");
}

pub fn files(machine: &Machine) {
    ready(machine, "files");
    let check = |line: &str, expect: &str| assert_eq!(sh(machine, "files", line), expect, "{line}");
    check("cat /settings/colour /one /all/deep/colour", "greengreengreen");
    check("cat /hidden/password", "sesame");
    check("stat -L -c %a /hidden/password", "400\n");
    check("cat /all/labels", "app=\"files\"");
    check("cat /var/run/secrets/kubernetes.io/serviceaccount/namespace", "default");
    check("head -n 1 /var/run/secrets/kubernetes.io/serviceaccount/ca.crt", "-----BEGIN CERTIFICATE-----\n");
    for token in ["/all/token", "/var/run/secrets/kubernetes.io/serviceaccount/token"] {
        assert_eq!(sh(machine, "files", &format!("cat {token}")).split('.').count(), 3, "{token}");
    }
    let begin = env::Env::system().monotonic();
    machine.kubectl_args(&["patch", "configmap", "settings", "-p", r#"{"data":{"colour":"blue"}}"#]).ok();
    machine.kubectl("label pod files tier=test").ok();
    machine.eventually_or("the new colour", SOON, || {
        let is = sh(machine, "files", "cat /settings/colour /all/deep/colour; cat /all/labels");
        if is == "blueblueapp=\"files\"\ntier=\"test\"" { Ok(()) } else { Err(is) }
    });
    println!("the new colour was seen after {:?}", taken(begin));
    // A single file is mounted for good.
    assert_eq!(sh(machine, "files", "cat /one"), "green");
}

pub fn missing_folder(machine: &Machine) {
    event(machine, "missing-folder", &["Warning FailedMount", "hostPath type check failed", "is not a directory"]);
    shows(machine, "missing-folder", "{.status.phase}", "Pending");
    std::fs::create_dir(machine.folder().join("later")).unwrap();
    ready(machine, "missing-folder");
}
