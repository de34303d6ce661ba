//! Which node needs which object: pods bound to it, and what they refer to, directly or through a claim and its volume.

use std::collections::{HashMap, HashSet};

use apimachinery::{Object, ObjectKey, Value};

/// The kinds of objects a node may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Vertex {
    Pod,
    Secret,
    ConfigMap,
    ServiceAccount,
    Claim,
    Volume,
    ResourceClaim,
    Attachment,
    ResourceSlice,
}

type Reference = (Vertex, ObjectKey);

#[derive(Default)]
pub(super) struct Graph {
    /// Each pod's (attachment's, slice's) node and references.
    owners: HashMap<Reference, (String, HashSet<Reference>)>,
    /// How many owners on each node refer to an object.
    users: HashMap<Reference, HashMap<String, usize>>,
    volumes: HashMap<String, Volume>,
    /// The volumes whose driver needs a secret.
    secrets: HashMap<ObjectKey, HashSet<String>>,
}

struct Volume {
    claim: ObjectKey,
    secrets: HashSet<ObjectKey>,
}

impl Graph {
    pub(super) fn observe(&mut self, group: &str, resource: &str, key: &ObjectKey, object: Option<&Object>) {
        let vertex = match (group, resource) {
            ("", "pods") => Vertex::Pod,
            ("", "persistentvolumes") => return self.observe_volume(&key.name, object),
            ("storage.k8s.io", "volumeattachments") => Vertex::Attachment,
            ("resource.k8s.io", "resourceslices") => Vertex::ResourceSlice,
            _ => return,
        };
        let own = (vertex, key.clone());
        // Most pods are seen first without a node; these aren't worth reading.
        if vertex == Vertex::Pod && object.is_some_and(|pod| pod.field("spec.nodeName") == Some("")) {
            return self.forget(&own);
        }
        let value = object.map(Object::to_unmanaged_value);
        let node = value.as_ref().and_then(|value| value.str_at(&["spec", "nodeName"])).filter(|node| !node.is_empty());
        let Some((value, node)) = value.as_ref().zip(node) else {
            return self.forget(&own);
        };
        let mut references = if vertex == Vertex::Pod { pod_references(value, key) } else { HashSet::new() };
        references.insert(own.clone());
        if self.owners.get(&own).is_some_and(|(at, known)| at == node && *known == references) {
            return;
        }
        self.forget(&own);
        for reference in &references {
            *self.users.entry(reference.clone()).or_default().entry(node.to_owned()).or_default() += 1;
        }
        self.owners.insert(own, (node.to_owned(), references));
    }

    /// Whether `node` needs the object.
    pub(super) fn reaches(&self, vertex: Vertex, namespace: &str, name: &str, node: &str) -> bool {
        let used = |reference: &Reference| self.users.get(reference).is_some_and(|nodes| nodes.contains_key(node));
        let claimed = |volume: &String| {
            self.volumes.get(volume).is_some_and(|volume| used(&(Vertex::Claim, volume.claim.clone())))
        };
        let key = ObjectKey::new(namespace, name);
        match vertex {
            Vertex::Volume => claimed(&key.name),
            Vertex::Secret if self.secrets.get(&key).is_some_and(|volumes| volumes.iter().any(claimed)) => true,
            _ => used(&(vertex, key)),
        }
    }

    fn forget(&mut self, own: &Reference) {
        let Some((node, references)) = self.owners.remove(own) else { return };
        for reference in references {
            let Some(nodes) = self.users.get_mut(&reference) else { continue };
            if let Some(count) = nodes.get_mut(&node) {
                *count -= 1;
                if *count == 0 {
                    nodes.remove(&node);
                }
            }
            if nodes.is_empty() {
                self.users.remove(&reference);
            }
        }
    }

    fn observe_volume(&mut self, name: &str, object: Option<&Object>) {
        if let Some(volume) = self.volumes.remove(name) {
            for secret in volume.secrets {
                if let Some(volumes) = self.secrets.get_mut(&secret) {
                    volumes.remove(name);
                    if volumes.is_empty() {
                        self.secrets.remove(&secret);
                    }
                }
            }
        }
        let Some(value) = object.map(Object::to_value) else { return };
        let claim = |key: &str| value.str_at(&["spec", "claimRef", key]).unwrap_or_default();
        if claim("name").is_empty() {
            return;
        }
        let claim = ObjectKey::new(claim("namespace"), claim("name"));
        let secrets = volume_secrets(&value, &claim.namespace);
        for secret in &secrets {
            self.secrets.entry(secret.clone()).or_default().insert(name.to_owned());
        }
        self.volumes.insert(name.to_owned(), Volume { claim, secrets });
    }
}

/// What a pod's kubelet must read for it. A mirror pod's kubelet has everything already.
fn pod_references(pod: &Value, key: &ObjectKey) -> HashSet<Reference> {
    let mut references = HashSet::new();
    if pod.at(&["metadata", "annotations", "kubernetes.io/config.mirror"]).is_some() {
        return references;
    }
    let mut add = |vertex: Vertex, name: Option<&str>| {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            references.insert((vertex, ObjectKey::new(&key.namespace, name)));
        }
    };
    let Some(spec) = pod.get("spec") else { return references };
    add(Vertex::ServiceAccount, spec.str_at(&["serviceAccountName"]));
    for secret in spec.items_at(&["imagePullSecrets"]) {
        add(Vertex::Secret, secret.str_at(&["name"]));
    }
    for container in
        ["initContainers", "containers", "ephemeralContainers"].iter().flat_map(|list| spec.items_at(&[list]))
    {
        for from in container.items_at(&["envFrom"]) {
            add(Vertex::Secret, from.str_at(&["secretRef", "name"]));
            add(Vertex::ConfigMap, from.str_at(&["configMapRef", "name"]));
        }
        for variable in container.items_at(&["env"]) {
            add(Vertex::Secret, variable.str_at(&["valueFrom", "secretKeyRef", "name"]));
            add(Vertex::ConfigMap, variable.str_at(&["valueFrom", "configMapKeyRef", "name"]));
        }
    }
    for volume in spec.items_at(&["volumes"]) {
        add(Vertex::Secret, volume.str_at(&["secret", "secretName"]));
        add(Vertex::Secret, volume.str_at(&["azureFile", "secretName"]));
        add(Vertex::Secret, volume.str_at(&["csi", "nodePublishSecretRef", "name"]));
        for driver in ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"] {
            add(Vertex::Secret, volume.str_at(&[driver, "secretRef", "name"]));
        }
        add(Vertex::ConfigMap, volume.str_at(&["configMap", "name"]));
        for source in volume.items_at(&["projected", "sources"]) {
            add(Vertex::Secret, source.str_at(&["secret", "name"]));
            add(Vertex::ConfigMap, source.str_at(&["configMap", "name"]));
        }
        add(Vertex::Claim, volume.str_at(&["persistentVolumeClaim", "claimName"]));
        if volume.get("ephemeral").is_some()
            && let Some(name) = volume.str_at(&["name"])
        {
            add(Vertex::Claim, Some(&format!("{}-{name}", key.name)));
        }
    }
    for claim in spec.items_at(&["resourceClaims"]) {
        add(Vertex::ResourceClaim, claim.str_at(&["resourceClaimName"]));
    }
    for claim in pod.items_at(&["status", "resourceClaimStatuses"]) {
        add(Vertex::ResourceClaim, claim.str_at(&["resourceClaimName"]));
    }
    add(Vertex::ResourceClaim, pod.str_at(&["status", "extendedResourceClaimStatus", "resourceClaimName"]));
    references
}

/// The secrets a kubelet needs to mount a volume.
fn volume_secrets(volume: &Value, claim_namespace: &str) -> HashSet<ObjectKey> {
    let mut secrets = HashSet::new();
    let mut add = |namespace: Option<&str>, name: Option<&str>| {
        if let Some(name) = name.filter(|name| !name.is_empty()) {
            let namespace = namespace.filter(|namespace| !namespace.is_empty()).unwrap_or(claim_namespace);
            secrets.insert(ObjectKey::new(namespace, name));
        }
    };
    let at = |path: &[&str]| volume.get("spec").and_then(|spec| spec.str_at(path));
    add(at(&["azureFile", "secretNamespace"]), at(&["azureFile", "secretName"]));
    for driver in ["cephfs", "cinder", "flexVolume", "rbd", "scaleIO", "iscsi", "storageos"] {
        add(at(&[driver, "secretRef", "namespace"]), at(&[driver, "secretRef", "name"]));
    }
    for reference in ["nodePublishSecretRef", "nodeStageSecretRef", "nodeExpandSecretRef"] {
        add(at(&["csi", reference, "namespace"]), at(&["csi", reference, "name"]));
    }
    secrets
}

#[cfg(test)]
impl Graph {
    pub(super) fn is_empty(&self) -> bool {
        self.owners.is_empty() && self.users.is_empty()
    }
}
