//! Writing slices.

use std::sync::Arc;

use apimachinery::{Object, Value};
use client::{Client, DeleteOptions, IgnoreNotFound, resources};

use super::pack::Change;
use crate::meta::controller_reference;

/// A change that was not carried out, in the words of upstream's events.
#[derive(Debug, thiserror::Error)]
#[error("failed to {what} EndpointSlice for {kind} {key}: {source}", kind = .owner.kind(), key = .owner.key())]
pub(crate) struct WriteError {
    what: String,
    owner: Arc<Object>,
    source: client::Error,
}

/// Carries out `changes` of the slices that `owner` has; `annotate` completes what is written. Ends at the first that fails.
pub(crate) async fn apply(
    client: &Client,
    owner: &Arc<Object>,
    changes: Vec<Change>,
    annotate: impl Fn(&mut Value),
) -> Result<(), WriteError> {
    for change in changes {
        let what = match &change {
            // The collector takes away what others replace.
            Change::Create(_) if owner.is_deleting() => continue,
            Change::Create(_) => "create".to_owned(),
            Change::Update(slice) => format!("update {}", slice.str_at(&["metadata", "name"]).unwrap_or_default()),
            Change::Delete(slice) => format!("delete {}", slice.name()),
        };
        let result = apply_one(client, owner, change, &annotate).await;
        result.map_err(|source| WriteError { what, owner: owner.clone(), source })?;
    }
    Ok(())
}

async fn apply_one(
    client: &Client,
    owner: &Object,
    change: Change,
    annotate: impl Fn(&mut Value),
) -> Result<(), client::Error> {
    match change {
        Change::Create(mut slice) => {
            slice.set(&["apiVersion"], "discovery.k8s.io/v1");
            slice.set(&["kind"], "EndpointSlice");
            slice.set(&["metadata", "generateName"], format!("{}-", owner.name()));
            slice.set(&["metadata", "namespace"], owner.namespace());
            slice.set(&["metadata", "ownerReferences"], vec![controller_reference(owner)]);
            annotate(&mut slice);
            match client.create(&resources::ENDPOINT_SLICES, &slice).await {
                Err(error) if error.is_namespace_terminating() => Ok(()),
                result => result.map(drop),
            }
        }
        Change::Update(mut slice) => {
            annotate(&mut slice);
            client.update(&resources::ENDPOINT_SLICES, &slice).await.map(drop)
        }
        Change::Delete(slice) => {
            let options = DeleteOptions::uid(slice.uid());
            client.delete(&resources::ENDPOINT_SLICES, slice.key(), &options).await.ignore_not_found()
        }
    }
}
