//! Which volume a claim gets. Upstream: component-helpers storage/volume FindMatchingVolume, pv_controller checkVolumeSatisfyClaim.

use apimachinery::SelectorError;

use crate::storage::{Claim, Volume};

/// Of the volumes that fit, the one kept for the claim, else the one with the fewest access modes, the smallest capacity and the
/// first name. With `delayed` binding only the one kept for it: the others are the scheduler's to choose from.
pub(super) fn best<'v>(
    claim: &Claim,
    volumes: &'v [Volume],
    delayed: bool,
) -> Result<Option<&'v Volume>, SelectorError> {
    let selector = claim.selector()?;
    let fits = |volume: &&Volume| {
        let common = has_modes(volume, claim)
            && volume.capacity() >= claim.requested()
            && volume.volume_mode() == claim.volume_mode()
            && volume.attributes_class() == claim.attributes_class()
            && !volume.object.is_deleting();
        let free = || {
            !delayed
                && volume.claim_ref().is_none()
                && volume.phase() == "Available"
                && volume.class() == claim.class()
                && selector.as_ref().is_none_or(|selector| selector.matches(&volume.object))
        };
        common && (volume.is_for(claim) || free())
    };
    Ok(volumes.iter().filter(fits).min_by(|a, b| {
        let rank = |volume: &Volume| (volume.modes().len(), !volume.is_for(claim));
        rank(a).cmp(&rank(b)).then_with(|| a.capacity().cmp(&b.capacity())).then_with(|| a.name().cmp(b.name()))
    }))
}

/// Why a claim that names the volume cannot have it.
pub(super) fn mismatch(volume: &Volume, claim: &Claim) -> Option<String> {
    let why = if volume.object.is_deleting() {
        format!("the volume is marked for deletion {:?}", volume.name())
    } else if volume.capacity().value() < claim.requested().value() {
        "requested PV is too small".to_owned()
    } else if volume.class() != claim.class() {
        "storageClassName does not match".to_owned()
    } else if volume.attributes_class() != claim.attributes_class() {
        "volumeAttributesClassName does not match".to_owned()
    } else if volume.volume_mode() != claim.volume_mode() {
        "incompatible volumeMode".to_owned()
    } else if !has_modes(volume, claim) {
        "incompatible accessMode".to_owned()
    } else {
        return None;
    };
    Some(why)
}

fn has_modes(volume: &Volume, claim: &Claim) -> bool {
    claim.modes().iter().all(|mode| volume.modes().contains(mode))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apimachinery::{Object, Value};

    use super::*;

    fn object(kind: &str, yaml: &str) -> Arc<Object> {
        let json: serde_json::Value = serde_yaml_ng::from_str(yaml).unwrap_or_else(|error| panic!("{yaml}: {error}"));
        let mut value = Value::from(json);
        value.set(&["apiVersion"], "v1");
        value.set(&["kind"], kind);
        value.set(&["metadata", "uid"], format!("{}-uid", value.str_at(&["metadata", "name"]).unwrap()));
        Arc::new(Object::new(&value, 1).unwrap())
    }

    /// `name [key=value]...` with the keys `size`, `modes`, `class`, `mode`, `for`, `uid`, `phase`, `label`, `vac`.
    fn volume(line: &str) -> Volume {
        let mut words = line.split(' ');
        let mut value = Value::from(serde_json::json!({"metadata": {"name": words.next().unwrap()}}));
        value.set(&["spec", "capacity", "storage"], "1Gi");
        value.set(&["spec", "accessModes"], vec!["ReadWriteOnce"]);
        value.set(&["status", "phase"], "Available");
        for (key, text) in words.filter_map(|word| word.split_once('=')) {
            match key {
                "size" => value.set(&["spec", "capacity", "storage"], text),
                "modes" => value.set(&["spec", "accessModes"], text.split(',').collect::<Vec<_>>()),
                "class" => value.set(&["spec", "storageClassName"], text),
                "mode" => value.set(&["spec", "volumeMode"], text),
                "for" => {
                    value.set(&["spec", "claimRef", "namespace"], "n");
                    value.set(&["spec", "claimRef", "name"], text);
                }
                "uid" => value.set(&["spec", "claimRef", "uid"], text),
                "phase" => value.set(&["status", "phase"], text),
                "label" => value.set(&["metadata", "labels", "l"], text),
                "vac" => value.set(&["spec", "volumeAttributesClassName"], text),
                "deleting" => value.set(&["metadata", "deletionTimestamp"], "2026-01-01T00:00:00Z"),
                other => panic!("{other}"),
            }
        }
        Volume::of(object("PersistentVolume", &value.to_string()))
    }

    fn claim(spec: &str) -> Claim {
        let yaml = format!("{{metadata: {{name: c, namespace: n}}, spec: {{{spec}}}}}");
        Claim::of(object("PersistentVolumeClaim", &yaml))
    }

    const GI: &str = "accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}";

    #[test]
    fn the_least_that_fits_is_taken() {
        let check = |spec: &str, volumes: &[&str], delayed: bool, expect: Option<&str>| {
            let volumes: Vec<Volume> = volumes.iter().map(|line| volume(line)).collect();
            let found = best(&claim(&format!("{GI}, {spec}")), &volumes, delayed).unwrap();
            assert_eq!(found.map(|volume| volume.name()), expect, "{spec}");
        };
        check("", &[], false, None);
        check("", &["a size=5Gi", "b size=2Gi", "c size=1Mi"], false, Some("b"));
        check("", &["b", "a"], false, Some("a"));
        check("", &["a modes=ReadWriteOnce,ReadOnlyMany size=1Gi", "b size=9Gi"], false, Some("b"));
        check("", &["a modes=ReadOnlyMany"], false, None);
        check("", &["a class=fast"], false, None);
        check("storageClassName: fast", &["a", "b class=fast"], false, Some("b"));
        check("volumeMode: Block", &["a", "b mode=Block"], false, Some("b"));
        check("volumeAttributesClassName: gold", &["a", "b vac=gold"], false, Some("b"));
        check("", &["a phase=Released", "b phase=Pending", "c phase=Bound"], false, None);
        check("", &["a deleting=1"], false, None);
        check("selector: {matchLabels: {l: x}}", &["a", "b label=y", "c label=x size=3Gi"], false, Some("c"));
        check("selector: {matchExpressions: [{key: l, operator: NotIn, values: [y]}]}", &["b label=y"], false, None);
        // One that is kept for the claim wins over a smaller one, whatever its class and labels; another's is never taken.
        check("", &["a", "b size=9Gi for=c class=other"], false, Some("b"));
        check("", &["b for=c uid=c-uid"], false, Some("b"));
        check("", &["b for=c uid=another"], false, None);
        check("", &["b for=d"], false, None);
        check("", &["b for=c size=1Mi"], false, None);
        // The scheduler chooses where binding waits.
        check("", &["a"], true, None);
        check("", &["a", "b for=c"], true, Some("b"));
    }

    #[test]
    fn a_named_volume_may_not_fit() {
        let check = |spec: &str, line: &str, expect: Option<&str>| {
            let why = mismatch(&volume(line), &claim(&format!("{GI}, {spec}")));
            assert_eq!(why.as_deref(), expect, "{spec} {line}");
        };
        check("", "a", None);
        check("", "a size=1Mi", Some("requested PV is too small"));
        check("", "a class=x", Some("storageClassName does not match"));
        check("volumeMode: Block", "a", Some("incompatible volumeMode"));
        check("", "a modes=ReadOnlyMany", Some("incompatible accessMode"));
        check("", "a vac=x", Some("volumeAttributesClassName does not match"));
        check("", "a deleting=1", Some("the volume is marked for deletion \"a\""));
    }
}
