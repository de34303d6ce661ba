//! The scale subresource of whatever has one.

use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Status};
use client::{Client, Resource};
use serde::Deserialize;

/// Why there is no scale.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScaleError {
    #[error("no matches for kind {kind:?} in version {version:?}")]
    NoKind { kind: String, version: String },
    #[error("no matches for kind {kind:?} in group {group:?}")]
    NoKindInGroup { kind: String, group: String },
    /// With what the server said.
    #[error("{resource} does not implement the scale subresource")]
    NoScale { resource: String, error: client::Error },
    #[error(transparent)]
    Client(#[from] client::Error),
}

#[derive(Deserialize)]
struct ResourceList {
    #[serde(default)]
    resources: Vec<ApiResource>,
}

#[derive(Deserialize)]
struct ApiResource {
    name: String,
    kind: String,
    #[serde(default)]
    namespaced: bool,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    versions: Vec<GroupVersion>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GroupVersion {
    group_version: String,
}

/// Like [`scale_of`], where any version of the group will do, and an object that is not there is an error too.
pub(crate) async fn scale_of_group(
    client: &Client,
    api_version: &str,
    kind: &str,
    key: &ObjectKey,
) -> Result<(Resource, Arc<Object>), ScaleError> {
    let told = |result: Result<Result<_, Resource>, ScaleError>| match result {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(resource)) => Err(client::Error::from(Status::not_found(&resource.group_resource(), &key.name)).into()),
        Err(ScaleError::NoScale { error, .. }) => Err(error.into()),
        Err(error) => Err(error),
    };
    match found(client, api_version, kind, key).await {
        Err(ScaleError::NoKind { .. }) => {}
        result => return told(result),
    }
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let versions = match client.get_json::<Group>(format!("/apis/{group}")).await {
        Ok(served) if !group.is_empty() => served.versions,
        Err(error) if !error.is_not_found() => return Err(error.into()),
        _ => Vec::new(),
    };
    for version in versions.iter().filter(|version| version.group_version != api_version) {
        match found(client, &version.group_version, kind, key).await {
            Err(ScaleError::NoKind { .. }) => {}
            result => return told(result),
        }
    }
    Err(ScaleError::NoKindInGroup { kind: kind.to_owned(), group: group.to_owned() })
}

/// The resource and the scale of the object of this kind; `None` if the object is not there.
pub(crate) async fn scale_of(
    client: &Client,
    api_version: &str,
    kind: &str,
    key: &ObjectKey,
) -> Result<Option<(Resource, Arc<Object>)>, ScaleError> {
    Ok(found(client, api_version, kind, key).await?.ok())
}

/// The same, with the resource also where the object is not there.
async fn found(
    client: &Client,
    api_version: &str,
    kind: &str,
    key: &ObjectKey,
) -> Result<Result<(Resource, Arc<Object>), Resource>, ScaleError> {
    let path = if api_version.contains('/') { format!("/apis/{api_version}") } else { format!("/api/{api_version}") };
    let no_kind = || ScaleError::NoKind { kind: kind.to_owned(), version: api_version.to_owned() };
    let served: ResourceList = match client.get_json(path).await {
        Err(error) if error.is_not_found() => return Err(no_kind()),
        result => result?,
    };
    let is_kind = |resource: &&ApiResource| resource.kind == kind && !resource.name.contains('/');
    let found = served.resources.iter().find(is_kind).ok_or_else(no_kind)?;
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    let resource = Resource {
        group: group.to_owned().into(),
        version: version.to_owned().into(),
        plural: found.name.clone().into(),
        namespaced: found.namespaced,
    };
    match client.get_subresource(&resource, key, "scale").await {
        Ok(scale) => Ok(Ok((resource, scale))),
        Err(error) if error.is_not_found() => {
            let subresource = format!("{}/scale", found.name);
            if served.resources.iter().any(|resource| resource.name == subresource) {
                return Ok(Err(resource));
            }
            Err(ScaleError::NoScale { resource: resource.group_resource().to_string(), error })
        }
        Err(error) => Err(error.into()),
    }
}
