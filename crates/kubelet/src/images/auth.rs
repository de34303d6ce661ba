//! Credentials for registries, from `imagePullSecrets`. Upstream: pkg/credentialprovider.

use cri::v1::AuthConfig;
use k8s_openapi::api::core::v1::Secret;
use serde_json::Value as Json;

use super::reference::registry_and_repository;

/// The credentials that fit the image, the most specific first.
pub(crate) fn credentials(image: &str, secrets: &[&Secret]) -> Vec<AuthConfig> {
    let (registry, repository) = registry_and_repository(image);
    let mut fitting: Vec<(usize, AuthConfig)> = Vec::new();
    for (address, entry) in secrets.iter().flat_map(|secret| entries(secret)) {
        let (host, path) = split(&address);
        let host = if matches!(host, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host };
        let covers = path.is_empty() || repository == path || repository.starts_with(&format!("{path}/"));
        if host_matches(host, &registry) && covers {
            fitting.push((path.len(), auth(&entry, host)));
        }
    }
    fitting.sort_by_key(|(specific, _)| std::cmp::Reverse(*specific));
    fitting.into_iter().map(|(_, auth)| auth).collect()
}

/// The entries of a `kubernetes.io/dockerconfigjson` or `kubernetes.io/dockercfg` Secret.
fn entries(secret: &Secret) -> Vec<(String, Json)> {
    let data = |key: &str| {
        let bytes = secret.data.as_ref()?.get(key)?;
        serde_json::from_slice::<Json>(&bytes.0).ok()
    };
    let found = match secret.type_.as_deref() {
        Some("kubernetes.io/dockerconfigjson") => data(".dockerconfigjson").and_then(|json| json.get("auths").cloned()),
        Some("kubernetes.io/dockercfg") => data(".dockercfg"),
        _ => None,
    };
    match found {
        Some(Json::Object(entries)) => entries.into_iter().collect(),
        _ => Vec::new(),
    }
}

/// `https://host/v1/` as host and path; the old API paths count as none.
fn split(address: &str) -> (&str, &str) {
    let address = address.strip_prefix("https://").or(address.strip_prefix("http://")).unwrap_or(address);
    let (host, path) = address.split_once('/').unwrap_or((address, ""));
    let path = path.trim_matches('/');
    (host, if matches!(path, "v1" | "v2") { "" } else { path })
}

/// `*.example.com` stands for one label.
fn host_matches(pattern: &str, host: &str) -> bool {
    let (pattern, host): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), host.split('.').collect());
    pattern.len() == host.len() && pattern.iter().zip(&host).all(|(pattern, label)| *pattern == "*" || pattern == label)
}

fn auth(entry: &Json, host: &str) -> AuthConfig {
    let text = |key: &str| entry.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
    AuthConfig {
        username: text("username"),
        password: text("password"),
        auth: text("auth"),
        server_address: host.to_owned(),
        identity_token: text("identitytoken"),
        registry_token: text("registrytoken"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_fitting_credentials_are_found() {
        let config = json!({"auths": {
            "https://index.docker.io/v1/": {"username": "hub"},
            "r.example": {"username": "all"},
            "r.example/team": {"auth": "dTpw"},
            "*.example.org": {"username": "wild"},
        }});
        let secret = Secret {
            type_: Some("kubernetes.io/dockerconfigjson".into()),
            data: Some(
                [(".dockerconfigjson".to_owned(), k8s_openapi::ByteString(config.to_string().into_bytes()))].into(),
            ),
            ..Secret::default()
        };
        let check = |image: &str, expect: &[&str]| {
            let found = credentials(image, &[&secret]);
            let names: Vec<_> = found.iter().map(|a| format!("{}{}", a.username, a.auth)).collect();
            assert_eq!(names, expect, "{image}");
        };
        check("busybox", &["hub"]);
        check("r.example/team/app:1", &["dTpw", "all"]);
        check("r.example/teamwork", &["all"]);
        check("a.example.org/x", &["wild"]);
        check("b.a.example.org/x", &[]);
    }
}
