//! Every verb of kubectl that no other step uses, and what it says.

use testkit::machine::Machine;

use super::{has, prints, refuses};
use crate::support::{SOON, jsonpath};

/// Commands, in order, and a part of what each prints; `!` before the part: it fails and says so.
const COMMANDS: &[(&str, &str)] = &[
    ("create namespace verbs", "namespace/verbs created"),
    ("config set-context --current --namespace=verbs", "modified."),
    ("config get-contexts -o name", "kubectl-"),
    ("config get-clusters", "kubectl-"),
    ("config get-users", "kubectl-"),
    ("config view --minify", "namespace: verbs"),
    ("options", "--context="),
    ("completion bash", "complete -o default"),
    ("plugin list", "!unable to find any kubectl plugins in your PATH"),
    ("alpha", "kuberc"),
    ("top pod", ""),
    ("cluster-info dump", "\"kind\": \"NodeList\""),
    ("get --raw /api/v1/namespaces/verbs", "\"name\":\"verbs\""),
    ("get componentstatuses", ""),
    ("api-resources --verbs=list,get --api-group=apps", "daemonsets"),
    ("explain deployment.spec.strategy.rollingUpdate --api-version=apps/v1", "maxSurge"),
    ("explain hpa.spec.metrics --api-version=autoscaling/v2", "ContainerResource"),
    // Making.
    ("create clusterrole verbs-reads --verb=get --resource=pods,deployments.apps", "verbs-reads created"),
    ("create clusterrolebinding verbs-reads --clusterrole=verbs-reads --user=ann", "verbs-reads created"),
    ("create role writes --verb=create,update --resource=configmaps", "role.rbac.authorization.k8s.io/writes created"),
    ("create rolebinding writes --role=writes --group=authors", "writes created"),
    ("create priorityclass verbs-high --value=1000 --description=high", "verbs-high created"),
    ("create service loadbalancer balanced --tcp=80:8080", "service/balanced created"),
    ("create job from-cron --from=cronjob/none", "!cronjobs.batch \"none\" not found"),
    ("create secret tls pair --cert=none.pem --key=none.key", "!none.pem"),
    ("create -f none.yaml", "!the path \"none.yaml\" does not exist"),
    ("create deployment one --image=oxikube.local/busybox:1 --replicas=1 --port=80 -- sleep 10000", "one created"),
    ("autoscale deployment one --min=1 --max=3 --cpu=50%", "horizontalpodautoscaler.autoscaling/one autoscaled"),
    ("get hpa one", "Deployment/one"),
    ("expose deployment one --name=other --type=NodePort", "service/other exposed"),
    (
        "run alone --image=oxikube.local/busybox:1 --port=80 --expose --labels=a=b --env=X=Y -- sleep 10000",
        "pod/alone created",
    ),
    ("get service alone -o jsonpath={.spec.selector}", r#"{"a":"b"}"#),
    // Changing.
    ("set image deployment/one busybox=oxikube.local/busybox:1", ""),
    ("set env deployment/one A=b C=d", "deployment.apps/one env updated"),
    ("set env deployment/one C-", "env updated"),
    ("set env deployment/one --list", "A=b"),
    ("set resources deployment one --limits=cpu=200m,memory=64Mi", "resource requirements updated"),
    ("set serviceaccount deployment one default", "serviceaccount updated"),
    ("set selector service other a=b", "service/other selector updated"),
    ("set subject rolebinding writes --user=ben", "writes subjects updated"),
    ("label deployment one kind=tried", "labeled"),
    ("label deployment one kind-", "unlabeled"),
    // Pods of the rollout that the changes began come and go.
    ("annotate services --all note=x", "service/alone annotated"),
    ("wait deployment/one --for=condition=Available --timeout=60s", "condition met"),
    (
        "patch deployment one --subresource=scale --type=merge -p {\"spec\":{\"replicas\":2}}",
        "scale.autoscaling/one patched",
    ),
    ("get deployment one --subresource=scale", "DESIRED"),
    ("get deployment one --subresource=status -o jsonpath={.kind}", "Deployment"),
    ("scale deployment one --replicas=1", "deployment.apps/one scaled"),
    ("scale --replicas=2 --timeout=60s deployment/one deployment/none", "!deployments.apps \"none\" not found"),
    ("rollout restart deployment one", "deployment.apps/one restarted"),
    ("rollout status deployment one --timeout=90s", "successfully rolled out"),
    ("rollout history deployment one", "REVISION"),
    // Looking.
    ("events --for deployment/one", "ScalingReplicaSet"),
    ("events --types=Normal --no-headers", "Deployment/one"),
    ("get events --field-selector involvedObject.name=one", "ScalingReplicaSet"),
    ("get pods -o wide --show-labels", "pod-template-hash="),
    ("logs deployment/one", ""),
    ("describe deployment one", "NewReplicaSet:"),
    ("describe replicaset", "Controlled By:  Deployment/one"),
    ("describe hpa one", "Reference:"),
    ("describe rolebinding writes", "ben"),
    ("describe clusterrole verbs-reads", "deployments.apps"),
    ("describe priorityclass verbs-high", "1000"),
    ("describe endpointslice", "AddressType"),
    ("describe lease -n kube-node-lease", "Holder Identity"),
    ("auth can-i get pods --as ann", "yes"),
    ("auth can-i create configmaps --as x --as-group authors", "yes"),
    ("auth can-i delete nodes --as ann", "!no"),
    ("auth can-i --list --as ann", "deployments.apps"),
    ("apply view-last-applied deployment/one", ""),
    ("kustomize .", "!unable to find one of 'kustomization.yaml'"),
    // The node.
    ("taint nodes --all a=b:PreferNoSchedule", "tainted"),
    ("taint nodes --all a:PreferNoSchedule-", "untainted"),
    ("certificate approve none", "!certificatesigningrequests.certificates.k8s.io \"none\" not found"),
    ("replace -f none.yaml", "!the path \"none.yaml\" does not exist"),
    ("delete pod alone --now", "pod \"alone\" deleted"),
    ("delete clusterrole,clusterrolebinding verbs-reads", "deleted"),
    ("delete priorityclass verbs-high", "deleted"),
];

pub fn all(machine: &Machine) {
    let mut wrong = Vec::new();
    machine.eventually_or("the node's figures are shown", SOON, || {
        let said = machine.kubectl("top node");
        if said.out.contains("CPU(cores)") { Ok(()) } else { Err(said.err) }
    });
    for (command, expect) in COMMANDS {
        let said = machine.kubectl(command);
        let text = said.out.clone() + &said.err;
        let good = match expect.strip_prefix('!') {
            Some(part) => said.code != Some(0) && text.contains(part),
            None => said.code == Some(0) && text.contains(expect),
        };
        if !good {
            wrong.push(format!("{command}: {expect:?} expected, but {said:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Roles are brought up to date, and a request for a certificate is decided upon.
pub fn access(machine: &Machine) {
    let role = "{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: brought, namespace: verbs}, rules: \
        [{apiGroups: [''], resources: [pods], verbs: [get]}]}";
    let reconciled = |expect: &str| {
        let said = machine.kubectl_with("auth reconcile -f -", role);
        assert!(said.code == Some(0) && format!("{}{}", said.out, said.err).contains(expect), "{said:?}");
    };
    reconciled("reconciliation required create");
    reconciled("role.rbac.authorization.k8s.io/brought reconciled");
    let request = |name: &str| {
        format!(
            "{{apiVersion: certificates.k8s.io/v1, kind: CertificateSigningRequest, metadata: {{name: {name}}}, spec: {{request: {REQUEST}, \
             signerName: example.com/none, usages: [client auth]}}}}"
        )
    };
    for (name, verb, done) in [("verbs-yes", "approve", "Approved"), ("verbs-no", "deny", "Denied")] {
        machine.kubectl_with("create -f -", &request(name)).ok();
        has(machine, &format!("get csr {name}"), &["example.com/none", "Pending"]);
        machine.kubectl(&format!("certificate {verb} {name}")).ok();
        has(machine, &format!("get csr {name}"), &[done]);
        machine.kubectl(&format!("delete csr {name}")).ok();
    }
}

/// A request for a certificate, as objects carry it.
const REQUEST: &str = "\
    LS0tLS1CRUdJTiBDRVJUSUZJQ0FURSBSRVFVRVNULS0tLS0KTUlISU1IQUNBUUF3RGpFTU1Bb0dBMVVFQXd3RGFtOWxNRmt3RXdZSEtvWkl6aj\
    BDQVFZSUtvWkl6ajBEQVFjRApRZ0FFait2TTVCMDV2bjJiNjJEc3hocU1adTFhd0owUkNhSlNLOFlHZnl0RGxyT1ZCcG1STzNtWm9HUlFqMEUr\
    Cm5QQ3VMRkg3REVSbGlUTXR1Um9nSUFWb1A2QUFNQW9HQ0NxR1NNNDlCQU1DQTBnQU1FVUNJUUMwV1lXZFlTcE0KZkNNU3BsTm1EWDJ5WDVrM1\
    oySUpPang1MTNleHVZeUR5QUlnYUU1RDA5b0JrVzlWekZ4MEZaRHBKcVBHejEyRgpVSWI5cTlJbGF0SWZaZms9Ci0tLS0tRU5EIENFUlRJRklD\
    QVRFIFJFUVVFU1QtLS0tLQo=";

/// What is applied with kustomize, and what apply remembers.
pub fn applying(machine: &Machine) {
    let folder = machine.folder().join("kustomized");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(
        folder.join("kustomization.yaml"),
        "namePrefix: pre-\nnamespace: verbs\nconfigMapGenerator: [{name: made, literals: [a=b], options: {disableNameSuffixHash: true}}]\n",
    )
    .unwrap();
    let folder = folder.display();
    has(machine, &format!("kustomize {folder}"), &["name: pre-made", "a: b"]);
    prints(machine, &format!("apply -k {folder}"), "configmap/pre-made created\n");
    prints(machine, &format!("apply -k {folder}"), "configmap/pre-made unchanged\n");
    assert_eq!(machine.kubectl(&format!("diff -k {folder}")).ok(), "");
    let mut command = machine.kubectl_command("apply edit-last-applied configmap/pre-made");
    command.env("KUBE_EDITOR", "sed -i s/b$/c/").env("TMPDIR", machine.folder());
    machine.run(command).ok();
    has(machine, "apply view-last-applied configmap/pre-made", &["a: c"]);
    let plain = "{apiVersion: v1, kind: ConfigMap, metadata: {name: plain, namespace: verbs}}";
    machine.kubectl_with("create -f -", plain).ok();
    machine.kubectl_with("apply set-last-applied --create-annotation -f -", plain).ok();
    has(machine, "apply view-last-applied configmap/plain", &["name: plain"]);
    prints(machine, &format!("delete -k {folder}"), "configmap \"pre-made\" deleted from verbs namespace\n");
}

/// Containers that look into others.
pub fn debugging(machine: &Machine) {
    machine.kubectl("run seen --image=oxikube.local/busybox:1 -- sleep 10000").ok();
    machine.kubectl("wait pod/seen --for=condition=Ready --timeout=60s").ok();
    let image = "--image=oxikube.local/busybox:1 --profile=general";
    machine.kubectl(&format!("debug seen {image} --target=seen -c looks -- sleep 10000")).ok();
    machine.eventually_or("the container that looks", SOON, || {
        let state = jsonpath(machine, "pod seen", "{.status.ephemeralContainerStatuses[0].state}");
        if state.contains("running") { Ok(()) } else { Err(state) }
    });
    // It sees the other one's processes.
    has(machine, "exec seen -c looks -- ps", &["sleep 10000"]);
    machine.kubectl(&format!("debug seen {image} --copy-to=copied --container=seen -- sleep 10000")).ok();
    machine.kubectl("wait pod/copied --for=condition=Ready --timeout=60s").ok();
    let node = jsonpath(machine, "nodes", "{.items[0].metadata.name}");
    let said = machine.kubectl_args(&[
        "debug",
        &format!("node/{node}"),
        "--image=oxikube.local/busybox:1",
        "--profile=general",
        "--attach",
        "--quiet",
        "--",
        "ls",
        "/host",
    ]);
    assert!(said.code == Some(0) && (said.out.contains("etc\n") || said.err.contains("couldn't attach")), "{said:?}");
    machine.kubectl("delete pods --all --force --grace-period=0").ok();
}

/// A node that is made empty, and used again.
pub fn draining(machine: &Machine) {
    let node = jsonpath(machine, "nodes", "{.items[0].metadata.name}");
    machine.kubectl("run bare --image=oxikube.local/busybox:1 -- sleep 10000").ok();
    machine.kubectl("wait pod/bare --for=condition=Ready --timeout=60s").ok();
    prints(machine, &format!("cordon {node}"), &format!("node/{node} cordoned\n"));
    has(machine, "get nodes", &["SchedulingDisabled"]);
    machine.kubectl("run waits --image=oxikube.local/busybox:1 -- sleep 10000").ok();
    // Nobody would bring it back.
    refuses(machine, &format!("drain {node} --timeout=1s --pod-selector=run=bare"), "use --force to override");
    has(
        machine,
        // The shell is not there to pass the signal on: each pod takes its whole 30 seconds.
        &format!("drain {node} --pod-selector=app=one --timeout=180s"),
        &["drained", "evicting pod verbs/one-"],
    );
    prints(machine, &format!("uncordon {node}"), &format!("node/{node} uncordoned\n"));
    machine.kubectl("wait pod/waits --for=condition=Ready --timeout=60s").ok();
    machine.kubectl("config set-context --current --namespace=default").ok();
    machine.kubectl("delete namespace verbs --wait=false").ok();
}
