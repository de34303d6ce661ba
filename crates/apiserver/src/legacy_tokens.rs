//! Notes on which day a token out of a Secret was last used, and since when that is noted. Upstream:
//! pkg/controlplane/controller/legacytokentracking.

use std::sync::Arc;

use apimachinery::{ObjectKey, Value};
use client::{Client, PatchKind, resources};
use tracing::debug;

use crate::bootstrap::own_user;
use crate::gate::{LAST_USED, day};
use crate::local::Local;
use crate::server::Server;

/// Runs until dropped.
pub(crate) async fn run(server: &Server) {
    let env = server.inner().env.clone();
    let local = Local::new(server.clone(), own_user());
    let client = Client::new(env.clone(), Arc::new(local), "kube-apiserver");
    track(&client).await;
    loop {
        for (secret, day) in server.inner().access.uses().next().await {
            let mut patch = Value::object();
            patch.set(&["metadata", "labels", LAST_USED], day);
            if let Err(error) = client.patch(&resources::SECRETS, &secret, PatchKind::Merge, &patch).await {
                debug!(%secret, error = &error as &dyn std::error::Error, "the use of a token is not noted");
            }
        }
    }
}

/// Says since when uses are noted; what cannot be read begins anew.
async fn track(client: &Client) {
    let mut map = Value::object();
    map.set(&["apiVersion"], "v1");
    map.set(&["kind"], "ConfigMap");
    let key = ObjectKey::new("kube-system", "kube-apiserver-legacy-service-account-token-tracking");
    map.set(&["metadata", "name"], &*key.name);
    map.set(&["metadata", "namespace"], &*key.namespace);
    map.set(&["data", "since"], day(client.env().now()));
    let outcome = match client.find(&resources::CONFIG_MAPS, &key).await {
        Ok(None) => client.create(&resources::CONFIG_MAPS, &map).await.map(drop),
        Ok(Some(there)) => {
            let value = there.to_value();
            let since = value.str_at(&["data", "since"]).and_then(|day| day.parse::<jiff::civil::Date>().ok());
            match since {
                Some(_) => Ok(()),
                None => client.update(&resources::CONFIG_MAPS, &map).await.map(drop),
            }
        }
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        debug!(error = &error as &dyn std::error::Error, "it is not noted since when uses of tokens are");
    }
}
