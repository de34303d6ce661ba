//! Writing slices.

use apimachinery::{Object, Value};
use client::{Client, DeleteOptions, resources};

use super::pack::Change;
use crate::meta::controller_reference;

/// Carries out one change of the slices that `owner` has; `annotate` completes what is written.
pub(crate) async fn apply(
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
            match client.delete(&resources::ENDPOINT_SLICES, slice.key(), &options).await {
                Err(error) if error.is_not_found() => Ok(()),
                result => result.map(drop),
            }
        }
    }
}
