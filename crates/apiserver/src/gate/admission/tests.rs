use super::*;
use crate::gate::tests::{World, bootstrapped};

fn value(json: &str) -> Value {
    Value::parse(json.as_bytes()).unwrap_or_else(|e| panic!("{json}: {e}"))
}

fn world() -> World {
    let world = World::default();
    world.put("", "namespaces", r#"{"metadata":{"name":"n"}}"#);
    world.put("", "namespaces", r#"{"metadata":{"name":"going","deletionTimestamp":"t"}}"#);
    world.put("", "serviceaccounts", r#"{"metadata":{"name":"default","namespace":"n"}}"#);
    world.put(
        "",
        "serviceaccounts",
        r#"{"metadata":{"name":"shy","namespace":"n","annotations":{"kubernetes.io/enforce-mountable-secrets":"true"}},
            "automountServiceAccountToken":false,"imagePullSecrets":[{"name":"pull"}],"secrets":[{"name":"mine"}]}"#,
    );
    world.put("", "nodes", r#"{"metadata":{"name":"a","uid":"a-1"}}"#);
    world.put("", "pods", r#"{"metadata":{"name":"here","namespace":"n","uid":"h"},"spec":{"nodeName":"a","volumes":[{"projected":{"sources":[{"serviceAccountToken":{}}]}}]}}"#);
    world.put("", "pods", r#"{"metadata":{"name":"there","namespace":"n","uid":"t"},"spec":{"nodeName":"b"}}"#);
    world.put(
        "scheduling.k8s.io",
        "priorityclasses",
        r#"{"metadata":{"name":"high"},"value":1000,"preemptionPolicy":"Never"}"#,
    );
    world.put(
        "node.k8s.io",
        "runtimeclasses",
        r#"{"metadata":{"name":"heavy"},"handler":"h","overhead":{"podFixed":{"cpu":"10m"}},"scheduling":{"nodeSelector":{"disk":"ssd"},
            "tolerations":[{"key":"a","operator":"Exists","effect":"NoSchedule"},{"key":"b","operator":"Equal","value":"x"}]}}"#,
    );
    world.put("node.k8s.io", "runtimeclasses", r#"{"metadata":{"name":"plain"},"handler":"h"}"#);
    world
}

/// Who writes, `operation group/resource[/subresource] namespace name`, and what.
struct Case<'a> {
    user: &'a UserInfo,
    request: &'a str,
    new: &'a str,
    old: &'a str,
}

fn run(world: &World, case: &Case<'_>) -> Result<Value, Status> {
    let words: Vec<&str> = case.request.split(' ').collect();
    let mut path = words[1].splitn(3, '/');
    let gate = Arc::new(bootstrapped());
    let chain = Chain::new(gate.clone());
    let env = Env::seeded(1, jiff::Timestamp::UNIX_EPOCH);
    let write = Write {
        operation: match words[0] {
            "create" => Operation::Create,
            "update" => Operation::Update,
            _ => Operation::Delete,
        },
        user: case.user,
        group: path.next().unwrap(),
        resource: path.next().unwrap(),
        subresource: path.next().unwrap_or_default(),
        namespace: words.get(2).copied().unwrap_or_default(),
        name: words.get(3).copied().unwrap_or_default(),
        objects: world,
        gate: &gate,
        env: &env,
    };
    let old = (!case.old.is_empty()).then(|| value(case.old));
    if write.operation == Operation::Delete {
        return chain.validate(&write, None, old.as_ref()).map(|()| Value::Null);
    }
    let mut new = value(case.new);
    chain.admit(&write, &mut new, old.as_ref())?;
    chain.validate(&write, Some(&new), old.as_ref())?;
    Ok(new)
}

fn admin() -> UserInfo {
    UserInfo::authenticated("admin", &["system:masters"])
}

fn kubelet() -> UserInfo {
    UserInfo::authenticated("system:node:a", &["system:nodes"])
}

fn refused(user: &UserInfo, request: &str, new: &str, old: &str) -> String {
    let case = Case { user, request, new, old };
    let status = run(&world(), &case).map(|new| panic!("{request} was admitted: {new}")).unwrap_err();
    format!("{} {}", status.code, status.message)
}

fn admitted(user: &UserInfo, request: &str, new: &str, old: &str) -> Value {
    run(&world(), &Case { user, request, new, old }).unwrap_or_else(|status| panic!("{request}: {status}"))
}

#[test]
fn a_plain_pod_is_completed_as_upstream_does() {
    let pod =
        admitted(&admin(), "create /pods n", r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c"}]}}"#, "");
    let name = pod.items_at(&["spec", "volumes"])[0].str_at(&["name"]).unwrap().to_owned();
    assert!(name.starts_with("kube-api-access-") && name.len() == 21, "{name}");
    assert_eq!(
        pod.to_string().replace(&name, "kube-api-access-xxxxx"),
        r#"{"metadata":{"name":"p"},"spec":{"containers":[{"name":"c","volumeMounts":[{"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount","name":"kube-api-access-xxxxx","readOnly":true}]}],"preemptionPolicy":"PreemptLowerPriority","priority":0,"serviceAccount":"default","serviceAccountName":"default","tolerations":[{"effect":"NoExecute","key":"node.kubernetes.io/not-ready","operator":"Exists","tolerationSeconds":300},{"effect":"NoExecute","key":"node.kubernetes.io/unreachable","operator":"Exists","tolerationSeconds":300}],"volumes":[{"name":"kube-api-access-xxxxx","projected":{"defaultMode":420,"sources":[{"serviceAccountToken":{"expirationSeconds":3607,"path":"token"}},{"configMap":{"items":[{"key":"ca.crt","path":"ca.crt"}],"name":"kube-root-ca.crt"}},{"downwardAPI":{"items":[{"fieldRef":{"apiVersion":"v1","fieldPath":"metadata.namespace"},"path":"namespace"}]}}]}}]}}"#
    );
}

#[test]
fn accounts_decide_what_pods_get() {
    let mounts = |spec: &str| {
        let pod = admitted(&admin(), "create /pods n", &format!(r#"{{"metadata":{{"name":"p"}},"spec":{spec}}}"#), "");
        (pod.items_at(&["spec", "volumes"]).len(), pod.items_at(&["spec", "imagePullSecrets"]).len())
    };
    assert_eq!(mounts(r#"{"containers":[{}]}"#), (1, 0));
    assert_eq!(mounts(r#"{"containers":[{}],"automountServiceAccountToken":false}"#), (0, 0));
    assert_eq!(mounts(r#"{"containers":[{}],"serviceAccountName":"shy"}"#), (0, 1));
    assert_eq!(mounts(r#"{"containers":[{}],"serviceAccountName":"shy","automountServiceAccountToken":true}"#), (1, 1));
    let own = r#"{"containers":[{"volumeMounts":[{"mountPath":"/var/run/secrets/kubernetes.io/serviceaccount"}]}]}"#;
    assert_eq!(mounts(own), (0, 0));
    assert_eq!(mounts(r#"{"containers":[{}],"volumes":[{"name":"kube-api-access-mine"}]}"#), (1, 0));

    let check = |spec: &str, expect: &str| {
        let pod = format!(r#"{{"metadata":{{"name":"p"}},"spec":{spec}}}"#);
        assert_eq!(refused(&admin(), "create /pods n", &pod, ""), format!("403 pods \"p\" is forbidden: {expect}"));
    };
    check(r#"{"serviceAccountName":"x"}"#, "error looking up service account n/x: serviceaccount \"x\" not found");
    check(
        r#"{"serviceAccountName":"shy","volumes":[{"secret":{"secretName":"other"}}]}"#,
        "volume with secret.secretName=\"other\" is not allowed because service account shy does not reference that secret",
    );
    check(
        r#"{"serviceAccountName":"shy","containers":[{"name":"c","env":[{"name":"E","valueFrom":{"secretKeyRef":{"name":"other"}}}]}]}"#,
        "container c with envVar E referencing secret.secretName=\"other\" is not allowed because service account shy does not \
         reference that secret",
    );
}

#[test]
fn namespaces_begin_and_end() {
    let map = r#"{"metadata":{"name":"m"}}"#;
    admitted(&admin(), "create /configmaps n", map, "");
    admitted(&admin(), "create /nodes", map, "");
    admitted(&admin(), "update /configmaps going m", map, map);
    assert_eq!(refused(&admin(), "create /configmaps no", map, ""), "404 namespaces \"no\" not found");
    let case = Case { user: &admin(), request: "create /configmaps going", new: map, old: "" };
    let status = run(&world(), &case).unwrap_err();
    assert_eq!(
        status.message,
        "configmaps \"m\" is forbidden: unable to create new content in namespace going because it is being terminated"
    );
    let cause = &status.details.unwrap().causes[0];
    assert_eq!((cause.reason.as_str(), cause.field.as_str()), ("NamespaceTerminating", "metadata.namespace"));
    admitted(&admin(), "delete /configmaps going m", "", map);
    let message = "403 namespaces \"kube-system\" is forbidden: this namespace may not be deleted";
    assert_eq!(refused(&admin(), "delete /namespaces  kube-system", "", map), message);
}

#[test]
fn priorities_are_numbers_of_classes() {
    let spec = |spec: &str| format!(r#"{{"metadata":{{"name":"p"}},"spec":{spec}}}"#);
    let priority = |json: &str| {
        let pod = admitted(&admin(), "create /pods n", &spec(json), "");
        let text = |key| pod.str_at(&["spec", key]).unwrap_or_default().to_owned();
        (pod.i64_at(&["spec", "priority"]), text("preemptionPolicy"), text("priorityClassName"))
    };
    assert_eq!(priority("{}"), (Some(0), "PreemptLowerPriority".into(), String::new()));
    assert_eq!(priority(r#"{"priorityClassName":"high"}"#), (Some(1000), "Never".into(), "high".into()));
    assert_eq!(
        refused(&admin(), "create /pods n", &spec(r#"{"priorityClassName":"x"}"#), ""),
        "403 pods \"p\" is forbidden: no PriorityClass with name x was found"
    );
    assert_eq!(
        refused(&admin(), "create /pods n", &spec(r#"{"priority":5}"#), ""),
        "403 pods \"p\" is forbidden: the integer value of priority (5) must not be provided in pod spec; priority admission \
         controller computed 0 from the given PriorityClass name"
    );
    let kept = admitted(&admin(), "update /pods n p", &spec("{}"), &spec(r#"{"priority":7}"#));
    assert_eq!(kept.i64_at(&["spec", "priority"]), Some(7));

    let world = world();
    world.put(
        "scheduling.k8s.io",
        "priorityclasses",
        r#"{"metadata":{"name":"usual"},"value":10,"globalDefault":true}"#,
    );
    let request = "create /pods n";
    let pod = run(&world, &Case { user: &admin(), request, new: &spec("{}"), old: "" }).unwrap();
    assert_eq!(pod.str_at(&["spec", "priorityClassName"]), Some("usual"));
    let second = r#"{"metadata":{"name":"second"},"value":1,"globalDefault":true}"#;
    let request = "create scheduling.k8s.io/priorityclasses";
    let status = run(&world, &Case { user: &admin(), request, new: second, old: "" }).unwrap_err();
    assert!(status.message.ends_with("PriorityClass usual is already marked as default. Only one default can exist"));
}

#[test]
fn new_nodes_are_tainted() {
    let node = admitted(&admin(), "create /nodes", r#"{"metadata":{"name":"x"}}"#, "");
    assert_eq!(
        node.items_at(&["spec", "taints"])[0].to_string(),
        r#"{"effect":"NoSchedule","key":"node.kubernetes.io/not-ready"}"#
    );
    let again = admitted(&admin(), "create /nodes", &node.to_string(), "");
    assert_eq!(again, node);
}

#[test]
fn a_kubelet_writes_its_own_node() {
    let node = |rest: &str| format!(r#"{{"metadata":{{"name":"a"{rest}}}}}"#);
    let check = |request: &str, new: &str, old: &str, expect: &str| {
        assert_eq!(refused(&kubelet(), request, new, old), format!("403 nodes \"{expect}"));
    };
    admitted(&kubelet(), "create /nodes", &node(r#","labels":{"kubernetes.io/os":"linux","mine":"1"}"#), "");
    admitted(&kubelet(), "update /nodes/status  a", &node(""), &node(""));
    check(
        "create /nodes",
        r#"{"metadata":{"name":"b"}}"#,
        "",
        "b\" is forbidden: node \"a\" is not allowed to modify node \"b\"",
    );
    check(
        "create /nodes",
        &node(r#","labels":{"node-role.kubernetes.io/x":"","node-restriction.kubernetes.io/y":""}"#),
        "",
        "a\" is forbidden: node \"a\" is not allowed to set the following labels: node-restriction.kubernetes.io/y, \
         node-role.kubernetes.io/x",
    );
    check(
        "update /nodes  a",
        &node(""),
        &node(r#","labels":{"foo.k8s.io/x":"1"}"#),
        "a\" is forbidden: is not allowed to modify labels: foo.k8s.io/x",
    );
    check(
        "update /nodes  a",
        r#"{"metadata":{"name":"a"},"spec":{"taints":[]}}"#,
        r#"{"metadata":{"name":"a"},"spec":{"taints":[{"key":"k"}]}}"#,
        "a\" is forbidden: node \"a\" is not allowed to modify taints",
    );
    let lease = r#"{"metadata":{"name":"b"}}"#;
    let world = world();
    world.put("", "namespaces", r#"{"metadata":{"name":"kube-node-lease"}}"#);
    let request = "create coordination.k8s.io/leases kube-node-lease";
    let status = run(&world, &Case { user: &kubelet(), request, new: lease, old: "" }).unwrap_err();
    assert!(status.message.ends_with("can only access node lease with the same name as the requesting node"));
}

#[test]
fn a_kubelet_writes_its_own_pods() {
    let bound =
        |node: &str, rest: &str| format!(r#"{{"metadata":{{"name":"p"{rest}}},"spec":{{"nodeName":"{node}"}}}}"#);
    let check = |request: &str, new: &str, old: &str, expect: &str| {
        let found = refused(&kubelet(), request, new, old);
        assert!(found.ends_with(expect), "{found}");
    };
    admitted(&kubelet(), "update /pods/status n p", &bound("a", ""), &bound("a", ""));
    let only = "node \"a\" can only update pod status for pods with spec.nodeName set to itself";
    check("update /pods/status n p", &bound("b", ""), &bound("b", ""), only);
    let labels = "node \"a\" cannot update labels through pod status";
    check("update /pods/status n p", &bound("a", r#","labels":{"x":"y"}"#), &bound("a", ""), labels);
    admitted(&kubelet(), "delete /pods n here", "", &bound("a", ""));
    let only = "node \"a\" can only delete pods with spec.nodeName set to itself";
    check("delete /pods n there", "", &bound("b", ""), only);
    check("delete /pods n none", "", &bound("b", ""), "404 pods \"none\" not found");
    admitted(&kubelet(), "create /pods/eviction n here", "{}", "");
    check("create /pods/eviction n there", "{}", "", "node a can only evict pods with spec.nodeName set to itself");
    check(
        "create /pods/exec n here",
        "{}",
        "",
        "unexpected pod subresource \"exec\", only 'status' and 'eviction' are allowed",
    );

    let owner = r#"{"apiVersion":"v1","kind":"Node","name":"a","uid":"a-1","controller":true}"#;
    let mirror = |owners: &str| {
        bound("a", &format!(r#","annotations":{{"kubernetes.io/config.mirror":"x"}},"ownerReferences":[{owners}]"#))
    };
    admitted(&kubelet(), "create /pods n", &mirror(owner), "");
    let plain = "pod does not have \"kubernetes.io/config.mirror\" annotation, node \"a\" can only create mirror pods";
    check("create /pods n", &bound("a", ""), "", plain);
    check("create /pods n", &mirror(""), "", "node \"a\" can only create pods with an owner reference set to itself");
    check("create /pods n", &mirror(&owner.replace("a-1", "z")), "", "node a UID mismatch: expected z got a-1");
    let secretive =
        mirror(owner).replace(r#""nodeName":"a""#, r#""nodeName":"a","volumes":[{"persistentVolumeClaim":{}}]"#);
    check("create /pods n", &secretive, "", "node \"a\" can not create pods that reference persistentvolumeclaims");
}

#[test]
fn a_kubelet_asks_for_tokens_of_its_pods() {
    let token = |spec: &str| format!(r#"{{"spec":{spec}}}"#);
    let bound = |name: &str, uid: &str| format!(r#"{{"apiVersion":"v1","kind":"Pod","name":"{name}","uid":"{uid}"}}"#);
    let request = "create /serviceaccounts/token n default";
    let check = |spec: &str, expect: &str| {
        let found = refused(&kubelet(), request, &token(spec), "");
        assert!(found.ends_with(expect), "{found}");
    };
    admitted(&kubelet(), request, &token(&format!(r#"{{"boundObjectRef":{}}}"#, bound("here", "h"))), "");
    check("{}", "node requested token not bound to a pod");
    check(
        &format!(r#"{{"boundObjectRef":{}}}"#, bound("here", "")),
        "node requested token with a pod binding without a uid",
    );
    check(
        &format!(r#"{{"boundObjectRef":{}}}"#, bound("there", "t")),
        "node requested token bound to a pod scheduled on a different node",
    );
    check(
        &format!(r#"{{"audiences":["vault"],"boundObjectRef":{}}}"#, bound("here", "h")),
        "audience \"vault\" not found in pod spec volume, system:node:a is not authorized to request tokens for this audience",
    );
    admitted(&admin(), request, "{}", "");
    let chain = Chain::new(Arc::new(bootstrapped()));
    let env = Env::seeded(1, jiff::Timestamp::UNIX_EPOCH);
    let mut anything = value("{}");
    let refusal = chain.admit_token(&world(), &env, &kubelet(), ("n", "default"), &mut anything).unwrap_err();
    assert!(refusal.message.starts_with("serviceaccounts \"default\" is forbidden: node requested token"), "{refusal}");
}

#[test]
fn pods_take_over_their_runtime_class() {
    let spec = |spec: &str| format!(r#"{{"metadata":{{"name":"p"}},"spec":{spec}}}"#);
    let pod = admitted(
        &admin(),
        "create /pods n",
        &spec(
            r#"{"runtimeClassName":"heavy","nodeSelector":{"zone":"z"},
                "tolerations":[{"key":"a","operator":"Equal","value":"v","effect":"NoSchedule"},{"key":"b","operator":"Equal","value":"x"}]}"#,
        ),
        "",
    );
    assert_eq!(pod.at(&["spec", "nodeSelector"]).unwrap().to_string(), r#"{"disk":"ssd","zone":"z"}"#);
    assert_eq!(pod.str_at(&["spec", "overhead", "cpu"]), Some("10m"));
    let tolerations = pod.items_at(&["spec", "tolerations"]);
    let ours: Vec<String> = tolerations
        .iter()
        .filter(|t| t.str_at(&["key"]).is_some_and(|key| key.len() == 1))
        .map(|t| format!("{} {}", t.str_at(&["key"]).unwrap(), t.str_at(&["operator"]).unwrap()))
        .collect();
    assert_eq!(ours, ["b Equal", "a Exists"], "the wider one stays, and each once");

    let check = |json: &str, expect: &str| {
        let message = refused(&admin(), "create /pods n", &spec(json), "");
        assert_eq!(message, format!("403 pods \"p\" is forbidden: {expect}"));
    };
    check(r#"{"runtimeClassName":"x"}"#, "pod rejected: RuntimeClass \"x\" not found");
    check(
        r#"{"runtimeClassName":"heavy","nodeSelector":{"disk":"hdd"}}"#,
        "conflict: runtimeClass.scheduling.nodeSelector[disk] = ssd; pod.spec.nodeSelector[disk] = hdd",
    );
    check(
        r#"{"runtimeClassName":"heavy","overhead":{"cpu":"1m"}}"#,
        "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead",
    );
    check(
        r#"{"runtimeClassName":"plain","overhead":{"cpu":"1m"}}"#,
        "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead",
    );
}

#[test]
fn claims_get_a_class_and_what_is_stored_is_protected() {
    let class = |world: &World, claim: &str| {
        let case = Case { user: &admin(), request: "create /persistentvolumeclaims n", new: claim, old: "" };
        let claim = run(world, &case).unwrap();
        assert_eq!(claim.items_at(&["metadata", "finalizers"]), ["kubernetes.io/pvc-protection".into()]);
        claim.str_at(&["spec", "storageClassName"]).map(str::to_owned)
    };
    let world = world();
    let bare = r#"{"metadata":{"name":"c"},"spec":{}}"#;
    assert_eq!(class(&world, bare), None);
    let put = |name: &str, created: &str, default: &str| {
        let key = "storageclass.kubernetes.io/is-default-class";
        let json = format!(
            r#"{{"metadata":{{"name":"{name}","creationTimestamp":"{created}","annotations":{{"{key}":"{default}"}}}},"allowVolumeExpansion":true}}"#
        );
        world.put("storage.k8s.io", "storageclasses", &json);
    };
    put("no", "2026-01-09T00:00:00Z", "false");
    put("old", "2026-01-01T00:00:00Z", "true");
    assert_eq!(class(&world, bare).as_deref(), Some("old"));
    put("b", "2026-01-02T00:00:00Z", "true");
    put("a", "2026-01-02T00:00:00Z", "true");
    assert_eq!(class(&world, bare).as_deref(), Some("a"));
    assert_eq!(class(&world, r#"{"metadata":{"name":"c"},"spec":{"storageClassName":""}}"#).as_deref(), Some(""));
    let legacy = r#"{"metadata":{"name":"c","annotations":{"volume.beta.kubernetes.io/storage-class":"x"}},"spec":{}}"#;
    assert_eq!(class(&world, legacy), None);
    let held = |request: &str, json: &str| {
        admitted(&admin(), request, json, "").items_at(&["metadata", "finalizers"]).to_vec()
    };
    let volume = r#"{"metadata":{"name":"v","finalizers":["x/y"]}}"#;
    assert_eq!(held("create /persistentvolumes", volume), ["x/y".into(), "kubernetes.io/pv-protection".into()]);
    let class = r#"{"metadata":{"name":"v"}}"#;
    assert_eq!(held("create storage.k8s.io/volumeattributesclasses", class), ["kubernetes.io/vac-protection".into()]);
}

#[test]
fn claims_grow_where_their_class_lets_them() {
    let world = world();
    world.put("storage.k8s.io", "storageclasses", r#"{"metadata":{"name":"grows"},"allowVolumeExpansion":true}"#);
    world.put("storage.k8s.io", "storageclasses", r#"{"metadata":{"name":"stays"}}"#);
    let check = |class: &str, phase: &str, size: &str, expect: &str| {
        let claim = |size: &str| {
            format!(
                r#"{{"metadata":{{"name":"c"}},"spec":{{"storageClassName":"{class}","resources":{{"requests":{{"storage":"{size}"}}}}}},"status":{{"phase":"{phase}"}}}}"#
            )
        };
        let case = Case {
            user: &admin(),
            request: "update /persistentvolumeclaims n c",
            new: &claim(size),
            old: &claim("1Gi"),
        };
        let told = run(&world, &case).map_or_else(|status| status.message.to_string(), |_| String::new());
        assert!(
            if expect.is_empty() { told.is_empty() } else { told.ends_with(expect) },
            "{class} {phase} {size}: {told}"
        );
    };
    let class = "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize";
    check("grows", "Bound", "2Gi", "");
    check("grows", "Bound", "1024Mi", "");
    check("stays", "Bound", "1Gi", "");
    check(
        "grows",
        "Pending",
        "2Gi",
        "persistentvolumeclaims \"c\" is forbidden: Only bound persistent volume claims can be expanded",
    );
    check("stays", "Bound", "2Gi", class);
    check("gone", "Bound", "2Gi", class);
    check("", "Bound", "2Gi", class);
}
