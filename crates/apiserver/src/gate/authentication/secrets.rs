//! Tokens that are kept in Secrets: those by which nodes join, and those of service accounts that never end. Upstream:
//! plugin/pkg/auth/authenticator/token/bootstrap, pkg/serviceaccount legacyValidator.

use std::collections::BTreeMap;

use apimachinery::{ObjectKey, Value, parse_time};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use parking_lot::Mutex;
use pki::LegacyClaims;
use tokio::sync::Notify;

use super::service_account_groups;
use crate::UserInfo;
use crate::strategy::Objects;

const BOOTSTRAP: &str = "bootstrap.kubernetes.io/token";
const BOOTSTRAPPERS: &str = "system:bootstrappers";
pub(crate) const LAST_USED: &str = "kubernetes.io/legacy-token-last-used";
const INVALID_SINCE: &str = "kubernetes.io/legacy-token-invalid-since";

/// Which Secrets' tokens were used, and on which day; told once a day.
#[derive(Default)]
pub(crate) struct Uses {
    days: Mutex<BTreeMap<ObjectKey, (String, bool)>>,
    news: Notify,
}

/// More is not remembered: it is told again.
const MOST: usize = 10_000;

impl Uses {
    fn note(&self, secret: &ObjectKey, day: String) {
        let mut days = self.days.lock();
        if days.get(secret).is_some_and(|(known, _)| *known == day) {
            return;
        }
        if days.len() >= MOST {
            days.clear();
        }
        days.insert(secret.clone(), (day, false));
        self.news.notify_one();
    }

    /// Those that nobody was told of yet; waits for one.
    pub(crate) async fn next(&self) -> Vec<(ObjectKey, String)> {
        loop {
            let news: Vec<_> = {
                let mut days = self.days.lock();
                let untold = days.iter_mut().filter(|(_, (_, told))| !told);
                untold
                    .map(|(key, (day, told))| {
                        *told = true;
                        (key.clone(), day.clone())
                    })
                    .collect()
            };
            if !news.is_empty() {
                return news;
            }
            self.news.notified().await;
        }
    }
}

/// Whether the text looks like a bootstrap token: which one, and its secret.
pub(super) fn bootstrap_parts(token: &str) -> Option<(&str, &str)> {
    let (id, secret) = token.split_once('.')?;
    let plain = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    (id.len() == 6 && secret.len() == 16 && plain(id) && plain(secret)).then_some((id, secret))
}

/// Who brings this bootstrap token.
pub(super) fn bootstrap(id: &str, secret: &str, objects: &dyn Objects, now: Timestamp) -> Option<UserInfo> {
    let name = format!("bootstrap-token-{id}");
    let object = objects.get("", "secrets", &ObjectKey::new("kube-system", name))?;
    let value = object.to_value();
    let ours = value.str_at(&["type"]) == Some(BOOTSTRAP) && object.deletion_timestamp().is_none();
    let expires = data(&value, "expiration");
    let expired = !expires.is_empty() && parse_time(&expires).is_none_or(|end| end <= now);
    let matches = same(&data(&value, "token-secret"), secret) && data(&value, "token-id") == id;
    if !ours || !matches || expired || data(&value, "usage-bootstrap-authentication") != "true" {
        return None;
    }
    let mut groups = vec![BOOTSTRAPPERS.to_owned()];
    let extra = data(&value, "auth-extra-groups");
    let mut extra: Vec<&str> = extra.split(',').map(str::trim).filter(|group| !group.is_empty()).collect();
    extra.sort_unstable();
    extra.dedup();
    if !extra.iter().all(|group| is_bootstrap_group(group)) {
        return None;
    }
    groups.extend(extra.into_iter().map(str::to_owned));
    Some(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() })
}

fn is_bootstrap_group(group: &str) -> bool {
    let Some(rest) = group.strip_prefix("system:bootstrappers:") else { return false };
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    rest.len() <= 256
        && rest.bytes().all(|b| plain(b) || b == b':' || b == b'-')
        && rest.bytes().next_back().is_some_and(plain)
}

/// The account that a token without end speaks for, as long as its Secret has it.
pub(super) fn legacy(
    claims: &LegacyClaims,
    token: &str,
    objects: &dyn Objects,
    uses: &Uses,
    now: Timestamp,
) -> Result<UserInfo, String> {
    let LegacyClaims { namespace, secret, account, uid, .. } = claims;
    let invalidated = || "service account token has been invalidated".to_owned();
    let found = objects.get("", "secrets", &ObjectKey::new(&**namespace, &**secret)).ok_or_else(invalidated)?;
    if found.deletion_timestamp().is_some() {
        return Err(invalidated());
    }
    if !same(&data(&found.to_value(), "token"), token) {
        return Err("service account token does not match server's copy".to_owned());
    }
    let owner = objects.get("", "serviceaccounts", &ObjectKey::new(&**namespace, &**account));
    let owner = owner.ok_or_else(|| format!("serviceaccounts {account:?} not found"))?;
    if owner.deletion_timestamp().is_some() {
        return Err("service account has been deleted".to_owned());
    }
    if owner.uid() != uid {
        return Err(format!("service account UID ({}) does not match claim ({uid})", owner.uid()));
    }
    if found.label(INVALID_SINCE).is_some_and(|since| !since.is_empty()) {
        return Err(format!(
            "the token in secret {namespace}/{secret} for service account {namespace}/{account} has been marked invalid. Use tokens from \
             the TokenRequest API or manually created secret-based tokens, or remove the '{INVALID_SINCE}' label from the secret to \
             temporarily allow use of this token"
        ));
    }
    let today = day(now);
    if found.label(LAST_USED) != Some(&today) {
        uses.note(found.key(), today);
    }
    Ok(UserInfo {
        name: format!("system:serviceaccount:{namespace}:{account}"),
        uid: uid.clone(),
        groups: service_account_groups(namespace),
        ..UserInfo::default()
    })
}

/// The day of a time, UTC.
pub(crate) fn day(now: Timestamp) -> String {
    now.to_zoned(jiff::tz::TimeZone::UTC).date().to_string()
}

fn data(secret: &Value, key: &str) -> String {
    let bytes = secret.str_at(&["data", key]).and_then(|text| BASE64_STANDARD.decode(text).ok()).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// Takes as long whatever the first difference is.
fn same(a: &str, b: &str) -> bool {
    let differs = a.bytes().zip(b.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b));
    a.len() == b.len() && !a.is_empty() && differs == 0
}
