//! The core group, and Events under their second name.

use super::row;
use crate::kind::{
    AGE, CONNECT, CREATE, Cell, Column, EDIT, Kind, NAME, NO_COLLECTION, PROXY, SCALE, Subresource, at, computed,
    field, field_or, integer, status, text,
};

macro_rules! core {
    ($kind:literal, $resource:literal) => {
        row!("io.k8s.api.core.v1", "", "v1", $kind, $resource)
    };
}

pub(super) static KINDS: &[Kind] = &[
    core!("Binding", "bindings").answered(),
    core!("ComponentStatus", "componentstatuses").cluster().short(&["cs"]).virtual_with(&["get", "list"]).columns(&[
        NAME,
        computed("Status"),
        computed("Message"),
        computed("Error"),
    ]),
    core!("ConfigMap", "configmaps").short(&["cm"]).columns(&[
        NAME,
        Column::new("Data", "string", Cell::Computed),
        AGE,
    ]),
    core!("Endpoints", "endpoints").short(&["ep"]).path("services/endpoints").columns(&[
        NAME,
        computed("Endpoints"),
        AGE,
    ]),
    core!("Event", "events").short(&["ev"]).fields(EVENT_FIELDS).columns(EVENT_COLUMNS),
    core!("LimitRange", "limitranges").short(&["limits"]),
    core!("Namespace", "namespaces")
        .cluster()
        .short(&["ns"])
        .verbs(NO_COLLECTION)
        .with(&[Subresource::new("finalize", ("", "v1", "Namespace"), &["update"]), status(("", "v1", "Namespace"))])
        .fields(&[field("status.phase", &["status", "phase"])])
        .columns(&[NAME, at("Status", &["status", "phase"]), AGE]),
    core!("Node", "nodes")
        .cluster()
        .short(&["no"])
        .path("minions")
        .with(&[Subresource::new("proxy", ("", "v1", "NodeProxyOptions"), PROXY), status(("", "v1", "Node"))])
        .fields(&[field("spec.unschedulable", &["spec", "unschedulable"])])
        .columns(&[
            NAME,
            computed("Status"),
            computed("Roles"),
            AGE,
            at("Version", &["status", "nodeInfo", "kubeletVersion"]),
            computed("Internal-IP").wide(),
            computed("External-IP").wide(),
            computed("OS-Image").wide(),
            computed("Kernel-Version").wide(),
            computed("Container-Runtime").wide(),
        ]),
    core!("PersistentVolume", "persistentvolumes")
        .cluster()
        .short(&["pv"])
        .with(&[status(("", "v1", "PersistentVolume"))])
        .columns(&[
            NAME,
            computed("Capacity"),
            computed("Access Modes"),
            at("Reclaim Policy", &["spec", "persistentVolumeReclaimPolicy"]),
            computed("Status"),
            computed("Claim"),
            computed("StorageClass"),
            computed("VolumeAttributesClass"),
            at("Reason", &["status", "reason"]),
            AGE,
            computed("VolumeMode").wide(),
        ]),
    core!("PersistentVolumeClaim", "persistentvolumeclaims")
        .short(&["pvc"])
        .with(&[status(("", "v1", "PersistentVolumeClaim"))])
        .columns(&[
            NAME,
            computed("Status"),
            at("Volume", &["spec", "volumeName"]),
            computed("Capacity"),
            computed("Access Modes"),
            computed("StorageClass"),
            computed("VolumeAttributesClass"),
            AGE,
            computed("VolumeMode").wide(),
        ]),
    core!("Pod", "pods")
        .short(&["po"])
        .categories(&["all"])
        .with(POD_SUBRESOURCES)
        .fields(&[
            field("spec.nodeName", &["spec", "nodeName"]),
            field("spec.restartPolicy", &["spec", "restartPolicy"]),
            field("spec.schedulerName", &["spec", "schedulerName"]),
            field("spec.serviceAccountName", &["spec", "serviceAccountName"]),
            field("spec.hostNetwork", &["spec", "hostNetwork"]),
            field("status.phase", &["status", "phase"]),
            field("status.podIP", &["status", "podIP"]),
            field("status.nominatedNodeName", &["status", "nominatedNodeName"]),
        ])
        .columns(&[
            NAME,
            computed("Ready"),
            computed("Status"),
            computed("Restarts"),
            AGE,
            computed("IP").wide(),
            computed("Node").wide(),
            computed("Nominated Node").wide(),
            computed("Readiness Gates").wide(),
        ]),
    core!("PodTemplate", "podtemplates").columns(&[
        NAME,
        text("Containers", Cell::ContainerNames(&["template", "spec"])),
        text("Images", Cell::ContainerImages(&["template", "spec"])),
        text("Pod Labels", Cell::Labels(&["template", "metadata", "labels"])),
    ]),
    core!("ReplicationController", "replicationcontrollers")
        .short(&["rc"])
        .categories(&["all"])
        .path("controllers")
        .with(&[SCALE, status(("", "v1", "ReplicationController"))])
        .fields(&[field("status.replicas", &["status", "replicas"])])
        .columns(&[
            NAME,
            integer("Desired", &["spec", "replicas"]),
            integer("Current", &["status", "replicas"]),
            integer("Ready", &["status", "readyReplicas"]),
            AGE,
            text("Containers", Cell::ContainerNames(&["spec", "template", "spec"])).wide(),
            text("Images", Cell::ContainerImages(&["spec", "template", "spec"])).wide(),
            text("Selector", Cell::Labels(&["spec", "selector"])).wide(),
        ]),
    core!("ResourceQuota", "resourcequotas").short(&["quota"]).with(&[status(("", "v1", "ResourceQuota"))]).columns(&[
        NAME,
        computed("Request"),
        computed("Limit"),
        AGE,
    ]),
    core!("Secret", "secrets").fields(&[field("type", &["type"])]).columns(&[
        NAME,
        at("Type", &["type"]),
        Column::new("Data", "integer", Cell::Count(&["data"])),
        AGE,
    ]),
    core!("Service", "services")
        .short(&["svc"])
        .categories(&["all"])
        .path("services/specs")
        .with(&[Subresource::new("proxy", ("", "v1", "ServiceProxyOptions"), PROXY), status(("", "v1", "Service"))])
        .fields(&[field("spec.clusterIP", &["spec", "clusterIP"]), field("spec.type", &["spec", "type"])])
        .columns(&[
            NAME,
            at("Type", &["spec", "type"]),
            computed("Cluster-IP"),
            computed("External-IP"),
            computed("Port(s)"),
            AGE,
            text("Selector", Cell::Labels(&["spec", "selector"])).wide(),
        ]),
    core!("ServiceAccount", "serviceaccounts")
        .short(&["sa"])
        .with(&[Subresource::new("token", ("authentication.k8s.io", "v1", "TokenRequest"), CREATE)])
        .columns(&[NAME, AGE]),
    row!("io.k8s.api.events.v1", "events.k8s.io", "v1", "Event", "events")
        .short(&["ev"])
        .stored_as("", "v1")
        .fields(&[
            field("regarding.kind", &["regarding", "kind"]),
            field("regarding.namespace", &["regarding", "namespace"]),
            field("regarding.name", &["regarding", "name"]),
            field("regarding.uid", &["regarding", "uid"]),
            field("regarding.apiVersion", &["regarding", "apiVersion"]),
            field("regarding.resourceVersion", &["regarding", "resourceVersion"]),
            field("regarding.fieldPath", &["regarding", "fieldPath"]),
            field("reason", &["reason"]),
            field("reportingController", &["reportingController"]),
            field("type", &["type"]),
        ])
        .columns(EVENT_COLUMNS),
];

const POD: (&str, &str, &str) = ("", "v1", "Pod");

const POD_SUBRESOURCES: &[Subresource] = &[
    Subresource::new("attach", ("", "v1", "PodAttachOptions"), CONNECT),
    Subresource::new("binding", ("", "v1", "Binding"), CREATE),
    Subresource::new("ephemeralcontainers", POD, EDIT),
    Subresource::new("eviction", ("policy", "v1", "Eviction"), CREATE),
    Subresource::new("exec", ("", "v1", "PodExecOptions"), CONNECT),
    Subresource::new("log", POD, &["get"]),
    Subresource::new("portforward", ("", "v1", "PodPortForwardOptions"), CONNECT),
    Subresource::new("proxy", ("", "v1", "PodProxyOptions"), PROXY),
    Subresource::new("resize", POD, EDIT),
    status(POD),
];

const EVENT_FIELDS: &[crate::kind::Selectable] = &[
    field("involvedObject.kind", &["involvedObject", "kind"]),
    field("involvedObject.namespace", &["involvedObject", "namespace"]),
    field("involvedObject.name", &["involvedObject", "name"]),
    field("involvedObject.uid", &["involvedObject", "uid"]),
    field("involvedObject.apiVersion", &["involvedObject", "apiVersion"]),
    field("involvedObject.resourceVersion", &["involvedObject", "resourceVersion"]),
    field("involvedObject.fieldPath", &["involvedObject", "fieldPath"]),
    field("reason", &["reason"]),
    field("reportingComponent", &["reportingComponent"]),
    field_or("source", &["source", "component"], &["reportingComponent"]),
    field("type", &["type"]),
];

const EVENT_COLUMNS: &[Column] = &[
    computed("Last Seen"),
    at("Type", &["type"]),
    at("Reason", &["reason"]),
    computed("Object"),
    computed("Subobject").wide(),
    computed("Source").wide(),
    computed("Message"),
    computed("First Seen").wide(),
    Column::new("Count", "integer", Cell::Computed).wide(),
    NAME.wide(),
];
