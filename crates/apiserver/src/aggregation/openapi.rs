//! OpenAPI v3 of everything together: the index names the documents of the servers behind, which answer for them themselves.
//! Upstream: kube-aggregator pkg/controllers/openapiv3.

use std::time::Duration;

use apimachinery::Status;
use futures_util::future;
use http::StatusCode;
use serde_json::{Value as Json, json};

use super::Aggregation;
use super::route::Route;
use crate::answer::{Answer, Content};
use crate::registry::Registry;

const TIMEOUT: Duration = Duration::from_secs(5);

impl Aggregation {
    /// The other server whose document this is.
    pub(crate) fn owner_of_document(&self, path: &str) -> Option<std::sync::Arc<Route>> {
        let (group, version) = path.strip_prefix("/openapi/v3/apis/")?.split_once('/')?;
        self.route(group, version)
    }

    /// The index with the documents of other servers; `own` is this server's.
    pub(crate) async fn complete_index(&self, registry: &Registry, own: Answer) -> Result<Answer, Status> {
        let routes = self.routes();
        let Content::Bytes(bytes) = &own.content else { return Ok(own) };
        if routes.is_empty() {
            return Ok(own);
        }
        let mut index: Json = serde_json::from_slice(bytes).map_err(Status::internal)?;
        let available = routes.values().filter(|route| route.available);
        let asked = available.map(|route| async move {
            let read = self.read(registry, route, "/openapi/v3", "application/json");
            let document = self.env.timeout(TIMEOUT, read).await?.ok().filter(|document| document.code == 200)?;
            let theirs: Json = serde_json::from_slice(&document.body).ok()?;
            let root = api::openapi::root(&route.group, &route.version);
            let url = theirs["paths"][&root]["serverRelativeURL"].as_str()?.to_owned();
            Some((root, url))
        });
        for (root, url) in future::join_all(asked).await.into_iter().flatten() {
            index["paths"][root] = json!({ "serverRelativeURL": url });
        }
        Ok(Answer::json(StatusCode::OK, index.to_string()))
    }
}
