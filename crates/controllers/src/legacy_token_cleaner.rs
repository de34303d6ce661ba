//! Tokens that were once made for every account, and that nobody has used for a year, are marked, and a year later deleted. Upstream:
//! pkg/controller/serviceaccount LegacySATokenCleaner.

use std::time::Duration;

use apimachinery::{Object, ObjectKey, Value};
use client::{
    Client, Controller, DeleteOptions, Informer, ListOptions, PatchKind, ReconcileContext, ReconcileError, Requeue,
    Selection, Watch, Workqueue, resources,
};
use jiff::Timestamp;
use jiff::civil::Date;

use crate::Setup;
use crate::meta::created;
use crate::service_account_token::{account_of, is_for, tokens};

const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";
const PERIOD: Duration = Duration::from_secs(365 * 24 * 3600);
/// How often is looked: what counts are days.
const PAUSE: Duration = Duration::from_secs(24 * 3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(crate) struct LegacyTokenCleaner {
    secrets: Informer,
    accounts: Informer,
    client: Client,
}

impl LegacyTokenCleaner {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        LegacyTokenCleaner {
            secrets: setup.informers.selected(&resources::SECRETS, tokens()),
            accounts: setup.informers.of(&resources::SERVICE_ACCOUNTS),
            client: setup.client.clone(),
        }
    }

    async fn look(
        &self,
        ctx: &ReconcileContext,
        secret: &Object,
        today: &str,
        kept_day: &str,
        kept: Timestamp,
    ) -> Result<(), ReconcileError> {
        if secret.is_deleting() || created(secret) >= kept {
            return Ok(());
        }
        if let Some(used) = secret.label(LAST_USED)
            && (used.parse::<Date>().is_err() || used >= kept_day)
        {
            return Ok(());
        }
        let names = |account: &Object| {
            let value = account.to_value();
            value.items_at(&["secrets"]).iter().any(|secret_| secret_.str_at(&["name"]) == Some(secret.name()))
        };
        let account = self.accounts.get(&account_of(secret)).filter(|account| is_for(secret, account));
        // Those made by hand stay: no account names them.
        if !account.is_some_and(|account| names(&account)) || self.is_needed(secret).await? {
            return Ok(());
        }
        let since = secret.label(INVALID_SINCE).unwrap_or_default();
        let outcome = if since.parse::<Date>().is_err() {
            let mut patch = Value::object();
            patch.set(&["metadata", "uid"], secret.uid());
            patch.set(&["metadata", "resourceVersion"], secret.revision().to_string());
            patch.set(&["metadata", "labels", INVALID_SINCE], today);
            ctx.client().patch(&resources::SECRETS, secret.key(), PatchKind::Merge, &patch).await.map(drop)
        } else if since < kept_day {
            let mut options = DeleteOptions::uid(secret.uid());
            options.revision = Some(secret.revision());
            ctx.client().delete(&resources::SECRETS, secret.key(), &options).await.map(drop)
        } else {
            return Ok(());
        };
        match outcome {
            Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Informers don't know of all that pods need.
    async fn is_needed(&self, secret: &Object) -> Result<bool, ReconcileError> {
        let selection = Selection::all().namespace(secret.namespace());
        let pods = self.client.list(&resources::PODS, &selection, &ListOptions::default()).await?;
        Ok(pods.items.iter().any(|pod| names_secret(&pod.to_value(), secret.name())))
    }
}

/// Whether the pod needs the Secret for anything. Upstream: api/v1/pod VisitPodSecretNames.
fn names_secret(pod: &Value, name: &str) -> bool {
    let named = |value: &Value, path: &[&str]| value.str_at(path) == Some(name);
    let spec = |list: &'static str| pod.items_at(&["spec", list]).iter();
    let containers = spec("containers").chain(spec("initContainers")).chain(spec("ephemeralContainers"));
    let in_env = |container: &Value| {
        container.items_at(&["env"]).iter().any(|env| named(env, &["valueFrom", "secretKeyRef", "name"]))
            || container.items_at(&["envFrom"]).iter().any(|from| named(from, &["secretRef", "name"]))
    };
    const BY_REFERENCE: [&str; 7] = ["cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos"];
    let in_volume = |volume: &Value| {
        named(volume, &["secret", "secretName"])
            || named(volume, &["azureFile", "secretName"])
            || named(volume, &["csi", "nodePublishSecretRef", "name"])
            || volume.items_at(&["projected", "sources"]).iter().any(|source| named(source, &["secret", "name"]))
            || BY_REFERENCE.iter().any(|source| named(volume, &[source, "secretRef", "name"]))
    };
    spec("imagePullSecrets").any(|reference| named(reference, &["name"]))
        || containers.into_iter().any(in_env)
        || spec("volumes").any(in_volume)
}

/// The end of the day on which the API server began to note when tokens are used.
async fn tracked_since(ctx: &ReconcileContext) -> Result<Option<Timestamp>, ReconcileError> {
    let key = ObjectKey::new("kube-system", "kube-apiserver-legacy-service-account-token-tracking");
    let Some(map) = ctx.client().find(&resources::CONFIG_MAPS, &key).await? else { return Ok(None) };
    let value = map.to_value();
    let since = value.str_at(&["data", "since"]).and_then(|day| day.parse::<Date>().ok());
    Ok(since.and_then(|day| day.to_zoned(jiff::tz::TimeZone::UTC).ok()).map(|day| day.timestamp() + DAY))
}

fn day(time: Timestamp) -> String {
    time.to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

impl Controller for LegacyTokenCleaner {
    fn name(&self) -> &'static str {
        "legacy-serviceaccount-token-cleaner-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        vec![Watch::only(self.secrets.clone()), Watch::only(self.accounts.clone())]
    }

    fn workers(&self) -> usize {
        1
    }

    fn started(&self, queue: &Workqueue<ObjectKey>) {
        queue.add(ObjectKey::cluster("all"));
    }

    async fn reconcile(&self, ctx: &ReconcileContext, _key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let secrets = self.secrets.list("");
        if secrets.is_empty() {
            return Ok(Requeue::After(PAUSE));
        }
        let now = ctx.env().now();
        let kept_since = now - PERIOD;
        let Some(tracked) = tracked_since(ctx).await? else { return Ok(Requeue::After(PAUSE)) };
        if tracked > kept_since {
            // Not long enough to say that somebody did not use one.
            return Ok(Requeue::After(PAUSE));
        }
        for secret in secrets {
            self.look(ctx, &secret, &day(now), &day(kept_since), kept_since).await?;
        }
        Ok(Requeue::After(PAUSE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_need_secrets_for_several_things() {
        let check = |spec: &str, expect: bool| {
            let pod = Value::parse(format!(r#"{{"spec":{{{spec}}}}}"#).as_bytes()).unwrap();
            assert_eq!(names_secret(&pod, "s"), expect, "{spec}");
        };
        check("", false);
        check(r#""imagePullSecrets":[{"name":"s"}]"#, true);
        check(r#""containers":[{"env":[{"name":"s"},{"valueFrom":{"secretKeyRef":{"name":"s"}}}]}]"#, true);
        check(r#""containers":[{"env":[{"name":"s","value":"s"}]}]"#, false);
        check(r#""initContainers":[{"envFrom":[{"secretRef":{"name":"s"}}]}]"#, true);
        check(r#""initContainers":[{"envFrom":[{"configMapRef":{"name":"s"}}]}]"#, false);
        check(r#""volumes":[{"name":"s"},{"secret":{"secretName":"t"}}]"#, false);
        check(r#""volumes":[{"secret":{"secretName":"s"}}]"#, true);
        check(r#""volumes":[{"projected":{"sources":[{"secret":{"name":"s"}}]}}]"#, true);
        check(r#""volumes":[{"iscsi":{"secretRef":{"name":"s"}}}]"#, true);
        check(r#""volumes":[{"csi":{"nodePublishSecretRef":{"name":"s"}}}]"#, true);
    }
}
