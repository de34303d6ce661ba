//! A kubelet writes its own node, the pods bound to it, and tokens for those. Upstream: plugin/pkg/admission/noderestriction.

use std::collections::BTreeSet;

use apimachinery::{GroupResource, ObjectKey, Status, Value};

use super::{Plugin, Write};
use crate::gate::Attributes;
use crate::gate::node::node_of;
use crate::registry::Operation;

pub(super) struct NodeRestriction;

const MIRROR: &str = "kubernetes.io/config.mirror";

/// The labels under kubernetes.io that a kubelet may set on its node.
const KUBELET_LABELS: [&str; 11] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
];

type Refusal = Result<(), Status>;

impl Plugin for NodeRestriction {
    fn admit(&self, write: &Write<'_>, new: &mut Value, old: Option<&Value>) -> Refusal {
        Check::of(write, Some(new), old).map_or(Ok(()), |check| check.run())
    }

    fn validate(&self, write: &Write<'_>, new: Option<&Value>, old: Option<&Value>) -> Refusal {
        if write.operation != Operation::Delete {
            return Ok(());
        }
        Check::of(write, new, old).map_or(Ok(()), |check| check.run())
    }
}

/// A write by the kubelet of `node`.
struct Check<'a> {
    write: &'a Write<'a>,
    new: Option<&'a Value>,
    old: Option<&'a Value>,
    node: &'a str,
}

impl<'a> Check<'a> {
    fn of(write: &'a Write<'a>, new: Option<&'a Value>, old: Option<&'a Value>) -> Option<Check<'a>> {
        node_of(write.user).map(|node| Check { write, new, old, node })
    }

    fn run(&self) -> Refusal {
        if self.node.is_empty() {
            return self.refuse(format!("could not determine node from user {:?}", self.write.user.name));
        }
        match (self.write.group, self.write.resource, self.write.subresource) {
            ("", "pods", "") => self.pod(),
            ("", "pods", "status") => self.pod_status(),
            ("", "pods", "eviction") => self.eviction(),
            ("", "pods", other) => {
                self.refuse(format!("unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"))
            }
            ("", "nodes", _) => self.own_node(),
            ("", "persistentvolumeclaims", "status") => self.claim_status(),
            ("", "persistentvolumeclaims", _) => self.refuse("may only update PVC status"),
            ("", "serviceaccounts", "token") if self.write.operation == Operation::Create => self.token(),
            ("certificates.k8s.io", "podcertificaterequests", _) => {
                self.refuse("PodCertificateRequest feature gate is disabled")
            }
            ("coordination.k8s.io", "leases", _) if self.write.namespace != "kube-node-lease" => {
                self.refuse("can only access leases in the \"kube-node-lease\" system namespace")
            }
            ("coordination.k8s.io", "leases", _) => self.named_like_node("node lease"),
            ("storage.k8s.io", "csinodes", _) => self.named_like_node("CSINode"),
            ("resource.k8s.io", "resourceslices", _) => self.resource_slice(),
            _ => Ok(()),
        }
    }

    fn refuse(&self, why: impl AsRef<str>) -> Refusal {
        Err(self.write.forbidden(self.new, why.as_ref()))
    }

    /// The cached pod `name`, or the answer that there is none.
    fn pod_value(&self, name: &str) -> Result<Value, Status> {
        let found = self.write.objects.get("", "pods", &ObjectKey::new(self.write.namespace, name));
        found.map(|pod| pod.to_value()).ok_or_else(|| Status::not_found(&GroupResource::new("", "pods"), name))
    }

    fn is_here(&self, pod: &Value) -> bool {
        pod.str_at(&["spec", "nodeName"]) == Some(self.node)
    }

    fn name(&self) -> &str {
        let own = || self.new.and_then(|new| new.str_at(&["metadata", "name"])).unwrap_or_default();
        if self.write.name.is_empty() { own() } else { self.write.name }
    }

    fn pod(&self) -> Refusal {
        let node = self.node;
        match self.write.operation {
            Operation::Create => self.mirror_pod(self.new.unwrap_or(&Value::Null)),
            Operation::Delete if self.is_here(&self.pod_value(self.write.name)?) => Ok(()),
            Operation::Delete => {
                self.refuse(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
            }
            other => {
                let operation = format!("{other:?}").to_uppercase();
                self.refuse(format!(
                    "unexpected operation {operation:?}, node {node:?} can only create and delete mirror pods"
                ))
            }
        }
    }

    fn mirror_pod(&self, pod: &Value) -> Refusal {
        let node = self.node;
        if pod.at(&["metadata", "annotations", MIRROR]).is_none() {
            return self
                .refuse(format!("pod does not have {MIRROR:?} annotation, node {node:?} can only create mirror pods"));
        }
        if !self.is_here(pod) {
            return self.refuse(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
        }
        let only = |what: &str| self.refuse(format!("node {node:?} can only create pods with {what} set to itself"));
        let owner = match pod.items_at(&["metadata", "ownerReferences"]) {
            [] => return only("an owner reference"),
            [owner] => owner,
            _ => return only("a single owner reference"),
        };
        let text = |key: &str| owner.str_at(&[key]).unwrap_or_default();
        if (text("apiVersion"), text("kind"), text("name")) != ("v1", "Node", node) {
            return only("an owner reference");
        }
        if owner.bool_at(&["controller"]) != Some(true) {
            return only("a controller owner reference");
        }
        if owner.bool_at(&["blockOwnerDeletion"]) == Some(true) {
            return self.refuse(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
        }
        let Some(object) = self.write.objects.get("", "nodes", &ObjectKey::cluster(node)) else {
            return Err(Status::not_found(&GroupResource::new("", "nodes"), node));
        };
        if text("uid") != object.uid() {
            let (given, own) = (text("uid"), object.uid());
            return self.refuse(format!("node {node} UID mismatch: expected {given} got {own}"));
        }
        match referenced(pod) {
            Some(resource) => self.refuse(format!("node {node:?} can not create pods that reference {resource}")),
            None => Ok(()),
        }
    }

    fn pod_status(&self) -> Refusal {
        let node = self.node;
        let (Operation::Update, Some(new), Some(old)) = (self.write.operation, self.new, self.old) else {
            let operation = format!("{:?}", self.write.operation).to_uppercase();
            return self.refuse(format!("unexpected operation {operation:?}"));
        };
        if !self.is_here(old) {
            return self
                .refuse(format!("node {node:?} can only update pod status for pods with spec.nodeName set to itself"));
        }
        let changed = |path: &[&str]| {
            let of = |pod: &Value| pod.at(path).filter(|value| !is_empty(value)).cloned();
            of(new) != of(old)
        };
        if changed(&["metadata", "labels"]) {
            return self.refuse(format!("node {node:?} cannot update labels through pod status"));
        }
        if changed(&["status", "resourceClaimStatuses"]) {
            return self.refuse(format!("node {node:?} cannot update resource claim statues"));
        }
        if changed(&["status", "extendedResourceClaimStatus"]) {
            return self.refuse(format!("node {node:?} cannot update extended resource claim status"));
        }
        Ok(())
    }

    fn eviction(&self) -> Refusal {
        if self.write.operation != Operation::Create {
            return self
                .refuse(format!("unexpected operation {}", format!("{:?}", self.write.operation).to_uppercase()));
        }
        let name = self.name();
        if name.is_empty() {
            return self.refuse("could not determine pod from request data");
        }
        if self.is_here(&self.pod_value(name)?) {
            return Ok(());
        }
        self.refuse(format!("node {} can only evict pods with spec.nodeName set to itself", self.node))
    }

    fn own_node(&self) -> Refusal {
        let (node, name) = (self.node, self.name());
        if name != node {
            return self.refuse(format!("node {node:?} is not allowed to modify node {name:?}"));
        }
        let Some(new) = self.new else { return Ok(()) };
        let empty = Value::object();
        let old = self.old.unwrap_or(&empty);
        let same = |path: &[&str]| {
            let of = |value: &Value| value.at(path).filter(|value| !is_empty(value)).cloned();
            of(new) == of(old)
        };
        let creates = self.write.operation == Operation::Create;
        if new.at(&["spec", "configSource"]).is_some_and(|source| !source.is_null()) && !same(&["spec", "configSource"])
        {
            return self.refuse(if creates {
                format!("node {node:?} is not allowed to create pods with a non-nil configSource")
            } else {
                format!("node {node:?} is not allowed to update configSource to a new non-nil configSource")
            });
        }
        if !creates && !same(&["spec", "taints"]) {
            return self.refuse(format!("node {node:?} is not allowed to modify taints"));
        }
        if !creates && !same(&["metadata", "ownerReferences"]) {
            return self.refuse(format!("node {node:?} is not allowed to modify ownerReferences"));
        }
        let forbidden = forbidden_labels(new, old).join(", ");
        match (forbidden.as_str(), creates) {
            ("", _) => Ok(()),
            (labels, true) => {
                self.refuse(format!("node {node:?} is not allowed to set the following labels: {labels}"))
            }
            (labels, false) => self.refuse(format!("is not allowed to modify labels: {labels}")),
        }
    }

    fn claim_status(&self) -> Refusal {
        let (Operation::Update, Some(new), Some(old)) = (self.write.operation, self.new, self.old) else {
            let operation = format!("{:?}", self.write.operation).to_uppercase();
            return self.refuse(format!("unexpected operation {operation:?}"));
        };
        let rest = |claim: &Value| {
            let mut rest = claim.clone();
            for key in ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"] {
                rest.remove(&["status", key]);
            }
            for key in ["resourceVersion", "managedFields"] {
                rest.remove(&["metadata", key]);
            }
            rest
        };
        if rest(new) == rest(old) {
            return Ok(());
        }
        self.refuse(format!(
            "node {:?} is not allowed to update fields other than status.quantity and status.conditions",
            self.node
        ))
    }

    fn token(&self) -> Refusal {
        let request = self.new.unwrap_or(&Value::Null);
        let bound = |key: &str| request.str_at(&["spec", "boundObjectRef", key]).unwrap_or_default();
        if bound("apiVersion") != "v1" || bound("kind") != "Pod" || bound("name").is_empty() {
            return self.refuse("node requested token not bound to a pod");
        }
        let uid = bound("uid");
        if uid.is_empty() {
            return self.refuse("node requested token with a pod binding without a uid");
        }
        let pod = self.pod_value(bound("name"))?;
        if pod.str_at(&["metadata", "uid"]) != Some(uid) {
            return self.refuse(format!(
                "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been \
                 deleted and then recreated"
            ));
        }
        if !self.is_here(&pod) {
            return self.refuse("node requested token bound to a pod scheduled on a different node");
        }
        let audience = match request.items_at(&["spec", "audiences"]) {
            [] => "",
            [one] => one.as_str().unwrap_or_default(),
            _ => return self.refuse("node may only request 0 or 1 audiences"),
        };
        let user = self.write.user;
        let question = Attributes {
            namespace: self.write.namespace,
            version: "v1",
            name: self.write.name,
            ..Attributes::resource(user, "request-serviceaccounts-token-audience", "", audience)
        };
        if self.has_audience(&pod, audience) || self.write.gate.authorize(&question).allowed {
            return Ok(());
        }
        self.refuse(format!(
            "audience {audience:?} not found in pod spec volume, {} is not authorized to request tokens for this audience",
            user.name
        ))
    }

    /// Whether a volume of the pod needs a token for `audience`.
    fn has_audience(&self, pod: &Value, audience: &str) -> bool {
        let objects = self.write.objects;
        let driver_has = |driver: &str| {
            let driver = objects.get("storage.k8s.io", "csidrivers", &ObjectKey::cluster(driver));
            driver.is_some_and(|driver| {
                let requests = driver.to_value();
                let wants = |request: &Value| request.str_at(&["audience"]).unwrap_or_default() == audience;
                requests.items_at(&["spec", "tokenRequests"]).iter().any(wants)
            })
        };
        let claim_has = |claim: &str| {
            let claim =
                objects.get("", "persistentvolumeclaims", &ObjectKey::new(self.write.namespace, claim))?.to_value();
            let volume = claim.str_at(&["spec", "volumeName"])?;
            let volume = objects.get("", "persistentvolumes", &ObjectKey::cluster(volume))?.to_value();
            Some(driver_has(volume.str_at(&["spec", "csi", "driver"])?))
        };
        pod.items_at(&["spec", "volumes"]).iter().any(|volume| {
            let projects = |source: &Value| {
                let token = source.get("serviceAccountToken");
                token.is_some_and(|token| token.str_at(&["audience"]).unwrap_or_default() == audience)
            };
            let name = |path: &[&str]| volume.str_at(path);
            let ephemeral = volume
                .get("ephemeral")
                .and(name(&["name"]))
                .map(|name| format!("{}-{name}", pod.str_at(&["metadata", "name"]).unwrap_or_default()));
            volume.items_at(&["projected", "sources"]).iter().any(projects)
                || name(&["csi", "driver"]).is_some_and(driver_has)
                || name(&["persistentVolumeClaim", "claimName"]).and_then(claim_has) == Some(true)
                || ephemeral.as_deref().and_then(claim_has) == Some(true)
        })
    }

    fn named_like_node(&self, what: &str) -> Refusal {
        if self.name() == self.node {
            return Ok(());
        }
        self.refuse(format!("can only access {what} with the same name as the requesting node"))
    }

    fn resource_slice(&self) -> Refusal {
        let (verb, slice) = match self.write.operation {
            Operation::Create => ("create", self.new),
            Operation::Delete => ("delete", self.old),
            _ => return Ok(()),
        };
        if slice.is_some_and(|slice| self.is_here(slice)) {
            return Ok(());
        }
        self.refuse(format!("can only {verb} ResourceSlice with the same NodeName as the requesting node"))
    }
}

/// Whether a value is as good as absent.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// The changed labels that are not a kubelet's to change.
fn forbidden_labels(new: &Value, old: &Value) -> Vec<String> {
    let labels = |node: &Value| -> BTreeSet<(String, String)> {
        let map = node.at(&["metadata", "labels"]).and_then(Value::as_object);
        let pairs = map.into_iter().flat_map(|map| map.iter());
        pairs.map(|(key, value)| (key.to_owned(), value.as_str().unwrap_or_default().to_owned())).collect()
    };
    let changed: BTreeSet<String> =
        labels(new).symmetric_difference(&labels(old)).map(|(key, _)| key.clone()).collect();
    changed.into_iter().filter(|label| is_forbidden(label)).collect()
}

fn is_forbidden(label: &str) -> bool {
    let namespace = label.split_once('/').map_or("", |(namespace, _)| namespace);
    let within = |domain: &str| {
        namespace == domain || namespace.strip_suffix(domain).is_some_and(|prefix| prefix.ends_with('.'))
    };
    let kubelets = KUBELET_LABELS.contains(&label) || within("kubelet.kubernetes.io") || within("node.kubernetes.io");
    within("node-restriction.kubernetes.io") || ((within("kubernetes.io") || within("k8s.io")) && !kubelets)
}

/// An API object that a pod refers to, which a mirror pod may not.
fn referenced(pod: &Value) -> Option<&'static str> {
    let spec = pod.get("spec")?;
    if !spec.str_at(&["serviceAccountName"]).unwrap_or_default().is_empty() {
        return Some("serviceaccounts");
    }
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    let by_container = |variable: &str, from: &str| {
        lists.iter().flat_map(|list| spec.items_at(&[list])).any(|container| {
            container.items_at(&["env"]).iter().any(|env| env.at(&["valueFrom", variable]).is_some())
                || container.items_at(&["envFrom"]).iter().any(|source| source.get(from).is_some())
        })
    };
    if by_container("secretKeyRef", "secretRef") || !spec.items_at(&["imagePullSecrets"]).is_empty() {
        return Some("secrets");
    }
    if by_container("configMapKeyRef", "configMapRef") {
        return Some("configmaps");
    }
    if !spec.items_at(&["resourceClaims"]).is_empty() {
        return Some("resourceclaims");
    }
    let by_volume = [
        ("secret", "secrets"),
        ("configMap", "configmaps"),
        ("csi", "csidrivers (via CSI volumes)"),
        ("glusterfs", "endpoints (via glusterFS volumes)"),
        ("persistentVolumeClaim", "persistentvolumeclaims"),
        ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
        ("azureFile", "secrets (via azureFile volumes)"),
    ];
    let by_source = [
        ("configMap", "configmaps (via projected volumes)"),
        ("secret", "secrets (via projected volumes)"),
        ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
        ("clusterTrustBundle", "clustertrustbundles"),
        ("podCertificate", "podcertificates"),
    ];
    let find = |value: &Value, table: &[(&str, &'static str)]| {
        table.iter().find(|(key, _)| value.get(key).is_some()).map(|(_, resource)| *resource)
    };
    spec.items_at(&["volumes"]).iter().find_map(|volume| {
        let sources = volume.items_at(&["projected", "sources"]);
        find(volume, &by_volume).or_else(|| sources.iter().find_map(|source| find(source, &by_source)))
    })
}
