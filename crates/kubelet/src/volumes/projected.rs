//! Volumes whose files the kubelet writes: `configMap`, `secret`, `downwardAPI`, and `projected` from several of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use k8s_openapi::api::core::v1::{ConfigMap, DownwardAPIVolumeFile, KeyToPath, Pod, Secret, Volume};

use super::atomic::{File, Payload};
use super::{Contents, SetUpError};
use crate::fields::{self, Situation};

const DEFAULT_MODE: i32 = 0o644;

/// The files of a volume of one of these kinds.
pub(super) fn payload(
    pod: &Pod,
    volume: &Volume,
    situation: &Situation,
    contents: &Contents,
    group: Option<u32>,
) -> Result<Payload, SetUpError> {
    let mut files = Files { payload: Payload::new(), group };
    if let Some(source) = &volume.config_map {
        let map = contents.config_maps.get(&source.name);
        files.add_config_map(map, &source.name, source.items.as_deref(), source.optional, source.default_mode)?;
    }
    if let Some(source) = &volume.secret {
        let name = source.secret_name.as_deref().unwrap_or_default();
        let secret = contents.secrets.get(name);
        files.add_secret(secret, name, source.items.as_deref(), source.optional, source.default_mode)?;
    }
    if let Some(source) = &volume.downward_api {
        files.add_fields(pod, source.items.as_deref(), situation, source.default_mode)?;
    }
    if let Some(projected) = &volume.projected {
        let mode = projected.default_mode;
        for source in projected.sources.iter().flatten() {
            if let Some(source) = &source.config_map {
                let map = contents.config_maps.get(&source.name);
                files.add_config_map(map, &source.name, source.items.as_deref(), source.optional, mode)?;
            }
            if let Some(source) = &source.secret {
                let secret = contents.secrets.get(&source.name);
                files.add_secret(secret, &source.name, source.items.as_deref(), source.optional, mode)?;
            }
            if let Some(source) = &source.downward_api {
                files.add_fields(pod, source.items.as_deref(), situation, mode)?;
            }
            if let Some(source) = &source.service_account_token {
                let token = contents.tokens.get(&(volume.name.clone(), source.path.clone()));
                let token = token.ok_or_else(|| SetUpError::NoToken(source.path.clone()))?;
                // A container that runs as one user reads its token as that user alone.
                let user = single_user(pod);
                let mode = if user.is_some() || group.is_some() { Some(0o600) } else { mode };
                files.add(&source.path, token.clone().into_bytes(), None, mode);
                if let Some(file) = files.payload.get_mut(&PathBuf::from(&source.path)) {
                    file.uid = user;
                }
            }
            if source.cluster_trust_bundle.is_some() {
                return Err(SetUpError::Unsupported("clusterTrustBundle".into()));
            }
        }
    }
    Ok(files.payload)
}

struct Files {
    payload: Payload,
    group: Option<u32>,
}

impl Files {
    fn add(&mut self, path: &str, content: Vec<u8>, mode: Option<i32>, default_mode: Option<i32>) {
        let mut mode = mode.or(default_mode).unwrap_or(DEFAULT_MODE) as u32;
        if self.group.is_some() {
            // The group that the pod asked for can read what the owner can.
            mode |= 0o040;
        }
        self.payload.insert(PathBuf::from(path), File { content, mode, uid: None });
    }

    fn add_config_map(
        &mut self,
        map: Option<&ConfigMap>,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        default_mode: Option<i32>,
    ) -> Result<(), SetUpError> {
        let Some(map) = map else {
            return if optional == Some(true) { Ok(()) } else { Err(SetUpError::NoConfigMap(name.into())) };
        };
        let text = map.data.iter().flatten().map(|(key, text)| (key.as_str(), text.as_bytes()));
        let binary = map.binary_data.iter().flatten().map(|(key, bytes)| (key.as_str(), bytes.0.as_slice()));
        self.add_keys("config", text.chain(binary).collect(), items, optional, default_mode)
    }

    fn add_secret(
        &mut self,
        secret: Option<&Secret>,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        default_mode: Option<i32>,
    ) -> Result<(), SetUpError> {
        let Some(secret) = secret else {
            return if optional == Some(true) { Ok(()) } else { Err(SetUpError::NoSecret(name.into())) };
        };
        let keys = secret.data.iter().flatten().map(|(key, bytes)| (key.as_str(), bytes.0.as_slice()));
        self.add_keys("secret", keys.collect(), items, optional, default_mode)
    }

    /// All keys, or the ones that `items` names under the paths that they name.
    fn add_keys(
        &mut self,
        kind: &'static str,
        keys: BTreeMap<&str, &[u8]>,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        default_mode: Option<i32>,
    ) -> Result<(), SetUpError> {
        match items {
            None | Some([]) => {
                for (key, content) in keys {
                    self.add(key, content.to_vec(), None, default_mode);
                }
            }
            Some(items) => {
                for item in items {
                    match keys.get(item.key.as_str()) {
                        Some(content) => self.add(&item.path, content.to_vec(), item.mode, default_mode),
                        None if optional == Some(true) => {}
                        None => return Err(SetUpError::NoKey { kind, key: item.key.clone() }),
                    }
                }
            }
        }
        Ok(())
    }

    fn add_fields(
        &mut self,
        pod: &Pod,
        items: Option<&[DownwardAPIVolumeFile]>,
        situation: &Situation,
        default_mode: Option<i32>,
    ) -> Result<(), SetUpError> {
        for item in items.unwrap_or_default() {
            let text = if let Some(field) = &item.field_ref {
                fields::field(pod, &field.field_path, situation)?
            } else if let Some(resource) = &item.resource_field_ref {
                fields::resource(pod, None, resource, situation)?
            } else {
                continue;
            };
            self.add(&item.path, text.into_bytes(), item.mode, default_mode);
        }
        Ok(())
    }
}

/// The user that all containers of the pod run as, where the spec says one.
fn single_user(pod: &Pod) -> Option<u32> {
    let spec = pod.spec.as_ref()?;
    let of_pod = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    let all = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let users = all.map(|c| c.security_context.as_ref().and_then(|context| context.run_as_user).or(of_pod));
    let users: Vec<Option<i64>> = users.collect();
    let first = *users.first()?;
    users.iter().all(|user| *user == first).then_some(first).flatten().and_then(|user| u32::try_from(user).ok())
}
