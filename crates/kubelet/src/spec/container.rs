//! One container. Upstream: kuberuntime generateContainerConfig.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use cri::v1::{ContainerConfig, ContainerMetadata, Image, ImageSpec, KeyValue, LinuxContainerConfig, Mount, Signal};
use k8s_openapi::api::core::v1::{Container, Pod};
use linux::cgroup::Version;

use super::{SpecError, mounts, name, namespace, resources, security, spec, uid};
use crate::config::Config;
use crate::environment::{Referred, environment};
use crate::expansion::expand;
use crate::fields::Situation;
use crate::runtime::labels;
use crate::volumes::Mounted;

/// What else a container is made from than its spec.
pub(crate) struct Ingredients<'a> {
    pub(crate) config: &'a Config,
    pub(crate) situation: &'a Situation,
    pub(crate) referred: &'a Referred,
    pub(crate) volumes: &'a BTreeMap<String, Mounted>,
    /// The ids of images that are volumes, by volume.
    pub(crate) image_volumes: &'a BTreeMap<String, String>,
    pub(crate) image: &'a Image,
    pub(crate) restart_count: i32,
    /// The pod's hosts file.
    pub(crate) hosts: PathBuf,
    /// Where the container's last words go.
    pub(crate) message: PathBuf,
    pub(crate) memory_capacity: i64,
    pub(crate) cgroup_version: Version,
    /// The container whose processes an ephemeral one sees.
    pub(crate) target: Option<&'a str>,
}

pub(crate) fn container_config(
    pod: &Pod,
    container: &Container,
    with: &Ingredients<'_>,
) -> Result<ContainerConfig, SpecError> {
    let variables = environment(pod, container, with.situation, with.referred)?;
    let lookup = |wanted: &str| variables.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone());
    let expanded = |texts: &Option<Vec<String>>| texts.iter().flatten().map(|text| expand(text, lookup)).collect();
    let pod_folder = crate::volumes::pod_folder(&with.config.root, uid(pod));
    let volumes = mounts::Volumes { mounted: with.volumes, images: with.image_volumes, pod: &pod_folder };
    let mut all_mounts = mounts::volume_mounts(container, &volumes, &variables)?;
    let own = |container_path: &str, host_path: &PathBuf| Mount {
        container_path: container_path.to_owned(),
        host_path: host_path.to_string_lossy().into_owned(),
        ..Mount::default()
    };
    if !all_mounts.iter().any(|mount| mount.container_path == "/etc/hosts") {
        all_mounts.push(own("/etc/hosts", &with.hosts));
    }
    all_mounts.push(own(message_path(container), &with.message));
    let security = security::container(pod, container, with.image, with.target, &with.config.seccomp_profiles)?;
    let resources = resources::container_resources(pod, container, with.memory_capacity, with.cgroup_version);
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata {
            name: container.name.clone(),
            attempt: u32::try_from(with.restart_count).unwrap_or(0),
        }),
        image: Some(ImageSpec {
            image: with.image.id.clone(),
            user_specified_image: container.image.clone().unwrap_or_default(),
            ..ImageSpec::default()
        }),
        command: expanded(&container.command),
        args: expanded(&container.args),
        working_dir: container.working_dir.clone().unwrap_or_default(),
        envs: variables.iter().map(|(key, value)| KeyValue { key: key.clone(), value: value.clone() }).collect(),
        mounts: all_mounts,
        devices: mounts::volume_devices(container, &volumes)?,
        labels: container_labels(pod, container),
        annotations: container_annotations(pod, container, with.restart_count),
        log_path: format!("{}/{}.log", container.name, with.restart_count),
        stdin: container.stdin == Some(true),
        stdin_once: container.stdin_once == Some(true),
        tty: container.tty == Some(true),
        linux: Some(LinuxContainerConfig { resources: Some(resources), security_context: Some(security) }),
        stop_signal: stop_signal(container).into(),
        ..ContainerConfig::default()
    })
}

fn message_path(container: &Container) -> &str {
    let given = container.termination_message_path.as_deref();
    given.filter(|path| !path.is_empty()).unwrap_or("/dev/termination-log")
}

fn stop_signal(container: &Container) -> Signal {
    let wanted = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.stop_signal.as_deref());
    wanted.and_then(Signal::from_str_name).unwrap_or(Signal::RuntimeDefault)
}

fn container_labels(pod: &Pod, container: &Container) -> HashMap<String, String> {
    [
        (labels::POD_NAME, name(pod)),
        (labels::POD_NAMESPACE, namespace(pod)),
        (labels::POD_UID, uid(pod)),
        (labels::CONTAINER_NAME, &container.name),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into()
}

fn container_annotations(pod: &Pod, container: &Container, restart_count: i32) -> HashMap<String, String> {
    let policy = container.termination_message_policy.as_deref().unwrap_or("File");
    let grace = spec(pod).termination_grace_period_seconds.unwrap_or(30);
    [
        (labels::HASH, hash(container)),
        (labels::RESTART_COUNT, restart_count.to_string()),
        (labels::MESSAGE_PATH, message_path(container).to_owned()),
        (labels::MESSAGE_POLICY, policy.to_owned()),
        (labels::GRACE, grace.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// What tells that a running container is not the one the spec asks for any more: its name or image changed.
pub(crate) fn hash(container: &Container) -> String {
    let image = container.image.as_deref().unwrap_or_default();
    let bytes = container.name.bytes().chain([0]).chain(image.bytes());
    let hash = bytes.fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("{hash:x}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::sandbox::tests::config;
    use super::*;

    #[test]
    fn a_container_is_described() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u"},
            "spec": {"enableServiceLinks": false, "containers": [{"name": "c", "image": "i", "command": ["run", "$(A)"], "args": ["$(B)", "$$(A)"],
                "env": [{"name": "A", "value": "1"}], "workingDir": "/w", "tty": true,
                "lifecycle": {"stopSignal": "SIGINT"},
                "volumeMounts": [{"name": "v", "mountPath": "/data", "readOnly": true}]}]},
        }))
        .unwrap();
        let volumes = [("v".to_owned(), Mounted { path: "/vol".into(), read_only: false })].into();
        let with = Ingredients {
            config: &config(),
            situation: &Situation::default(),
            referred: &Referred::default(),
            volumes: &volumes,
            image_volumes: &BTreeMap::new(),
            image: &Image { id: "sha256:1".into(), ..Image::default() },
            restart_count: 3,
            hosts: "/h".into(),
            message: "/t".into(),
            memory_capacity: 1,
            cgroup_version: Version::V1,
            target: None,
        };
        let found = container_config(&pod, &spec(&pod).containers[0], &with).unwrap();
        assert_eq!((found.command, found.args), (vec!["run".into(), "1".into()], vec!["$(B)".into(), "$(A)".into()]));
        assert_eq!(found.log_path, "c/3.log");
        let mounts: Vec<_> =
            found.mounts.iter().map(|m| (m.container_path.as_str(), m.host_path.as_str(), m.readonly)).collect();
        assert_eq!(
            mounts,
            [("/data", "/vol", true), ("/etc/hosts", "/h", false), ("/dev/termination-log", "/t", false)]
        );
        assert_eq!(found.image.unwrap().image, "sha256:1");
        assert_eq!(found.annotations[labels::RESTART_COUNT], "3");
        assert_eq!(found.labels[labels::CONTAINER_NAME], "c");
        assert_eq!(Signal::try_from(found.stop_signal), Ok(Signal::Sigint));
        assert!(found.tty && !found.stdin);
    }
}
