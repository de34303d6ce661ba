//! Which resources a server has.

use futures_util::{StreamExt, stream};
use serde::Deserialize;

use crate::{Client, Error, Resource};

/// A served resource, in its group's preferred version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiResource {
    pub resource: Resource,
    pub kind: String,
    /// All that it is served in, the resource's own first.
    pub versions: Vec<String>,
    pub verbs: Vec<String>,
}

impl ApiResource {
    pub fn can(&self, verb: &str) -> bool {
        self.verbs.iter().any(|known| known == verb)
    }
}

#[derive(Deserialize)]
struct Groups {
    #[serde(default)]
    groups: Vec<Group>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Group {
    versions: Vec<Version>,
    preferred_version: Option<Version>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    group_version: String,
}

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    resources: Vec<WireResource>,
}

#[derive(Deserialize)]
struct WireResource {
    name: String,
    namespaced: bool,
    kind: String,
    #[serde(default)]
    verbs: Vec<String>,
}

/// Group-versions asked for at a time.
const TOGETHER: usize = 16;

/// Every resource that the server has, without subresources; of a resource in several versions of its group, the one in the
/// preferred version, else the first. Group-versions that fail are returned as such beside the rest.
///
/// # Errors
/// When the list of groups is not to be had.
pub async fn discover(client: &Client) -> Result<(Vec<ApiResource>, Vec<(String, Error)>), Error> {
    let groups: Groups = client.get_json("/apis").await?;
    let mut group_versions = vec!["v1".to_owned()];
    for group in groups.groups {
        let preferred = group.preferred_version.map(|version| version.group_version);
        let others = group.versions.into_iter().map(|version| version.group_version);
        let others = others.filter(|version| Some(version) != preferred.as_ref()).collect::<Vec<_>>();
        group_versions.extend(preferred.into_iter().chain(others));
    }
    let (mut found, mut failed) = (Vec::<ApiResource>::new(), Vec::new());
    let ask = |group_version: String| async move {
        let root = if group_version.contains('/') { "apis" } else { "api" };
        let answer = client.get_json::<Resources>(format!("/{root}/{group_version}")).await;
        (group_version, answer)
    };
    let mut answers = stream::iter(group_versions.into_iter().map(ask)).buffered(TOGETHER);
    while let Some((group_version, answer)) = answers.next().await {
        let (group, version) = group_version.split_once('/').unwrap_or(("", &group_version));
        let resources = match answer {
            Ok(resources) => resources,
            Err(error) => {
                failed.push((group_version, error));
                continue;
            }
        };
        for wire in resources.resources.into_iter().filter(|wire| !wire.name.contains('/')) {
            let resource = Resource {
                group: group.to_owned().into(),
                version: version.to_owned().into(),
                plural: wire.name.into(),
                namespaced: wire.namespaced,
            };
            let same =
                |r: &&mut ApiResource| r.resource.group == resource.group && r.resource.plural == resource.plural;
            match found.iter_mut().find(same) {
                Some(known) => known.versions.push(version.to_owned()),
                None => {
                    let versions = vec![version.to_owned()];
                    found.push(ApiResource { resource, kind: wire.kind, versions, verbs: wire.verbs });
                }
            }
        }
    }
    Ok((found, failed))
}
