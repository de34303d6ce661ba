//! Brings the bootstrap objects into a cluster, through its API.

use apimachinery::Object;
use client::{Client, DeleteOptions, Error, Resource};
use tracing::{debug, warn};

use super::{Reconcile, Wanted, reconcile};

/// Creates what is missing and completes what lacks something. Goes on after a failure, and returns the first one.
pub(crate) async fn ensure(client: &Client, objects: &[Wanted]) -> Result<(), Error> {
    let mut failed = None;
    for wanted in objects {
        if let Err(error) = ensure_one(client, wanted).await {
            let name = wanted.value.str_at(&["metadata", "name"]).unwrap_or_default();
            warn!(
                resource = wanted.resource,
                name,
                error = &error as &dyn std::error::Error,
                "an object that every cluster has was not completed"
            );
            failed.get_or_insert(error);
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn ensure_one(client: &Client, wanted: &Wanted) -> Result<(), Error> {
    /// Somebody else may write in between.
    const ATTEMPTS: usize = 5;
    let namespaced = wanted.value.at(&["metadata", "namespace"]).is_some();
    let resource = if namespaced {
        Resource::namespaced(wanted.group, "v1", wanted.resource)
    } else {
        Resource::cluster(wanted.group, "v1", wanted.resource)
    };
    let object = Object::new(&wanted.value, 0).map_err(apimachinery::Status::internal)?;
    let mut attempt = 1;
    loop {
        let existing = client.find(&resource, object.key()).await?.map(|object| object.to_value());
        let step = reconcile(existing.as_ref(), &wanted.value);
        let done = match &step {
            Reconcile::Nothing => return Ok(()),
            Reconcile::Create(value) => client.create(&resource, value).await,
            Reconcile::Update(value) => client.update(&resource, value).await,
            Reconcile::Recreate(value) => {
                client.delete(&resource, object.key(), &DeleteOptions::default()).await?;
                client.create(&resource, value).await
            }
        };
        match done {
            Ok(_) => {
                debug!(resource = wanted.resource, name = object.name(), "reconciled");
                return Ok(());
            }
            Err(error) if attempt < ATTEMPTS && (error.is_conflict() || error.is_already_exists()) => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::ObjectKey;
    use client::fake::FakeServer;
    use client::resources::{CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES};
    use env::Env;

    use super::*;
    use crate::gate::bootstrap::{priority_classes, rbac};

    #[tokio::test(start_paused = true)]
    async fn an_empty_cluster_gets_everything_and_a_full_one_nothing() {
        let server = FakeServer::new(Env::seeded(1, jiff::Timestamp::UNIX_EPOCH));
        let all: Vec<Wanted> = rbac(false).into_iter().chain(priority_classes()).collect();
        ensure(&server.client(), &all).await.unwrap();
        assert_eq!(server.writes().len(), all.len());
        server.forget_requests();
        ensure(&server.client(), &all).await.unwrap();
        assert_eq!(server.writes(), Vec::<String>::new());

        let admin = ObjectKey::cluster("cluster-admin");
        server.edit(&CLUSTER_ROLES, &admin, |role| role.set(&["rules"], Vec::<apimachinery::Value>::new()));
        server.edit(&CLUSTER_ROLE_BINDINGS, &admin, |binding| binding.set(&["roleRef", "name"], "view"));
        ensure(&server.client(), &all).await.unwrap();
        assert_eq!(server.writes().len(), 3, "{:?}", server.writes());
        let role = server.get(&CLUSTER_ROLES, &admin).unwrap().to_value();
        assert_eq!(role.items_at(&["rules"]).len(), 2);
        let binding = server.get(&CLUSTER_ROLE_BINDINGS, &admin).unwrap().to_value();
        assert_eq!(binding.str_at(&["roleRef", "name"]), Some("cluster-admin"));
    }
}
