//! The scale subresource of whatever has one.

use std::sync::Arc;

use apimachinery::{Object, ObjectKey};
use client::{Client, Resource};
use serde::Deserialize;

/// Why there is no scale.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ScaleError {
    #[error("no matches for kind {kind:?} in version {version:?}")]
    NoKind { kind: String, version: String },
    #[error("{0} does not implement the scale subresource")]
    NoScale(String),
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

/// The resource and the scale of the object of this kind; `None` if the object is not there.
pub(crate) async fn scale_of(
    client: &Client,
    api_version: &str,
    kind: &str,
    key: &ObjectKey,
) -> Result<Option<(Resource, Arc<Object>)>, ScaleError> {
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
        Ok(scale) => Ok(Some((resource, scale))),
        Err(error) if error.is_not_found() => {
            let subresource = format!("{}/scale", found.name);
            if served.resources.iter().any(|resource| resource.name == subresource) {
                return Ok(None);
            }
            Err(ScaleError::NoScale(resource.group_resource().to_string()))
        }
        Err(error) => Err(error.into()),
    }
}
