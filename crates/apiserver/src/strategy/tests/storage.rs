use super::*;

const VOLUME: &str = "spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], hostPath: {path: /x}}";
const CLAIM: &str = "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}";
const IMMUTABLE: &str = "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims\n";

/// A claim's spec with more members.
fn claim(more: &str) -> String {
    format!("spec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}, {more}}}")
}

fn volume(source: &str) -> String {
    format!("spec: {{capacity: {{storage: 1Gi}}, accessModes: [ReadWriteOnce], {source}}}")
}

#[test]
fn volumes() {
    let kind = Kind::of("", "v1", "PersistentVolume");
    kind.check_created(
        VOLUME,
        &[
            ("spec.persistentVolumeReclaimPolicy", "\"Retain\""),
            ("spec.volumeMode", "\"Filesystem\""),
            ("spec.hostPath.type", "\"\""),
            ("status.phase", "\"Pending\""),
        ],
    );
    let check = |yaml: &str, expect: &[&str]| kind.check_invalid(yaml, expect);
    check(VOLUME, &[]);
    check(
        "spec: {accessModes: [X], nfs: {server: a, path: /a}, hostPath: {path: /x}}",
        &[
            "spec.accessModes: Unsupported value: \"X\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \"ReadWriteOnce\", \"ReadWriteOncePod\"",
            "spec.capacity: Required value",
            "spec.capacity: Unsupported value: null: supported values: \"storage\"",
            "spec.nfs: Forbidden: may not specify more than 1 volume type",
        ],
    );
    check(
        "spec: {accessModes: [ReadWriteOncePod, ReadWriteOnce], capacity: {storage: 1Gi}, persistentVolumeReclaimPolicy: Recycle, hostPath: {path: /./}}",
        &[
            "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
            "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
        ],
    );
    check(&volume("local: {path: /a}"), &["spec.nodeAffinity: Required value: Local volume requires node affinity"]);
    check(
        &volume(
            "local: {path: /a/../b}, nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: k, operator: Exists}]}]}}",
        ),
        &["spec.local.path: Invalid value: \"/a/../b\": must not contain '..'"],
    );
    check(
        &volume("csi: {driver: a_b, nodePublishSecretRef: {name: ''}}, volumeAttributesClassName: ''"),
        &[
            "spec.csi.driver: Invalid value: \"a_b\": a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            "spec.csi.volumeHandle: Required value",
            "spec.csi.nodePublishSecretRef.name: Required value",
            "spec.csi.nodePublishSecretRef.namespace: Required value",
            "spec.volumeAttributesClassName: Required value: an empty string is disallowed",
        ],
    );
    check(
        &volume("fc: {targetWWNs: [a], wwids: [b]}"),
        &[
            "spec.fc.targetWWNs: Invalid value: [\"a\"]: targetWWNs and wwids can not be specified simultaneously",
            "spec.fc.lun: Required value: lun is required if targetWWNs is specified",
        ],
    );
    for (iqn, valid) in [
        ("iqn.2001-04.com.example:storage", true),
        ("iqn.2001-04.com.example", true),
        ("eui.0123456789abcdef", true),
        ("naa.0123456789abcdef", true),
        ("iqn.2001.com", false),
        ("eui.12", false),
        ("x", false),
    ] {
        let error = format!("spec.iscsi.iqn: Invalid value: {iqn:?}: must be valid format");
        let expect: &[&str] = if valid { &[] } else { &[&error] };
        check(&volume(&format!("iscsi: {{targetPortal: p, iqn: '{iqn}', lun: 1}}")), expect);
    }
    let update = |old: &str, new: &str, expect: &[&str]| drop(kind.check_update(old, new, "", expect));
    update(VOLUME, &volume("hostPath: {path: /x}, persistentVolumeReclaimPolicy: Delete, mountOptions: [ro]"), &[]);
    update(
        VOLUME,
        &volume("hostPath: {path: /y}, volumeMode: Block"),
        &[
            "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation",
            "volumeMode: Invalid value: \"Block\": field is immutable",
        ],
    );
    let csi = |more: &str| volume(&format!("csi: {{driver: a.b, volumeHandle: h{more}}}"));
    let secret = ", controllerExpandSecretRef: {name: a, namespace: b}";
    update(&csi(""), &csi(secret), &[]);
    let on = |key: &str, value: &str| {
        volume(&format!(
            "nfs: {{server: s, path: /p}}, nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: {key}, operator: In, values: [{value}]}}]}}]}}}}"
        ))
    };
    update(&volume("nfs: {server: s, path: /p}"), &on("k", "v"), &[]);
    let beta = "failure-domain.beta.kubernetes.io/zone";
    update(&on(beta, "a"), &on("topology.kubernetes.io/zone", "a"), &[]);
    for (old, new) in [(on("k", "v"), on("k", "w")), (on("topology.kubernetes.io/zone", "a"), on(beta, "a"))] {
        let world = World::new();
        let mut errors = Vec::new();
        kind.strategy().validate_update(&world.context(""), &kind.created(&new), &kind.created(&old), &mut errors);
        let errors: Vec<String> = errors.iter().map(FieldError::to_string).collect();
        let end = ": field is immutable, except for updating from beta label to GA";
        assert!(
            errors.len() == 1 && errors[0].starts_with("nodeAffinity: Invalid value: ") && errors[0].ends_with(end),
            "{errors:?}"
        );
    }
}

#[test]
fn volumes_warn_of_what_is_old() {
    let check = |kind: &str, yaml: &str, expect: &[&str]| {
        let kind = Kind::of("", "v1", kind);
        let world = World::new();
        assert_eq!(kind.strategy().warnings(&world.context(""), &kind.created(yaml), None), expect, "{yaml}");
    };
    check("PersistentVolume", VOLUME, &[]);
    check(
        "PersistentVolume",
        "{metadata: {annotations: {volume.beta.kubernetes.io/storage-class: x}}, spec: {persistentVolumeReclaimPolicy: Recycle, rbd: {image: i, monitors: [m]},
          nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: beta.kubernetes.io/os, operator: Exists}]}]}}}}",
        &[
            "metadata.annotations[volume.beta.kubernetes.io/storage-class]: deprecated since v1.8; use \"storageClassName\" attribute instead",
            "spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.",
            "spec.nodeAffinity.required.nodeSelectorTerms[0].matchExpressions[0].key: beta.kubernetes.io/os is deprecated since v1.14; use \"kubernetes.io/os\" instead",
            "spec.rbd: deprecated in v1.28, non-functional in v1.31+",
        ],
    );
    check(
        "PersistentVolumeClaim",
        "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1500m}}}",
        &["spec.resources.requests[storage]: fractional byte value \"1500m\" is invalid, must be an integer"],
    );
}

#[test]
fn claims() {
    let kind = Kind::of("", "v1", "PersistentVolumeClaim");
    kind.check_created(CLAIM, &[("spec.volumeMode", "\"Filesystem\""), ("status", r#"{"phase":"Pending"}"#)]);
    kind.check_invalid(
        "spec: {}",
        &[
            "spec.accessModes: Required value: at least 1 access mode is required",
            "spec.resources[storage]: Required value",
        ],
    );
    kind.check_invalid(
        &claim("dataSourceRef: {kind: K, name: ''}, dataSource: {kind: PersistentVolumeClaim, name: p}"),
        &[
            "spec.dataSourceRef.name: Required value",
            "spec.dataSourceRef: Invalid value: \"K\": must be 'PersistentVolumeClaim' when referencing the default apiGroup",
            "spec: Invalid value: {}: must match dataSourceRef",
        ],
    );
    let pvc = "{kind: PersistentVolumeClaim, name: p}";
    kind.check_created(
        &claim(&format!("dataSource: {pvc}")),
        &[("spec.dataSourceRef", r#"{"apiGroup":null,"kind":"PersistentVolumeClaim","name":"p"}"#)],
    );
    kind.check_created(
        &claim("dataSourceRef: {apiGroup: a.b, kind: K, name: p}"),
        &[("spec.dataSource", r#"{"apiGroup":"a.b","kind":"K","name":"p"}"#)],
    );
    kind.check_created(&claim("dataSource: {apiGroup: a.b, kind: K, name: p}"), &[("spec.dataSource", "absent")]);
    kind.check_created(
        &claim("dataSourceRef: {kind: PersistentVolumeClaim, name: p, namespace: other}"),
        &[("spec.dataSourceRef", "absent"), ("spec.dataSource", "absent")],
    );
}

#[test]
fn changes_of_claims() {
    let kind = Kind::of("", "v1", "PersistentVolumeClaim");
    let check = |old: &str, new: &str, expect: &[&str]| drop(kind.check_update(old, new, "", expect));
    let changed = |line: &str| format!("{IMMUTABLE}+ {line}\n");
    check(CLAIM, &claim("volumeName: v, storageClassName: s"), &[]);
    check(&claim("volumeName: v"), &claim("volumeName: w"), &[&changed("volumeName: \"w\"")]);
    check(&claim("storageClassName: a"), &claim("storageClassName: b"), &[&changed("storageClassName: \"b\"")]);
    check(&claim("storageClassName: ''"), &claim("storageClassName: b"), &[&changed("storageClassName: \"b\"")]);
    let grown = "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 2Gi}}}";
    check(CLAIM, grown, &[&changed("resources: {\"requests\":{\"storage\":\"2Gi\"}}")]);
    let bound = |spec: &str, size: &str| format!("{{{spec}, status: {{phase: Bound, capacity: {{storage: {size}}}}}}}");
    check(&bound(CLAIM, "1Gi"), grown, &[]);
    // Back from a growth that never came, but not to what there is already.
    check(&bound(grown, "1Gi"), "spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1500Mi}}}", &[]);
    check(
        &bound(grown, "1Gi"),
        CLAIM,
        &["spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"],
    );
    // The class moves from the annotation to its field, and to no other.
    let legacy =
        |spec: &str| format!("{{metadata: {{annotations: {{volume.beta.kubernetes.io/storage-class: old}}}}, {spec}}}");
    check(&legacy(CLAIM), &claim("storageClassName: old"), &[]);
    check(&legacy(CLAIM), &legacy(&claim("storageClassName: old")), &[]);
    check(&legacy(CLAIM), &legacy(&claim("storageClassName: new")), &[&changed("storageClassName: \"new\"")]);
    check(
        &legacy(CLAIM),
        CLAIM,
        &["metadata.annotations.volume.beta.kubernetes.io/storage-class: Invalid value: \"\": field is immutable"],
    );
    let applied = format!(
        "{{{}, status: {{phase: Bound, currentVolumeAttributesClassName: a}}}}",
        claim("volumeAttributesClassName: a")
    );
    check(&applied, &claim("volumeAttributesClassName: b"), &[]);
    check(
        &applied,
        CLAIM,
        &[
            "spec.volumeAttributesClassName: Forbidden: update to nil is forbidden when status.currentVolumeAttributesClassName is not nil",
        ],
    );
    let status = |status: &str, expect: &[&str]| {
        drop(kind.check_update(CLAIM, &format!("{{{CLAIM}, status: {{{status}}}}}"), "status", expect));
    };
    status(
        "phase: Bound, capacity: {storage: 1Gi}, allocatedResources: {storage: 2Gi}, allocatedResourceStatuses: {storage: NodeResizePending}",
        &[],
    );
    status(
        "capacity: {storage: '-1'}, allocatedResourceStatuses: {cpu: X}",
        &[
            "status.capacity[storage]: Invalid value: -1: must be a valid resource quantity",
            "status.allocatedResourceStatuses: Unsupported value: \"cpu\": supported values: \"storage\"",
            "status.allocatedResourceStatuses: Unsupported value: \"cpu\": supported values: \"ControllerResizeInProgress\", \"ControllerResizeInfeasible\", \"NodeResizeInProgress\", \"NodeResizeInfeasible\", \"NodeResizePending\"",
        ],
    );
}

#[test]
fn storage_classes() {
    let kind = Kind::of("storage.k8s.io", "v1", "StorageClass");
    kind.check_created(
        "provisioner: example.com/p",
        &[("reclaimPolicy", "\"Delete\""), ("volumeBindingMode", "\"Immediate\"")],
    );
    kind.check_update(
        "provisioner: example.com/p",
        "{provisioner: example.com/q, parameters: {a: b}, reclaimPolicy: Retain, volumeBindingMode: WaitForFirstConsumer, allowVolumeExpansion: true}",
        "",
        &[
            "parameters: Forbidden: updates to parameters are forbidden.",
            "provisioner: Forbidden: updates to provisioner are forbidden.",
            "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden.",
            "volumeBindingMode: Invalid value: \"WaitForFirstConsumer\": field is immutable",
        ],
    );
    kind.check_invalid(
        "{provisioner: p, allowedTopologies: [{matchLabelExpressions: [{key: a, values: [x, x]}, {key: a, values: []}]}, {matchLabelExpressions: [{key: b, values: [y]}]}, {matchLabelExpressions: [{key: b, values: [y]}]}]}",
        &[
            "allowedTopologies[0].matchLabelExpressions[0].values[1]: Duplicate value: \"x\"",
            "allowedTopologies[0].matchLabelExpressions[1].values: Required value",
            "allowedTopologies[0].matchLabelExpressions[1].key: Duplicate value: \"a\"",
            "allowedTopologies[2].matchLabelExpressions: Duplicate value: \"\"",
        ],
    );
    let kind = Kind::of("storage.k8s.io", "v1", "VolumeAttributesClass");
    kind.check_invalid("driverName: d", &["parameters: Required value: must contain at least one key/value pair"]);
    kind.check_update(
        "{driverName: d, parameters: {a: b}}",
        "{driverName: e, parameters: {a: c}}",
        "",
        &[
            "driverName: Forbidden: updates to driverName are forbidden.",
            "parameters: Forbidden: updates to parameters are forbidden.",
        ],
    );
}

#[test]
fn what_drivers_register() {
    let kind = Kind::of("storage.k8s.io", "v1", "CSIDriver");
    kind.check_invalid(
        "spec: {tokenRequests: [{audience: a}, {audience: a}, {audience: b, expirationSeconds: 5}], volumeLifecycleModes: [X]}",
        &[
            "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
            "spec.tokenRequests[2].expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
            "spec.volumeLifecycleModes: Unsupported value: \"X\": supported values: \"Persistent\", \"Ephemeral\"",
        ],
    );
    let value = kind.check_update(
        "spec: {}",
        "spec: {attachRequired: false, podInfoOnMount: true}",
        "",
        &["spec.attachedRequired: Invalid value: false: field is immutable"],
    );
    assert_eq!(value.i64_at(&["metadata", "generation"]), Some(1));
    let kind = Kind::of("storage.k8s.io", "v1", "CSINode");
    kind.check_update(
        "spec: {drivers: [{name: a.b, nodeID: x, allocatable: {count: 1}}]}",
        "spec: {drivers: [{name: a.b, nodeID: x, allocatable: {count: 2}}, {name: c.d, nodeID: y}]}",
        "",
        &[],
    );
    kind.check_invalid(
        "spec: {drivers: [{name: a.b, nodeID: x, topologyKeys: [k, k]}]}",
        &["spec.drivers[0]: Duplicate value: \"k\""],
    );
    let kind = Kind::of("storage.k8s.io", "v1", "CSIStorageCapacity");
    kind.check_invalid(
        "{storageClassName: s, capacity: '-1'}",
        &["capacity: Invalid value: \"-1\": must be greater than or equal to 0"],
    );
    let kind = Kind::of("storage.k8s.io", "v1", "VolumeAttachment");
    kind.check_invalid("spec: {attacher: a.b, nodeName: n, source: {persistentVolumeName: v}}", &[]);
    kind.check_invalid(
        "spec: {attacher: a.b, nodeName: n, source: {inlineVolumeSpec: {accessModes: [ReadWriteOnce], capacity: {storage: 1Gi}, hostPath: {path: /x}}}}",
        &[
            "spec.source.inlineVolumeSpec.capacity: Forbidden: may not be specified in the context of inline volumes",
            "spec.source.inlineVolumeSpec.csi: Required value: has to be specified in the context of inline volumes",
        ],
    );
}
