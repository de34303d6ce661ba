//! Objects made, changed and removed.

use testkit::machine::Machine;

use super::{has, prints, prints_args, refuses};
use crate::support::{SOON, jsonpath};

/// What `create` makes from words alone, and what it prints.
const IMPERATIVE: &[(&str, &str)] = &[
    ("configmap cm --from-literal=a=1 --from-file=FILE", "configmap/cm created"),
    ("secret generic s --from-literal=p=q", "secret/s created"),
    ("secret docker-registry r --docker-server=h --docker-username=u --docker-password=p", "secret/r created"),
    ("serviceaccount robot", "serviceaccount/robot created"),
    ("role reader --verb=get,list --resource=pods", "role.rbac.authorization.k8s.io/reader created"),
    (
        "rolebinding read --role=reader --serviceaccount=extra:robot",
        "rolebinding.rbac.authorization.k8s.io/read created",
    ),
    ("deployment idle --image=oxikube.local/busybox:1 --replicas=0", "deployment.apps/idle created"),
    ("service clusterip inner --tcp=80:8080", "service/inner created"),
    ("service nodeport outer --tcp=80", "service/outer created"),
    ("service externalname other --external-name=example.com", "service/other created"),
    ("service clusterip headless --clusterip=None", "service/headless created"),
    ("job once --image=oxikube.local/busybox:1 -- true", "job.batch/once created"),
    ("cronjob often --image=oxikube.local/busybox:1 --schedule=@daily", "cronjob.batch/often created"),
    ("ingress web --rule=example.com/=inner:80", "ingress.networking.k8s.io/web created"),
    ("poddisruptionbudget some --selector=a=b --min-available=1", "poddisruptionbudget.policy/some created"),
    ("quota few --hard=pods=1000", "resourcequota/few created"),
];

pub fn imperative(machine: &Machine) {
    let file = machine.folder().join("poem");
    std::fs::write(&file, "no words\n").unwrap();
    prints(machine, "create namespace extra", "namespace/extra created\n");
    for (words, expect) in IMPERATIVE {
        let words = words.replace("FILE", &file.display().to_string());
        let mut args = vec!["create", "-n", "extra"];
        args.extend(words.split_whitespace());
        prints_args(machine, &args, &format!("{expect}\n"));
    }
    assert_eq!(jsonpath(machine, "configmap cm -n extra", "{.data}"), r#"{"a":"1","poem":"no words\n"}"#);
    assert_eq!(jsonpath(machine, "service inner -n extra", "{.spec.ports[0].targetPort}"), "8080");
    assert_eq!(jsonpath(machine, "secret s -n extra", "{.data.p}"), "cQ==");
    // A role is in force at once.
    prints(machine, "auth can-i list pods -n extra --as system:serviceaccount:extra:robot", "yes\n");
    assert_eq!(
        machine.kubectl("auth can-i delete pods -n extra --as system:serviceaccount:extra:robot").failed(),
        "no\n"
    );
    assert_eq!(machine.kubectl("create token robot -n extra").ok().split('.').count(), 3);
    has(machine, "create deployment x --image=i -n extra --dry-run=client -o yaml", &["kind: Deployment", "image: i"]);
    has(machine, "create configmap x -n extra --dry-run=server -o yaml", &["uid: "]);
    refuses(machine, "get configmap x -n extra", "configmaps \"x\" not found");
    refuses(
        machine,
        "create configmap cm -n extra",
        "error: failed to create configmap: configmaps \"cm\" already exists",
    );
}

const APPLIED: &str =
    "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: applied, namespace: extra}\ndata: {k: v, gone: soon}\n";

pub fn applying(machine: &Machine) {
    let apply = |text: &str, expect: &str| {
        assert_eq!(machine.kubectl_with("apply -f -", text).ok(), format!("configmap/applied {expect}\n"));
    };
    apply(APPLIED, "created");
    apply(APPLIED, "unchanged");
    // What somebody else wrote stays; what was applied once and isn't any more goes.
    machine.kubectl_args(&["patch", "configmap", "applied", "-n", "extra", "-p", r#"{"data":{"other":"x"}}"#]).ok();
    let less = APPLIED.replace(", gone: soon", "");
    let diff = |text: &str| machine.kubectl_with("diff -f -", text);
    let said = diff(&less);
    assert!(said.code == Some(1) && said.out.contains("-  gone: soon") && !said.out.contains("-  other"), "{said:?}");
    apply(&less, "configured");
    assert_eq!(jsonpath(machine, "configmap applied -n extra", "{.data}"), r#"{"k":"v","other":"x"}"#);
    assert_eq!(diff(&less).code, Some(0));
    has(machine, "apply view-last-applied configmap/applied -n extra", &["k: v"]);
    let folder = machine.folder().join("manifests");
    std::fs::create_dir(&folder).unwrap();
    for name in ["a", "b"] {
        let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: extra}}\n");
        std::fs::write(folder.join(format!("{name}.yaml")), text).unwrap();
    }
    prints(machine, &format!("apply -f {}", folder.display()), "configmap/a created\nconfigmap/b created\n");
    prints(
        machine,
        &format!("delete -f {}", folder.display()),
        "configmap \"a\" deleted from extra namespace\nconfigmap \"b\" deleted from extra namespace\n",
    );
}

pub fn changing(machine: &Machine) {
    let patch = |kind: &str, patch: &str| {
        machine.kubectl_args(&["patch", "configmap", "cm", "-n", "extra", "--type", kind, "-p", patch]).ok()
    };
    let data = || jsonpath(machine, "configmap cm -n extra", "{.data}");
    patch("strategic", r#"{"data":{"b":"2"}}"#);
    patch("merge", r#"{"data":{"poem":null}}"#);
    assert_eq!(data(), r#"{"a":"1","b":"2"}"#);
    patch("json", r#"[{"op":"remove","path":"/data/a"},{"op":"test","path":"/data/b","value":"2"}]"#);
    assert_eq!(data(), r#"{"b":"2"}"#);
    assert!(patch("merge", "{}").contains("patched (no change)"));
    let stale = machine.kubectl("get configmap cm -n extra -o yaml").ok();
    let replaced = machine.kubectl_with("replace -f -", &stale.replace("b: \"2\"", "b: \"3\"")).ok();
    assert_eq!((replaced.as_str(), data().as_str()), ("configmap/cm replaced\n", r#"{"b":"3"}"#));
    let said = machine.kubectl_with("replace -f -", &stale).failed();
    assert!(
        said.contains("Error from server (Conflict)") && said.contains("the object has been modified; please apply"),
        "{said}"
    );
    let uid = || jsonpath(machine, "configmap cm -n extra", "{.metadata.uid}");
    let before = uid();
    machine
        .kubectl_with(
            "replace --force -f -",
            "{apiVersion: v1, kind: ConfigMap, metadata: {name: cm, namespace: extra}}",
        )
        .ok();
    assert_ne!(uid(), before);

    for verb in ["label", "annotate"] {
        let done = if verb == "label" { "labeled" } else { "annotated" };
        prints(machine, &format!("{verb} configmap cm -n extra x=1 y=2"), &format!("configmap/cm {done}\n"));
        refuses(machine, &format!("{verb} configmap cm -n extra x=2"), "--overwrite is false");
        machine.kubectl(&format!("{verb} configmap cm -n extra x=2 --overwrite")).ok();
        machine.kubectl(&format!("{verb} configmap cm -n extra y-")).ok();
        let is = jsonpath(
            machine,
            "configmap cm -n extra",
            &format!("{{.metadata.{verb}s}}").replace("annotates", "annotations"),
        );
        assert_eq!(is, r#"{"x":"2"}"#);
    }
}

/// `kubectl edit` with an editor that is quick.
pub fn editing(machine: &Machine) {
    let edit = |editor: &str| {
        let mut command = machine.kubectl_command("edit configmap applied -n extra");
        command.env("KUBE_EDITOR", editor).env("TMPDIR", machine.folder());
        machine.run(command)
    };
    assert_eq!(edit("sed -i s/x$/edited/").ok(), "configmap/applied edited\n");
    assert_eq!(jsonpath(machine, "configmap applied -n extra", "{.data}"), r#"{"k":"v","other":"edited"}"#);
    let said = edit("true");
    assert_eq!((said.code, said.err.as_str()), (Some(0), "Edit cancelled, no changes made.\n"));
    // What is invalid is given back to the editor, with the reason; this one doesn't know better.
    let said = edit("sed -i s/k:/k!:/").failed();
    assert!(said.contains("\"applied\" is invalid") && said.contains("no valid changes were saved"), "{said}");
    let copy = said.split('"').find(|part| part.ends_with(".yaml")).expect("where the copy is");
    assert!(std::fs::read_to_string(copy).unwrap().contains("# * data[k!]: Invalid value"), "{said}");
    assert_eq!(jsonpath(machine, "configmap applied -n extra", "{.data.k}"), "v");
}

pub fn deleting(machine: &Machine) {
    prints(
        machine,
        "delete configmap/applied secret/s -n extra",
        "configmap \"applied\" deleted from extra namespace\nsecret \"s\" deleted from extra namespace\n",
    );
    refuses(machine, "delete configmap applied -n extra", "Error from server (NotFound)");
    assert!(machine.kubectl("delete configmap applied -n extra --ignore-not-found").ok().is_empty());
    machine.kubectl("delete configmap -l x=2 -n extra").ok();
    refuses(machine, "get configmap cm -n extra", "not found");
    machine.kubectl("delete services --all -n extra").ok();
    assert_eq!(machine.kubectl("get services -n extra -o name").ok(), "");
    // Without waiting, an object with a finalizer is marked; waiting, it is waited for.
    let held =
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: held, namespace: extra, finalizers: [example.com/hold]}}";
    machine.kubectl_with("create -f -", held).ok();
    machine.kubectl("delete configmap held -n extra --wait=false").ok();
    assert!(jsonpath(machine, "configmap held -n extra", "{.metadata.deletionTimestamp}").ends_with('Z'));
    let said = machine.kubectl("delete configmap held -n extra --timeout=1s").failed();
    assert!(said.contains("timed out waiting for the condition"), "{said}");
    let waits = machine.spawn(machine.kubectl_command("delete namespace extra --timeout=60s"));
    machine.eventually("the namespace to end", SOON, || {
        (jsonpath(machine, "namespace extra", "{.status.phase}") == "Terminating").then_some(())
    });
    let said = machine.kubectl("create configmap late -n extra").failed();
    assert!(said.contains("because it is being terminated"), "{said}");
    machine
        .kubectl_args(&[
            "patch",
            "configmap",
            "held",
            "-n",
            "extra",
            "--type=merge",
            "-p",
            r#"{"metadata":{"finalizers":null}}"#,
        ])
        .ok();
    assert!(waits.wait_with_output().unwrap().status.success());
    refuses(machine, "get namespace extra", "namespaces \"extra\" not found");
}
