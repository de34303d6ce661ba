//! Every namespace has its `default` ServiceAccount. Upstream: pkg/controller/serviceaccount ServiceAccountsController.

use apimachinery::{ObjectKey, Value};
use client::{Controller, Event, Informer, ReconcileContext, ReconcileError, Requeue, Watch, resources};

use crate::Setup;

pub(crate) struct ServiceAccounts {
    namespaces: Informer,
    accounts: Informer,
}

impl ServiceAccounts {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        ServiceAccounts {
            namespaces: setup.informers.of(&resources::NAMESPACES),
            accounts: setup.informers.of(&resources::SERVICE_ACCOUNTS),
        }
    }
}

impl Controller for ServiceAccounts {
    fn name(&self) -> &'static str {
        "serviceaccount-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let of_deleted = |event: &Event| match event {
            Event::Deleted(account) if account.name() == "default" => vec![ObjectKey::cluster(account.namespace())],
            _ => Vec::new(),
        };
        vec![Watch::objects(self.namespaces.clone()), Watch::new(self.accounts.clone(), of_deleted)]
    }

    fn workers(&self) -> usize {
        1
    }

    async fn reconcile(&self, ctx: &ReconcileContext, namespace: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let key = ObjectKey::new(&*namespace.name, "default");
        let active = self.namespaces.get(namespace).is_some_and(|namespace| !namespace.is_deleting());
        if !active || self.accounts.get(&key).is_some() {
            return Ok(Requeue::No);
        }
        let mut account = Value::object();
        account.set(&["apiVersion"], "v1");
        account.set(&["kind"], "ServiceAccount");
        account.set(&["metadata", "name"], key.name);
        account.set(&["metadata", "namespace"], key.namespace);
        match ctx.client().create(&resources::SERVICE_ACCOUNTS, &account).await {
            Err(error) if !error.is_already_exists() && !error.is_namespace_terminating() => Err(error.into()),
            _ => Ok(Requeue::No),
        }
    }
}
