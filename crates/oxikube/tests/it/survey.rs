//! A platform of which each customer has an instance: one kustomize base, an overlay and a namespace for each, applied by a robot whenever
//! somebody pushes.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use testkit::image::{Image, Layer, Packing, busybox_layer, oci_layout};
use testkit::machine::{Machine, Said};

use crate::lossless::load::Load;
use crate::support::{SOON, Step, every, jsonpath, started};

const IMAGE: &str = "oxikube.local/qxsms:7";

/// What all instances share.
const BASE: &[(&str, &str)] = &[
    ("kustomization.yml", "resources: [app/deployment.yml, app/service.yml, worker/deployment.yml, db/set.yml]\n"),
    (
        "app/deployment.yml",
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  replicas: 2
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: app
        image: registry.example.com/qxsms
        command: [sh, -c, 'echo "web-$(cat /word) $TITLE $CUSTOMER" >/www/index.html; exec httpd -f -p 8080 -h /www']
        env: [{name: TITLE, value: Survey}]
        envFrom: [{configMapRef: {name: env}}, {secretRef: {name: keys}}]
        readinessProbe: {httpGet: {port: 8080, path: /}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 3}}}
        volumeMounts: [{name: data, mountPath: /data}]
      volumes: [{name: data, persistentVolumeClaim: {claimName: data}}]
"#,
    ),
    (
        "app/service.yml",
        "{apiVersion: v1, kind: Service, metadata: {name: app}, spec: {type: NodePort, selector: {app: app}, ports: [{port: 80, targetPort: 8080}]}}\n",
    ),
    (
        "worker/deployment.yml",
        r#"
apiVersion: apps/v1
kind: Deployment
metadata: {name: worker}
spec:
  selector: {matchLabels: {app: worker}}
  template:
    metadata: {labels: {app: worker}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - name: worker
        image: registry.example.com/qxsms
        command: [sh, -c, 'cat /word; exec sleep 10000']
        env: [{name: KEY, valueFrom: {secretKeyRef: {name: keys, key: key}}}]
"#,
    ),
    (
        "db/set.yml",
        r#"
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, selector: {app: db}, ports: [{port: 5432}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: db, image: registry.example.com/qxsms, command: [sleep, '10000'], volumeMounts: [{name: rows, mountPath: /rows}]}
  volumeClaimTemplates: [{metadata: {name: rows}, spec: {storageClassName: kept, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}]
"#,
    ),
];

/// What an instance has of its own; `INSTANCE` stands for its name.
const OVERLAY: &[(&str, &str)] = &[
    (
        "kustomization.yml",
        r#"
namespace: qxsms-INSTANCE
resources: [../../../base, namespace.yml, ingress.yml, pvc.yml]
patches: [{path: env.yml}]
labels: [{pairs: {instance: INSTANCE}}]
images: [{name: registry.example.com/qxsms, newName: oxikube.local/qxsms, newTag: '7'}]
configMapGenerator: [{name: env, literals: [CUSTOMER=INSTANCE]}]
secretGenerator: [{name: keys, literals: [key=INSTANCE-key]}]
"#,
    ),
    ("namespace.yml", "{apiVersion: v1, kind: Namespace, metadata: {name: qxsms-INSTANCE}}\n"),
    (
        "ingress.yml",
        "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: app}, spec: {rules: [{host: INSTANCE.example.com,
            http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: app, port: {number: 80}}}}]}}]}}\n",
    ),
    (
        "pvc.yml",
        "{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: data},
          spec: {storageClassName: kept, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}\n",
    ),
    (
        "env.yml",
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: worker}, spec: {template: {spec: {containers: [{name: worker, env: [{name: SPEED, value: high}]}]}}}}\n",
    ),
];

/// Volumes outlive their claims.
const CLASS: &str =
    "{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: kept}, provisioner: oxikube.io/local,
    reclaimPolicy: Retain, volumeBindingMode: WaitForFirstConsumer}";

#[test]
fn instances_follow_their_repository() {
    let machine = started("survey");
    load(&machine, "first");
    machine.kubectl_with("create -f -", CLASS).ok();
    write(&machine.folder().join("k8s/base"), BASE, "");
    robot(&machine);
    let steps: [Step; 6] = [
        ("a push that changes nothing restarts nothing", again),
        ("what was changed by hand is put back", by_hand),
        ("all instances follow the base", base),
        ("fresh images under the same tag", restart),
        ("an instance goes, its volumes stay", removed),
        ("a namespace goes with all that is in it", namespace),
    ];
    for instance in ["rouen", "caen"] {
        write(&overlay(&machine, instance), OVERLAY, instance);
        push(&machine, instance).ok();
    }
    ["rouen", "caen"].iter().for_each(|instance| shows(&machine, instance, &format!("web-first Survey {instance}\n")));
    every(&machine, &steps);
}

fn overlay(machine: &Machine, instance: &str) -> PathBuf {
    machine.folder().join("k8s/overlays/staging").join(instance)
}

fn write(folder: &Path, files: &[(&str, &str)], instance: &str) {
    for (name, text) in files {
        let path = folder.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text.replace("INSTANCE", instance)).unwrap();
    }
}

/// Brings the image, always under the same tag.
fn load(machine: &Machine, word: &str) {
    let own = Layer::new().dir("www", 0o755).file("word", 0o644, format!("{word}\n"));
    let image = Image::new().layer(busybox_layer().unwrap(), Packing::Gzip).layer(own, Packing::Gzip);
    let path = machine.folder().join("qxsms.tar");
    fs::write(&path, oci_layout(&[(IMAGE, &image.env(["PATH=/bin"]).cmd(["sh"]))])).unwrap();
    machine.oxikube(&format!("image load {}", path.display())).ok();
}

/// The robot has a file of its own, with the token of a service account.
fn robot(machine: &Machine) {
    let own = machine.folder().join("robot");
    fs::copy(machine.folder().join(".kube/config"), &own).unwrap();
    machine.kubectl("create serviceaccount robot").ok();
    machine.kubectl("create clusterrolebinding robot --clusterrole=cluster-admin --serviceaccount=default:robot").ok();
    let token = machine.kubectl("create token robot").ok();
    machine.kubectl(&format!("--kubeconfig robot config set-credentials robot --token={token}")).ok();
    machine.kubectl("--kubeconfig robot config set-context --current --user=robot").ok();
    let who = machine.kubectl("--kubeconfig robot auth whoami -o jsonpath={.status.userInfo.username}").ok();
    assert_eq!(who, "system:serviceaccount:default:robot");
}

fn push(machine: &Machine, instance: &str) -> Said {
    machine.kubectl(&format!("--kubeconfig robot apply -k {}", overlay(machine, instance).display()))
}

fn rolled_out(machine: &Machine, instance: &str) {
    for what in ["statefulset/db", "deployment/worker", "deployment/app"] {
        machine.kubectl(&format!("-n qxsms-{instance} rollout status {what} --timeout=120s")).ok();
    }
}

/// The page of an instance whose pods have all come.
fn shows(machine: &Machine, instance: &str, page: &str) {
    rolled_out(machine, instance);
    let port = jsonpath(machine, &format!("-n qxsms-{instance} service app"), "{.spec.ports[0].nodePort}");
    machine.eventually_or(instance, SOON, || match machine.get(&format!("http://127.0.0.1:{port}/")) {
        Ok(found) if found == page => Ok(()),
        found => Err(format!("{found:?}")),
    });
}

/// The pods of an instance by name: each one's uid, and how often its container began again.
fn pods(machine: &Machine, instance: &str) -> Vec<String> {
    let range =
        "{range .items[*]}{.metadata.name} {.metadata.uid} {.status.containerStatuses[0].restartCount}{\"\\n\"}{end}";
    let mut pods: Vec<String> = Vec::new();
    // Those of an older revision leave in their own time.
    machine.eventually("only pods that stay", SOON, || {
        let said = jsonpath(machine, &format!("-n qxsms-{instance} pods"), range);
        pods = said.lines().map(str::to_owned).collect();
        (pods.len() == 4).then_some(())
    });
    pods
}

fn again(machine: &Machine) {
    push_nothing(machine, "rouen");
    rolled_out(machine, "rouen");
}

/// Pushes what is there already.
fn push_nothing(machine: &Machine, instance: &str) {
    let before = pods(machine, instance);
    let set = || {
        jsonpath(
            machine,
            &format!("-n qxsms-{instance} statefulset db"),
            "{.metadata.resourceVersion} {.status.replicas}",
        )
    };
    let revision = set();
    let said = push(machine, instance).ok();
    assert_eq!(said.lines().count(), 10, "{said}");
    // kubectl compares a set's claim templates as a whole, and what is there has its defaults: it sends them, and they change nothing.
    let expect = |line: &str| line.ends_with(" unchanged") || line == "statefulset.apps/db configured";
    assert!(said.lines().all(expect), "{said}");
    assert_eq!((pods(machine, instance), set()), (before, revision));
}

fn by_hand(machine: &Machine) {
    let before = pods(machine, "rouen");
    let kubectl = |args: &str| machine.kubectl(&format!("-n qxsms-rouen {args}")).ok();
    kubectl("set env deployment/app TITLE=Mine");
    kubectl("scale deployment/app --replicas=1");
    kubectl("label deployment/worker instance-");
    kubectl("delete ingress app");
    kubectl("delete service db");
    let keys = kubectl("get secrets -o name").lines().find(|name| name.contains("/keys-")).unwrap().to_owned();
    machine.kubectl_args(&["-n", "qxsms-rouen", "patch", &keys, "-p", r#"{"data":{"key":"bWluZQ=="}}"#]).ok();
    shows(machine, "rouen", "web-first Mine rouen\n");
    let said = push(machine, "rouen").ok();
    for part in ["ingress.networking.k8s.io/app created", "service/db created", "deployment.apps/app configured"] {
        assert!(said.contains(part), "no {part} in\n{said}");
    }
    shows(machine, "rouen", "web-first Survey rouen\n");
    assert_eq!(jsonpath(machine, "-n qxsms-rouen deployment app", "{.status.readyReplicas}"), "2");
    assert_eq!(jsonpath(machine, "-n qxsms-rouen deployment worker", "{.metadata.labels.instance}"), "rouen");
    assert_eq!(jsonpath(machine, &format!("-n qxsms-rouen {keys}"), "{.data.key}"), "cm91ZW4ta2V5");
    // What nobody changed was not restarted.
    let after = pods(machine, "rouen");
    let kept = |app: &str| before.iter().filter(|pod| pod.starts_with(app)).all(|pod| after.contains(pod));
    assert!(kept("worker-") && kept("db-"), "{before:?} {after:?}");
}

fn base(machine: &Machine) {
    let path = machine.folder().join("k8s/base/app/deployment.yml");
    let changed = fs::read_to_string(&path).unwrap().replace("value: Survey", "value: Census");
    fs::write(path, changed).unwrap();
    // One instance says another thing for itself, and its pods follow as the generated name is another.
    let own = overlay(machine, "caen").join("kustomization.yml");
    let changed = fs::read_to_string(&own).unwrap().replace("CUSTOMER=caen", "CUSTOMER=Calvados");
    fs::write(own, changed).unwrap();
    ["rouen", "caen"].iter().for_each(|instance| drop(push(machine, instance).ok()));
    shows(machine, "rouen", "web-first Census rouen\n");
    shows(machine, "caen", "web-first Census Calvados\n");
}

fn restart(machine: &Machine) {
    load(machine, "fresh");
    push_nothing(machine, "caen");
    let before = pods(machine, "caen");
    let address = jsonpath(machine, "-n qxsms-caen service app", "{.spec.clusterIP}");
    let load = Load::once(machine, &format!("{address}:80"));
    for what in ["app", "worker"] {
        machine.kubectl(&format!("-n qxsms-caen rollout restart deployment {what}")).ok();
        machine.kubectl(&format!("-n qxsms-caen rollout status deployment {what} --timeout=120s")).ok();
    }
    let after = pods(machine, "caen");
    let (lost, asked) = (load.lost(), load.end());
    assert!(lost.is_empty() && asked > 40, "{lost:#?} of {asked}");
    shows(machine, "caen", "web-fresh Census Calvados\n");
    assert_eq!(machine.kubectl("-n qxsms-caen logs deployment/worker").ok(), "fresh\n");
    let kept: Vec<&String> = before.iter().filter(|pod| after.contains(pod)).collect();
    assert!(kept.len() == 1 && kept[0].starts_with("db-0 "), "{kept:?}");
    // Another push takes nothing of that back.
    push_nothing(machine, "caen");
    assert_eq!(pods(machine, "caen"), after);
}

/// The volumes of an instance's claims: their claims, names and phases.
fn volumes(machine: &Machine, instance: &str) -> Vec<[String; 3]> {
    let said = machine.kubectl("get pv -o json").ok();
    let list: Value = serde_json::from_str(&said).unwrap();
    let of = |volume: &Value| {
        let (claim, text) =
            (&volume["spec"]["claimRef"], |value: &Value| value.as_str().unwrap_or_default().to_owned());
        let ours = text(&claim["namespace"]) == format!("qxsms-{instance}");
        ours.then(|| [text(&claim["name"]), text(&volume["metadata"]["name"]), text(&volume["status"]["phase"])])
    };
    let mut volumes: Vec<_> = list["items"].as_array().unwrap().iter().filter_map(of).collect();
    volumes.sort();
    volumes
}

fn removed(machine: &Machine) {
    let pod = jsonpath(machine, "-n qxsms-rouen pods -l app=app", "{.items[0].metadata.name}");
    let here = machine.folder().join("answers");
    fs::write(&here, "42\n").unwrap();
    machine.kubectl(&format!("-n qxsms-rouen cp {} {pod}:/data/answers", here.display())).ok();
    let back = machine.folder().join("saved");
    machine.kubectl(&format!("-n qxsms-rouen cp {pod}:/data/answers {}", back.display())).ok();
    assert_eq!(fs::read_to_string(back).unwrap(), "42\n");
    let path = overlay(machine, "rouen");
    machine.kubectl(&format!("--kubeconfig robot delete -k {} --timeout=120s", path.display())).ok();
    assert!(machine.kubectl("get namespace qxsms-rouen").failed().contains("not found"));
    let names = machine.eventually_or("its volumes are released", SOON, || match volumes(machine, "rouen") {
        all if all.len() == 2 && all.iter().all(|[_, _, phase]| phase == "Released") => Ok(all),
        other => Err(format!("{other:?}")),
    });
    assert_eq!(names.iter().map(|[claim, ..]| claim.as_str()).collect::<Vec<_>>(), ["data", "rows-db-0"]);
    for [claim, name, _] in names {
        let row = machine.kubectl(&format!("get pv {name} --no-headers")).ok();
        assert!(row.contains("Released") && row.contains(&format!("qxsms-rouen/{claim}")), "{row}");
        let folder = machine.data_dir().join("volumes").join(&name);
        assert!(claim != "data" || fs::read_to_string(folder.join("answers")).unwrap() == "42\n");
        machine.kubectl(&format!("delete pv {name} --timeout=60s")).ok();
    }
    assert_eq!(volumes(machine, "rouen").len(), 0);
    // The other one heard nothing of it.
    shows(machine, "caen", "web-fresh Census Calvados\n");
}

fn namespace(machine: &Machine) {
    machine.kubectl("delete namespace qxsms-caen --timeout=120s").ok();
    let left = machine.kubectl("get all,ingresses,configmaps,secrets,pvc -n qxsms-caen -o name").ok();
    assert_eq!(left, "");
    machine.eventually_or("its volumes are released", SOON, || match volumes(machine, "caen") {
        all if all.len() == 2 && all.iter().all(|[_, _, phase]| phase == "Released") => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // A copy of its folder makes it anew, with volumes of its own.
    push(machine, "caen").ok();
    shows(machine, "caen", "web-fresh Census Calvados\n");
    assert_eq!(volumes(machine, "caen").len(), 4);
}
