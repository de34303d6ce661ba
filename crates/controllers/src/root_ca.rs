//! Every namespace has the ConfigMap `kube-root-ca.crt`, by which pods believe the API server. Upstream:
//! pkg/controller/certificates/rootcacertpublisher.

use std::sync::Arc;

use apimachinery::{ObjectKey, Value};
use client::{Controller, Informer, ReconcileContext, ReconcileError, Requeue, Selection, Watch, resources};

use crate::Setup;

const NAME: &str = "kube-root-ca.crt";
const DESCRIPTION: &str = "kubernetes.io/description";
/// Upstream's text, which tools compare.
const DESCRIPTION_TEXT: &str = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of \
Kubernetes clusters.";

pub(crate) struct RootCa {
    namespaces: Informer,
    config_maps: Informer,
    bundle: Arc<str>,
}

impl RootCa {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let ours = Selection::all().fields(format!("metadata.name={NAME}"));
        RootCa {
            namespaces: setup.informers.of(&resources::NAMESPACES),
            config_maps: setup.informers.selected(&resources::CONFIG_MAPS, ours),
            bundle: setup.root_ca.clone(),
        }
    }
}

impl Controller for RootCa {
    fn name(&self) -> &'static str {
        "root-ca-certificate-publisher-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let of_namespace = |event: &client::Event| vec![ObjectKey::cluster(event.object().namespace())];
        vec![Watch::objects(self.namespaces.clone()), Watch::new(self.config_maps.clone(), of_namespace)]
    }

    fn workers(&self) -> usize {
        1
    }

    async fn reconcile(&self, ctx: &ReconcileContext, namespace: &ObjectKey) -> Result<Requeue, ReconcileError> {
        if self.namespaces.get(namespace).is_none_or(|namespace| namespace.is_deleting()) {
            return Ok(Requeue::No);
        }
        let key = ObjectKey::new(&*namespace.name, NAME);
        let mut data = Value::object();
        data.set(&["ca.crt"], &*self.bundle);
        let Some(current) = self.config_maps.get(&key) else {
            let mut map = Value::object();
            map.set(&["apiVersion"], "v1");
            map.set(&["kind"], "ConfigMap");
            map.set(&["metadata", "name"], key.name);
            map.set(&["metadata", "namespace"], key.namespace);
            map.set(&["metadata", "annotations", DESCRIPTION], DESCRIPTION_TEXT);
            map.set(&["data"], data);
            return match ctx.client().create(&resources::CONFIG_MAPS, &map).await {
                Err(error) if error.is_namespace_terminating() || error.is_already_exists() => Ok(Requeue::No),
                Err(error) => Err(error.into()),
                Ok(_) => Ok(Requeue::No),
            };
        };
        let mut value = current.to_value();
        let described = value.str_at(&["metadata", "annotations", DESCRIPTION]).is_some_and(|text| !text.is_empty());
        if described && value.get("data") == Some(&data) {
            return Ok(Requeue::No);
        }
        value.set(&["data"], data);
        value.set(&["metadata", "annotations", DESCRIPTION], DESCRIPTION_TEXT);
        ctx.client().update(&resources::CONFIG_MAPS, &value).await?;
        Ok(Requeue::No)
    }
}
