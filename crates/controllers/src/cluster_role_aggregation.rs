//! Cluster roles that are put together from others have the rules of all those. Upstream: pkg/controller/clusterroleaggregation.

use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Selector, Value};
use client::{Controller, Event, Informer, ReconcileContext, ReconcileError, Requeue, Watch, resources};

use crate::Setup;

pub(crate) struct ClusterRoleAggregation {
    roles: Informer,
}

impl ClusterRoleAggregation {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        ClusterRoleAggregation { roles: setup.informers.of(&resources::CLUSTER_ROLES) }
    }

    /// The rules of all roles that are selected, each once; `None` for a role that has rules of its own.
    fn aggregated(&self, role: &Object, value: &Value) -> Result<Option<Vec<Value>>, ReconcileError> {
        if value.get("aggregationRule").is_none_or(Value::is_null) {
            return Ok(None);
        }
        let mut others: Vec<Arc<Object>> = self.roles.list("");
        others.sort_by(|a, b| a.name().cmp(b.name()));
        let mut rules: Vec<Value> = Vec::new();
        for selector in value.items_at(&["aggregationRule", "clusterRoleSelectors"]) {
            let selector = Selector::from_label_selector(Some(selector))?;
            for other in others.iter().filter(|other| other.name() != role.name() && selector.matches(other)) {
                for rule in other.to_value().items_at(&["rules"]) {
                    if !rules.contains(rule) {
                        rules.push(rule.clone());
                    }
                }
            }
        }
        Ok(Some(rules))
    }
}

impl Controller for ClusterRoleAggregation {
    fn name(&self) -> &'static str {
        "clusterrole-aggregation-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let roles = self.roles.clone();
        // A change of any role may concern each that is put together.
        let aggregates = move |_: &Event| {
            let all = roles.list("").into_iter();
            let has_rule =
                |role: &Arc<Object>| role.to_value().get("aggregationRule").is_some_and(|rule| !rule.is_null());
            all.filter(has_rule).map(|role| role.key().clone()).collect()
        };
        vec![Watch::new(self.roles.clone(), aggregates)]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(role) = self.roles.get(key) else { return Ok(Requeue::No) };
        let value = role.to_value();
        let Some(rules) = self.aggregated(&role, &value)? else { return Ok(Requeue::No) };
        if rules == value.items_at(&["rules"]) {
            return Ok(Requeue::No);
        }
        let mut applied = Value::object();
        applied.set(&["apiVersion"], "rbac.authorization.k8s.io/v1");
        applied.set(&["kind"], "ClusterRole");
        applied.set(&["metadata", "name"], role.name());
        // As upstream, rules that somebody else wrote stay where there are none to put in their place.
        if !rules.is_empty() {
            applied.set(&["rules"], rules);
        }
        ctx.client().apply(&resources::CLUSTER_ROLES, "", &applied, self.name()).await?;
        Ok(Requeue::No)
    }
}
