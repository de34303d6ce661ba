//! Pods run as a service account: it exists, its token is mounted, its image pull secrets are used.

use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Status, Value};
use memchr::memmem;

use super::{Plugin, Write, push};
use crate::registry::Operation;

pub(super) struct ServiceAccount;

const VOLUME_PREFIX: &str = "kube-api-access-";
const MOUNT_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const MIRROR: &str = "kubernetes.io/config.mirror";
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";
const CONTAINERS: [(&str, &str); 3] =
    [("initContainers", "init container"), ("containers", "container"), ("ephemeralContainers", "ephemeral container")];

impl Plugin for ServiceAccount {
    fn admit(&self, write: &Write<'_>, pod: &mut Value, _old: Option<&Value>) -> Result<(), Status> {
        let concerned = write.operation == Operation::Create && write.is_of("", "pods") && write.subresource.is_empty();
        if !concerned || is_mirror(pod) {
            return Ok(());
        }
        // The field's old name is kept with it.
        let names = ["serviceAccountName", "serviceAccount"].map(|key| pod.str_at(&["spec", key]).unwrap_or_default());
        let name = names.into_iter().find(|name| !name.is_empty()).unwrap_or("default").to_owned();
        pod.set(&["spec", "serviceAccountName"], name.as_str());
        pod.set(&["spec", "serviceAccount"], name);
        let account = account_of(write, pod)?;
        let account = read(&account, &["automountServiceAccountToken", "imagePullSecrets"]);
        let wanted = |of: &Value, path: &[&str]| of.bool_at(path);
        let automount = wanted(pod, &["spec", "automountServiceAccountToken"])
            .or(wanted(&account, &["automountServiceAccountToken"]))
            .unwrap_or(true);
        if automount {
            mount_token(write, pod);
        }
        if pod.items_at(&["spec", "imagePullSecrets"]).is_empty() {
            for secret in account.items_at(&["imagePullSecrets"]) {
                let mut reference = Value::object();
                reference.set(&["name"], secret.get("name").cloned());
                push(pod, &["spec", "imagePullSecrets"], reference);
            }
        }
        Ok(())
    }

    fn validate(&self, write: &Write<'_>, new: Option<&Value>, _old: Option<&Value>) -> Result<(), Status> {
        let Some(pod) = new.filter(|_| write.is_of("", "pods")) else {
            return Ok(());
        };
        match (write.operation, write.subresource) {
            (Operation::Create, "") if is_mirror(pod) => validate_mirror(write, pod),
            (Operation::Create, "") => limit_secrets(write, pod, &["initContainers", "containers"]),
            (Operation::Update, "ephemeralcontainers") => limit_secrets(write, pod, &["ephemeralContainers"]),
            _ => Ok(()),
        }
    }
}

fn is_mirror(pod: &Value) -> bool {
    pod.at(&["metadata", "annotations", MIRROR]).is_some()
}

fn account_of(write: &Write<'_>, pod: &Value) -> Result<Arc<Object>, Status> {
    let name = pod.str_at(&["spec", "serviceAccountName"]).unwrap_or_default();
    let namespace = write.namespace;
    if name.is_empty() {
        let pod_name = pod.str_at(&["metadata", "name"]).unwrap_or_default();
        let why = format!("no service account specified for pod {namespace}/{pod_name}");
        return Err(write.forbidden(Some(pod), &why));
    }
    write.objects.get("", "serviceaccounts", &ObjectKey::new(namespace, name)).ok_or_else(|| {
        let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
        write.forbidden(Some(pod), &why)
    })
}

/// The account, or nothing where it says nothing of these: most accounts are but a name.
fn read(account: &Object, keys: &[&str]) -> Value {
    match keys.iter().any(|key| memmem::find(account.body(), key.as_bytes()).is_some()) {
        true => account.to_value(),
        false => Value::object(),
    }
}

/// Mounts the account's token, the cluster's authority and the namespace into every container that has nothing there yet.
fn mount_token(write: &Write<'_>, pod: &mut Value) {
    let names = pod.items_at(&["spec", "volumes"]).iter().filter_map(|volume| volume.str_at(&["name"]));
    let existing = names.into_iter().find(|name| name.starts_with(VOLUME_PREFIX)).map(str::to_owned);
    let volume = existing.clone().unwrap_or_else(|| format!("{VOLUME_PREFIX}{}", write.env.name_suffix(5)));
    let mut mount = Value::object();
    mount.set(&["name"], volume.as_str());
    mount.set(&["readOnly"], true);
    mount.set(&["mountPath"], MOUNT_PATH);
    let mut used = false;
    for list in ["initContainers", "containers"] {
        let containers = pod.at_mut(&["spec", list]).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            let is_there = |mount: &Value| mount.str_at(&["mountPath"]) == Some(MOUNT_PATH);
            if !container.items_at(&["volumeMounts"]).iter().any(is_there) {
                push(container, &["volumeMounts"], mount.clone());
                used = true;
            }
        }
    }
    if used && existing.is_none() {
        push(pod, &["spec", "volumes"], token_volume(&volume));
    }
}

fn token_volume(name: &str) -> Value {
    let mut token = Value::object();
    token.set(&["serviceAccountToken", "expirationSeconds"], 3607);
    token.set(&["serviceAccountToken", "path"], "token");
    let mut file = Value::object();
    file.set(&["key"], "ca.crt");
    file.set(&["path"], "ca.crt");
    let mut authority = Value::object();
    authority.set(&["configMap", "name"], "kube-root-ca.crt");
    authority.set(&["configMap", "items"], vec![file]);
    let mut field = Value::object();
    field.set(&["path"], "namespace");
    field.set(&["fieldRef", "apiVersion"], "v1");
    field.set(&["fieldRef", "fieldPath"], "metadata.namespace");
    let mut namespace = Value::object();
    namespace.set(&["downwardAPI", "items"], vec![field]);
    let mut volume = Value::object();
    volume.set(&["name"], name);
    volume.set(&["projected", "defaultMode"], 420);
    volume.set(&["projected", "sources"], vec![token, authority, namespace]);
    volume
}

fn validate_mirror(write: &Write<'_>, pod: &Value) -> Result<(), Status> {
    let refuse = |what: &str| Err(write.forbidden(Some(pod), &format!("a mirror pod may not {what}")));
    if !pod.str_at(&["spec", "serviceAccountName"]).unwrap_or_default().is_empty() {
        return refuse("reference service accounts");
    }
    let volumes = pod.items_at(&["spec", "volumes"]);
    let by_volume = volumes.iter().any(|volume| volume.get("secret").is_some());
    let by_container = CONTAINERS.iter().any(|(list, _)| !secret_references(pod, list).is_empty());
    if by_volume || by_container || !pod.items_at(&["spec", "imagePullSecrets"]).is_empty() {
        return refuse("reference secrets");
    }
    let sources = volumes.iter().flat_map(|volume| volume.items_at(&["projected", "sources"]));
    if sources.into_iter().any(|source| source.get("serviceAccountToken").is_some()) {
        return refuse("use ServiceAccountToken volume projections");
    }
    Ok(())
}

/// Accounts annotated so give their pods the secrets they list and no others.
fn limit_secrets(write: &Write<'_>, pod: &Value, lists: &[&str]) -> Result<(), Status> {
    let account = account_of(write, pod)?;
    let value = read(&account, &[ENFORCE]);
    let enforced = value.str_at(&["metadata", "annotations", ENFORCE]).unwrap_or_default();
    if !["1", "t", "T", "true", "TRUE", "True"].contains(&enforced) {
        return Ok(());
    }
    let account = account.name();
    let named = |list: &str, name: &str| {
        value.items_at(&[list]).iter().any(|reference| reference.str_at(&["name"]) == Some(name))
    };
    let not_allowed = |what: String, kind: &str| {
        let why = format!("{what} is not allowed because service account {account} does not reference that {kind}");
        Err(write.forbidden(Some(pod), &why))
    };
    let whole = lists.contains(&"containers");
    for volume in pod.items_at(&["spec", "volumes"]).iter().filter(|_| whole) {
        if let Some(secret) = volume.str_at(&["secret", "secretName"]).filter(|secret| !named("secrets", secret)) {
            return not_allowed(format!("volume with secret.secretName=\"{secret}\""), "secret");
        }
    }
    for list in lists {
        for (secret, description) in secret_references(pod, list) {
            if !named("secrets", &secret) {
                return not_allowed(description, "secret");
            }
        }
    }
    for (i, reference) in pod.items_at(&["spec", "imagePullSecrets"]).iter().enumerate().filter(|_| whole) {
        let name = reference.str_at(&["name"]).unwrap_or_default();
        if !named("imagePullSecrets", name) {
            return not_allowed(format!("imagePullSecrets[{i}].name=\"{name}\""), "imagePullSecret");
        }
    }
    Ok(())
}

/// The secrets that containers of one list take variables from, each with the words that tell where.
fn secret_references(pod: &Value, list: &str) -> Vec<(String, String)> {
    let kind = CONTAINERS.iter().find(|(name, _)| *name == list).map(|(_, kind)| *kind).unwrap_or_default();
    let mut references = Vec::new();
    for container in pod.items_at(&["spec", list]) {
        let name = container.str_at(&["name"]).unwrap_or_default();
        for variable in container.items_at(&["env"]) {
            if let Some(secret) = variable.str_at(&["valueFrom", "secretKeyRef", "name"]) {
                let variable = variable.str_at(&["name"]).unwrap_or_default();
                let words = format!("{kind} {name} with envVar {variable} referencing secret.secretName=\"{secret}\"");
                references.push((secret.to_owned(), words));
            }
        }
        for from in container.items_at(&["envFrom"]) {
            if let Some(secret) = from.str_at(&["secretRef", "name"]) {
                let words = format!("{kind} {name} with envFrom referencing secret.secretName=\"{secret}\"");
                references.push((secret.to_owned(), words));
            }
        }
    }
    references
}
