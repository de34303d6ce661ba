//! An environment packaged for the real helm, installed once for each of several places, as a platform's makers do.

use std::fs;
use std::path::PathBuf;

use testkit::machine::{Machine, Said};

use crate::support::{SOON, Step, every, jsonpath, load_images, started};

#[test]
fn one_chart_serves_many() {
    let machine = started("helm");
    load_images(&machine);
    write_chart(&machine);
    let steps: [Step; 5] = [
        ("two are installed", install),
        ("one is upgraded", upgrade),
        ("a bad upgrade is taken back", atomic),
        ("one is rolled back", rollback),
        ("one goes, the other stays", uninstall),
    ];
    every(&machine, &steps);
}

const CHART: &[(&str, &str)] = &[
    ("Chart.yaml", "apiVersion: v2\nname: parish\nversion: 0.1.0\nappVersion: '1'\nkubeVersion: '>=1.33.0-0'\n"),
    ("values.yaml", "word: hello\nreplicas: 2\nimage: oxikube.local/busybox:1\n"),
    (
        "templates/config.yaml",
        r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: {{ .Release.Name }}-pages}
data: {index.html: {{ .Values.word | quote }}}
---
apiVersion: v1
kind: Secret
metadata: {name: {{ .Release.Name }}}
stringData: {password: {{ printf "%s-secret" .Release.Name }}}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: {{ .Release.Name }}-data, annotations: {helm.sh/resource-policy: keep}}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
"#,
    ),
    (
        "templates/access.yaml",
        r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: {{ .Release.Name }}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: {{ .Release.Name }}}
rules: [{apiGroups: [""], resources: [configmaps], verbs: [get, list]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: {{ .Release.Name }}}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: {{ .Release.Name }}}
subjects: [{kind: ServiceAccount, name: {{ .Release.Name }}}]
"#,
    ),
    (
        "templates/web.yaml",
        r#"
apiVersion: v1
kind: Service
metadata: {name: {{ .Release.Name }}}
spec: {type: NodePort, selector: {app: {{ .Release.Name }}}, ports: [{name: http, port: 80, targetPort: http}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: {{ .Release.Name }}}
spec:
  replicas: {{ .Values.replicas }}
  selector: {matchLabels: {app: {{ .Release.Name }}}}
  template:
    metadata:
      labels: {app: {{ .Release.Name }}}
      annotations: {checksum/config: {{ include (print $.Template.BasePath "/config.yaml") . | sha256sum }}}
    spec:
      serviceAccountName: {{ .Release.Name }}
      terminationGracePeriodSeconds: 1
      volumes:
      - {name: pages, configMap: {name: {{ .Release.Name }}-pages}}
      - {name: data, persistentVolumeClaim: {claimName: {{ .Release.Name }}-data}}
      containers:
      - name: web
        image: {{ .Values.image }}
        command: [httpd, -f, -p, '8080', -h, /www]
        ports: [{name: http, containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: http}, periodSeconds: 1}
        volumeMounts: [{name: pages, mountPath: /www}, {name: data, mountPath: /data}]
"#,
    ),
    (
        "templates/migrate.yaml",
        r#"
apiVersion: batch/v1
kind: Job
metadata:
  name: {{ .Release.Name }}-migrate-{{ .Release.Revision }}
  annotations: {helm.sh/hook: 'pre-install,pre-upgrade', helm.sh/hook-delete-policy: before-hook-creation}
spec:
  backoffLimit: 0
  template:
    spec:
      restartPolicy: Never
      containers: [{name: migrate, image: oxikube.local/busybox:1, command: [sh, -c, 'test {{ .Values.word }} != broken']}]
"#,
    ),
    (
        "templates/test.yaml",
        r#"
apiVersion: v1
kind: Pod
metadata: {name: {{ .Release.Name }}-test, annotations: {helm.sh/hook: test, helm.sh/hook-delete-policy: before-hook-creation}}
spec:
  restartPolicy: Never
  containers: [{name: ask, image: oxikube.local/busybox:1, command: [sh, -c, 'wget -qO- http://{{ .Release.Name }} | grep -x {{ .Values.word }}']}]
"#,
    ),
];

fn chart(machine: &Machine) -> PathBuf {
    machine.folder().join("parish")
}

fn write_chart(machine: &Machine) {
    fs::create_dir_all(chart(machine).join("templates")).unwrap();
    for (name, text) in CHART {
        fs::write(chart(machine).join(name), text).unwrap();
    }
}

/// The real helm; `CHART` stands for the chart's folder.
fn helm(machine: &Machine, args: &str) -> Said {
    let mut command = machine.command(testkit::peers::path("helm"));
    let chart = chart(machine);
    command.args(args.split_whitespace().map(|arg| if arg == "CHART" { chart.as_os_str() } else { arg.as_ref() }));
    machine.run(command)
}

fn reads(machine: &Machine, parish: &str, expect: &str) {
    let port = jsonpath(machine, &format!("service {parish} -n {parish}"), "{.spec.ports[0].nodePort}");
    machine.eventually_or("the page", SOON, || match machine.get(&format!("http://127.0.0.1:{port}/")) {
        Ok(page) if page == expect => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn install(machine: &Machine) {
    for parish in ["nantes", "rennes"] {
        let args = format!(
            "install {parish} CHART -n {parish} --create-namespace --set word=bonjour-{parish} --wait --timeout 3m"
        );
        let said = helm(machine, &args).ok();
        assert!(said.contains("STATUS: deployed\nREVISION: 1"), "{said}");
        reads(machine, parish, &format!("bonjour-{parish}"));
        let said = helm(machine, &format!("test {parish} -n {parish} --timeout 2m")).ok();
        assert!(said.contains("Phase:          Succeeded"), "{said}");
    }
    let said = helm(machine, "install nantes CHART -n nantes").failed();
    assert!(said.contains("cannot re-use a name that is still in use"), "{said}");
    let said = helm(machine, "list -A -o json").ok();
    let list: serde_json::Value = serde_json::from_str(&said).unwrap();
    let names: Vec<&str> = list.as_array().unwrap().iter().filter_map(|release| release["name"].as_str()).collect();
    assert_eq!(names, ["nantes", "rennes"]);
    // Secrets are read as their makers read them.
    let said = machine.kubectl("get secrets nantes -n nantes -o json").ok();
    let secret: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(secret["data"]["password"], "bmFudGVzLXNlY3JldA==");
}

fn pods(machine: &Machine, parish: &str) -> String {
    jsonpath(machine, &format!("pods -n {parish} -l app={parish}"), "{.items[*].metadata.uid}")
}

fn upgrade(machine: &Machine) {
    let before = pods(machine, "rennes");
    let upgrade = "upgrade nantes CHART -n nantes --reuse-values --set word=salut --set replicas=3 --wait --timeout 3m";
    let said = helm(machine, upgrade).ok();
    assert!(said.contains("REVISION: 2"), "{said}");
    reads(machine, "nantes", "salut");
    assert_eq!(jsonpath(machine, "deployment nantes -n nantes", "{.status.readyReplicas}"), "3");
    // The same again changes nothing, and the other one was never touched.
    let generation = || jsonpath(machine, "deployment nantes -n nantes", "{.metadata.generation}");
    let then = generation();
    helm(machine, "upgrade nantes CHART -n nantes --reuse-values --wait").ok();
    assert_eq!(generation(), then);
    assert_eq!(pods(machine, "rennes"), before);
}

fn atomic(machine: &Machine) {
    // A hook that fails, then an image that is not there.
    let said = helm(machine, "upgrade nantes CHART -n nantes --reuse-values --set word=broken").failed();
    assert!(said.contains("pre-upgrade hooks failed"), "{said}");
    let image = "oxikube.local/busybox:none";
    let args =
        format!("upgrade nantes CHART -n nantes --reuse-values --set word=x,image={image} --atomic --timeout 20s");
    let said = helm(machine, &args).failed();
    assert!(said.contains("has been rolled back due to atomic being set"), "{said}");
    reads(machine, "nantes", "salut");
}

fn rollback(machine: &Machine) {
    helm(machine, "rollback nantes 1 -n nantes --wait --timeout 3m").ok();
    reads(machine, "nantes", "bonjour-nantes");
    let said = helm(machine, "history nantes -n nantes").ok();
    assert!(said.contains("Rollback to 1"), "{said}");
    assert_eq!(jsonpath(machine, "deployment nantes -n nantes", "{.spec.replicas}"), "2");
}

fn uninstall(machine: &Machine) {
    let said = helm(machine, "uninstall nantes -n nantes --wait --timeout 2m").ok();
    assert!(said.contains("release \"nantes\" uninstalled"), "{said}");
    machine.eventually_or("all but what is kept is gone", SOON, || {
        let left = machine.kubectl("get deployment,replicaset,pod,service,secret,role -n nantes -o name").ok();
        // Hooks are helm's to leave.
        match left.lines().find(|line| !line.contains("-migrate-") && !line.contains("-test")) {
            Some(line) => Err(line.to_owned()),
            None => Ok(()),
        }
    });
    assert_eq!(jsonpath(machine, "pvc -n nantes", "{.items[*].metadata.name}"), "nantes-data");
    reads(machine, "rennes", "bonjour-rennes");
}
