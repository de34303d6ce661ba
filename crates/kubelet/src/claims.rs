//! What the claims of a pod's volumes are bound to. Upstream: pkg/kubelet/volumemanager/populator createVolumeSpec.

use std::collections::BTreeMap;

use apimachinery::ObjectKey;
use client::{Client, Resource, resources};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, Pod, Volume};
use serde::de::DeserializeOwned;

use crate::spec;
use crate::volumes::Claimed;

/// Finds the volume of each claim. `started`: the pod has been started before, so it may use a claim that is being deleted.
pub(crate) async fn resolve(
    client: &Client,
    pod: &Pod,
    node: Option<&Node>,
    started: bool,
) -> Result<BTreeMap<String, Claimed>, String> {
    let mut found = BTreeMap::new();
    let (mut failed, mut problems) = (Vec::new(), Vec::new());
    for volume in spec::spec(pod).volumes.iter().flatten() {
        let Some((claim, read_only)) = claim_of(pod, volume) else { continue };
        match one(client, pod, volume, &claim, started).await {
            Ok((name, spec)) => {
                found.insert(volume.name.clone(), Claimed { name, spec, read_only });
            }
            Err(problem) => {
                failed.push(volume.name.as_str());
                problems.push(problem);
            }
        }
    }
    if !failed.is_empty() {
        return Err(format!(
            "Unable to attach or mount volumes: unmounted volumes=[{}], unattached volumes=[], failed to process volumes=[{}]: {}",
            mounted(pod).join(" "),
            failed.join(" "),
            problems.join("; ")
        ));
    }
    found.values().try_for_each(|claimed| fits_node(claimed, node))?;
    Ok(found)
}

/// Whether the pod has volumes that claims lead to.
pub(crate) fn any(pod: &Pod) -> bool {
    spec::spec(pod).volumes.iter().flatten().any(|volume| claim_of(pod, volume).is_some())
}

/// The names of the volumes that some container mounts, in order.
fn mounted(pod: &Pod) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for container in spec::all_containers(pod) {
        names.extend(container.volume_mounts.iter().flatten().map(|mount| mount.name.clone()));
        names.extend(container.volume_devices.iter().flatten().map(|device| device.name.clone()));
    }
    names.sort();
    names.dedup();
    names
}

/// The name of the volume's claim, if it has one, and whether it is asked to be read only.
fn claim_of(pod: &Pod, volume: &Volume) -> Option<(String, bool)> {
    if let Some(source) = &volume.persistent_volume_claim {
        return Some((source.claim_name.clone(), source.read_only == Some(true)));
    }
    volume.ephemeral.as_ref().map(|_| (format!("{}-{}", spec::name(pod), volume.name), false))
}

async fn one(
    client: &Client,
    pod: &Pod,
    volume: &Volume,
    claim: &str,
    started: bool,
) -> Result<(String, PersistentVolumeSpec), String> {
    let key = ObjectKey::new(spec::namespace(pod), claim);
    let failed = |what: String| format!("error processing PVC {key}: {what}");
    let found = fetch::<PersistentVolumeClaim>(client, &resources::PERSISTENT_VOLUME_CLAIMS, &key).await;
    let object = found.map_err(|error| failed(format!("failed to fetch PVC from API server: {error}")))?;
    if volume.ephemeral.is_some() && !is_for(pod, &object) {
        let (name, namespace) = (spec::name(pod), spec::namespace(pod));
        return Err(format!("PVC {key} was not created for pod {namespace}/{name} (pod is not owner)"));
    }
    if object.metadata.deletion_timestamp.is_some() && !started {
        return Err(failed("PVC is being deleted".to_owned()));
    }
    if object.status.as_ref().and_then(|status| status.phase.as_deref()) != Some("Bound") {
        return Err(failed("PVC is not bound".to_owned()));
    }
    let name = object.spec.as_ref().and_then(|spec| spec.volume_name.clone()).unwrap_or_default();
    if name.is_empty() {
        return Err(failed("PVC has empty pvc.Spec.VolumeName".to_owned()));
    }
    let found = fetch::<PersistentVolume>(client, &resources::PERSISTENT_VOLUMES, &ObjectKey::cluster(&*name)).await;
    let spec = match found {
        Ok(found) => found.spec.unwrap_or_default(),
        Err(error) => return Err(failed(format!("failed to fetch PV {name} from API server: {error}"))),
    };
    let uid = object.metadata.uid.unwrap_or_default();
    match spec.claim_ref.as_ref().map(|claim| claim.uid.as_deref().unwrap_or_default()) {
        None => {
            let what = "but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim";
            return Err(failed(format!("found PV object {name} {what}")));
        }
        Some(bound) if bound != uid => {
            let what = format!("its pv.Spec.ClaimRef.UID {bound} does not point to claim.UID {uid}");
            return Err(failed(format!("found PV object {name} but {what}")));
        }
        Some(_) => {}
    }
    fits_containers(pod, volume, spec.volume_mode.as_deref().unwrap_or("Filesystem"))?;
    Ok((name, spec))
}

async fn fetch<T: DeserializeOwned>(client: &Client, resource: &Resource, key: &ObjectKey) -> Result<T, String> {
    let object = client.get(resource, key).await.map_err(|error| error.to_string())?;
    object.view().map_err(|error| error.to_string())
}

/// Whether the claim was made for this very pod. Upstream: ephemeral.VolumeIsForPod.
fn is_for(pod: &Pod, claim: &PersistentVolumeClaim) -> bool {
    let owners = claim.metadata.owner_references.iter().flatten();
    owners.into_iter().any(|owner| owner.controller == Some(true) && owner.uid == spec::uid(pod))
}

/// Whether containers use the volume as what it is: a filesystem, or a device.
fn fits_containers(pod: &Pod, volume: &Volume, mode: &str) -> Result<(), String> {
    let (mut mounts, mut devices) = (false, false);
    for container in spec::all_containers(pod) {
        mounts |= container.volume_mounts.iter().flatten().any(|mount| mount.name == volume.name);
        devices |= container.volume_devices.iter().flatten().any(|device| device.name == volume.name);
    }
    let wrong = |list: &str| Err(format!("volume {} has volumeMode {mode}, but is specified in {list}", volume.name));
    match mode {
        "Filesystem" if devices => wrong("volumeDevices"),
        "Block" if mounts => wrong("volumeMounts"),
        _ => Ok(()),
    }
}

/// Whether the volume can be used on this node. Upstream: operation_generator checkNodeAffinity.
fn fits_node(claimed: &Claimed, node: Option<&Node>) -> Result<(), String> {
    let required = claimed.spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
    match (required, node) {
        (Some(selector), Some(node)) if !rules::matches_node_selector(selector, node) => Err(format!(
            "MountVolume.NodeAffinity check failed for volume {:?} : no matching NodeSelectorTerms",
            claimed.name
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use client::fake::FakeServer;
    use serde_json::{Value as Json, json};

    use super::*;

    struct Case {
        claim: Json,
        volume: Json,
        pod: Json,
    }

    fn case() -> Case {
        Case {
            claim: json!({"metadata": {"name": "c", "namespace": "ns", "uid": "u"}, "spec": {"volumeName": "pv"},
                "status": {"phase": "Bound"}}),
            volume: json!({"metadata": {"name": "pv"}, "spec": {"local": {"path": "/x"}, "claimRef": {"uid": "u"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                    {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n1"]}]}]}}}}),
            pod: json!({"metadata": {"name": "p", "namespace": "ns", "uid": "pu"}, "spec": {
                "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "c", "readOnly": true}}],
                "containers": [{"name": "c", "volumeMounts": [{"name": "v", "mountPath": "/v"}, {"name": "a", "mountPath": "/a"}]}]}}),
        }
    }

    async fn check(edit: impl FnOnce(&mut Case), started: bool, expect: Result<(), &str>) {
        let mut case = case();
        edit(&mut case);
        let server = FakeServer::new(env::Env::seeded(1, jiff::Timestamp::UNIX_EPOCH));
        if !case.claim.is_null() {
            server.put(&resources::PERSISTENT_VOLUME_CLAIMS, &case.claim.to_string());
        }
        server.put(&resources::PERSISTENT_VOLUMES, &case.volume.to_string());
        let pod: Pod = serde_json::from_value(case.pod).unwrap();
        let node = serde_json::from_value(json!({"metadata": {"labels": {"kubernetes.io/hostname": "n1"}}})).unwrap();
        let found = resolve(&server.client(), &pod, Some(&node), started).await;
        let whole = expect.map_err(|problem| match problem.starts_with("MountVolume") {
            true => problem.to_owned(),
            false => format!(
                "Unable to attach or mount volumes: unmounted volumes=[a v], unattached volumes=[], \
                 failed to process volumes=[v]: {problem}"
            ),
        });
        assert_eq!(
            found.as_ref().map(|_| ()).map_err(String::as_str),
            whole.as_ref().map(|_| ()).map_err(String::as_str)
        );
        if let Ok(found) = found {
            assert!(found["v"].read_only || found["v"].name == "pv");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn claims_lead_to_volumes() {
        check(|_| (), false, Ok(())).await;
        let why =
            "error processing PVC ns/c: failed to fetch PVC from API server: persistentvolumeclaims \"c\" not found";
        check(|case| case.claim = Json::Null, false, Err(why)).await;
        let deleting = |case: &mut Case| {
            case.claim["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            case.claim["metadata"]["finalizers"] = json!(["kubernetes.io/pvc-protection"]);
        };
        check(deleting, false, Err("error processing PVC ns/c: PVC is being deleted")).await;
        check(deleting, true, Ok(())).await;
        let why = "error processing PVC ns/c: PVC is not bound";
        check(|case| case.claim["status"]["phase"] = json!("Pending"), false, Err(why)).await;
        let why = "error processing PVC ns/c: found PV object pv but its pv.Spec.ClaimRef.UID other does not point to claim.UID u";
        check(|case| case.volume["spec"]["claimRef"]["uid"] = json!("other"), false, Err(why)).await;
        let why = "volume v has volumeMode Block, but is specified in volumeMounts";
        check(|case| case.volume["spec"]["volumeMode"] = json!("Block"), false, Err(why)).await;
        let values = |case: &mut Case| {
            let terms = &mut case.volume["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
            terms[0]["matchExpressions"][0]["values"] = json!(["n2"]);
        };
        let why = "MountVolume.NodeAffinity check failed for volume \"pv\" : no matching NodeSelectorTerms";
        check(values, false, Err(why)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_pods_own_claims_are_its_own() {
        let ephemeral = |case: &mut Case| {
            case.claim["metadata"]["name"] = json!("p-v");
            case.pod["spec"]["volumes"] = json!([{"name": "v", "ephemeral": {}}]);
        };
        check(ephemeral, false, Err("PVC ns/p-v was not created for pod ns/p (pod is not owner)")).await;
        let owned = |case: &mut Case| {
            ephemeral(case);
            case.claim["metadata"]["ownerReferences"] =
                json!([{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "pu", "controller": true}]);
        };
        check(owned, false, Ok(())).await;
    }
}
