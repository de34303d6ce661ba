//! Secrets that ask for a service account's token get one, and go with their account. Upstream: pkg/controller/serviceaccount
//! TokensController.

use std::sync::Arc;

use apimachinery::{Object, ObjectKey, Value};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use client::{
    Controller, DeleteOptions, Event, Informer, ReconcileContext, ReconcileError, Requeue, Selection, Watch, resources,
};
use pki::{ClusterPki, LegacyClaims};

use crate::Setup;
use crate::meta::annotation;

pub(crate) const TYPE: &str = "kubernetes.io/service-account-token";
pub(crate) const NAME: &str = "kubernetes.io/service-account.name";
const UID: &str = "kubernetes.io/service-account.uid";
/// Secrets by the account they are for.
const ACCOUNT_INDEX: &str = "account";

pub(crate) struct ServiceAccountTokens {
    secrets: Informer,
    accounts: Informer,
    pki: Option<Arc<ClusterPki>>,
    root_ca: Arc<str>,
}

impl ServiceAccountTokens {
    pub(crate) fn new(setup: &Setup<'_>) -> Self {
        let secrets = setup.informers.selected(&resources::SECRETS, tokens());
        secrets.index(ACCOUNT_INDEX, |secret| vec![account_of(secret).to_string()]);
        ServiceAccountTokens {
            secrets,
            accounts: setup.informers.of(&resources::SERVICE_ACCOUNTS),
            pki: setup.config.pki.clone(),
            root_ca: setup.root_ca.clone(),
        }
    }

    /// Takes a Secret that is gone out of the accounts that name it.
    async fn forget(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let is_it = |reference: &Value| reference.str_at(&["name"]) == Some(&key.name);
        for account in self.accounts.list(&key.namespace) {
            let mut value = account.to_value();
            let references = value.items_at(&["secrets"]);
            if !references.iter().any(is_it) {
                continue;
            }
            if ctx.client().find(&resources::SECRETS, key).await?.is_some() {
                break;
            }
            let kept: Vec<Value> = references.iter().filter(|reference| !is_it(reference)).cloned().collect();
            if kept.is_empty() {
                value.remove(&["secrets"]);
            } else {
                value.set(&["secrets"], kept);
            }
            ctx.client().update(&resources::SERVICE_ACCOUNTS, &value).await?;
        }
        Ok(Requeue::No)
    }
}

/// Secrets of this type.
pub(crate) fn tokens() -> Selection {
    Selection::all().fields(format!("type={TYPE}"))
}

pub(crate) fn account_of(secret: &Object) -> ObjectKey {
    ObjectKey::new(secret.namespace(), annotation(secret, NAME).unwrap_or_default())
}

/// Whether the Secret is for this very account, not for one of the same name before it.
pub(crate) fn is_for(secret: &Object, account: &Object) -> bool {
    annotation(secret, UID).is_none_or(|uid| uid.is_empty() || uid == account.uid())
}

impl Controller for ServiceAccountTokens {
    fn name(&self) -> &'static str {
        "serviceaccount-token-controller"
    }

    fn watches(&self) -> Vec<Watch> {
        let secrets = self.secrets.clone();
        let of_account = move |event: &Event| match event {
            Event::Modified { old, new } if old.uid() == new.uid() => Vec::new(),
            event => {
                let of = secrets.by_index(ACCOUNT_INDEX, &event.object().key().to_string());
                of.iter().map(|secret| secret.key().clone()).collect()
            }
        };
        vec![Watch::objects(self.secrets.clone()), Watch::new(self.accounts.clone(), of_account)]
    }

    async fn reconcile(&self, ctx: &ReconcileContext, key: &ObjectKey) -> Result<Requeue, ReconcileError> {
        let Some(pki) = &self.pki else { return Ok(Requeue::No) };
        let Some(secret) = self.secrets.get(key) else { return self.forget(ctx, key).await };
        if secret.is_deleting() {
            return Ok(Requeue::No);
        }
        let account_key = account_of(&secret);
        // A cache may be behind: nobody's token goes because of that.
        let account = match self.accounts.get(&account_key).filter(|account| is_for(&secret, account)) {
            Some(account) => Some(account),
            None => ctx.client().find(&resources::SERVICE_ACCOUNTS, &account_key).await?,
        };
        let Some(account) = account.filter(|account| is_for(&secret, account)) else {
            let mut options = DeleteOptions::uid(secret.uid());
            options.revision = Some(secret.revision());
            return match ctx.client().delete(&resources::SECRETS, key, &options).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error.into()),
                _ => Ok(Requeue::No),
            };
        };
        let mut value = secret.to_value();
        let mut fill = |path: &[&str], wanted: String, always: bool| {
            let now = value.str_at(path).unwrap_or_default();
            if now.is_empty() || always && now != wanted {
                value.set(path, wanted);
            }
        };
        fill(&["data", "ca.crt"], BASE64_STANDARD.encode(&*self.root_ca), true);
        fill(&["data", "namespace"], BASE64_STANDARD.encode(&*key.namespace), false);
        if value.str_at(&["data", "token"]).is_none_or(str::is_empty) {
            let claims = LegacyClaims::new(&key.namespace, account.name(), account.uid(), &key.name);
            value.set(&["data", "token"], BASE64_STANDARD.encode(pki.token_key().sign_legacy(&claims)?));
        }
        if value != secret.to_value() {
            value.set(&["metadata", "annotations", UID], account.uid());
            ctx.client().update(&resources::SECRETS, &value).await?;
        }
        Ok(Requeue::No)
    }
}
