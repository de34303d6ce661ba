//! Taints and tolerations. Upstream: component-helpers scheduling/corev1.

use k8s_openapi::api::core::v1::{Taint, Toleration};

/// Whether `toleration` covers `taint`.
pub fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let text = |field: &Option<String>| field.as_deref().unwrap_or_default().to_owned();
    let (effect, key) = (text(&toleration.effect), text(&toleration.key));
    if !effect.is_empty() && effect != taint.effect || !key.is_empty() && key != taint.key {
        return false;
    }
    match text(&toleration.operator).as_str() {
        "" | "Equal" => toleration.value.as_deref().unwrap_or_default() == taint.value.as_deref().unwrap_or_default(),
        "Exists" => true,
        _ => false,
    }
}

/// The first of `taints` with an effect of `effects` that no toleration covers.
pub fn untolerated<'a>(taints: &'a [Taint], tolerations: &[Toleration], effects: &[&str]) -> Option<&'a Taint> {
    let relevant = taints.iter().filter(|taint| effects.contains(&taint.effect.as_str()));
    relevant.into_iter().find(|taint| !tolerations.iter().any(|toleration| tolerates(toleration, taint)))
}

/// Whether every taint with an effect of `effects` is covered.
pub fn tolerates_all(taints: &[Taint], tolerations: &[Toleration], effects: &[&str]) -> bool {
    untolerated(taints, tolerations, effects).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tolerations_cover_taints() {
        let check = |toleration: serde_json::Value, expect: bool| {
            let taint: Taint =
                serde_json::from_value(serde_json::json!({"key": "k", "value": "v", "effect": "NoSchedule"})).unwrap();
            let parsed: Toleration = serde_json::from_value(toleration.clone()).unwrap();
            assert_eq!(tolerates(&parsed, &taint), expect, "{toleration}");
        };
        use serde_json::json;
        check(json!({"key": "k", "value": "v"}), true);
        check(json!({"key": "k", "operator": "Equal", "value": "v", "effect": "NoSchedule"}), true);
        check(json!({"key": "k", "operator": "Exists"}), true);
        check(json!({"operator": "Exists"}), true);
        check(json!({"key": "k", "value": "w"}), false);
        check(json!({"key": "k", "operator": "Exists", "effect": "NoExecute"}), false);
        check(json!({"key": "other", "operator": "Exists"}), false);
        check(json!({"key": "k", "operator": "Near", "value": "v"}), false);
    }
}
