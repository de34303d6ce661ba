//! The documents of an image: index, manifest, configuration; OCI's and docker's, which differ only in media types.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};

use super::{Digest, ImageError};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
pub(crate) const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

/// How large an index, a manifest or a configuration may be.
pub(crate) const MAX_DOCUMENT: u64 = 8 << 20;

/// Missing and `null` mean the same.
fn nullable<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// What an image says about how to run it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
pub struct ImageConfig {
    #[serde(default, deserialize_with = "nullable")]
    architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    os: String,
    #[serde(default, deserialize_with = "nullable")]
    created: String,
    #[serde(default, deserialize_with = "nullable")]
    config: Process,
    #[serde(default, deserialize_with = "nullable")]
    rootfs: Rootfs,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "PascalCase")]
struct Process {
    #[serde(default, deserialize_with = "nullable")]
    user: String,
    #[serde(default, deserialize_with = "nullable")]
    exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(default, deserialize_with = "nullable")]
    env: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    cmd: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    volumes: BTreeMap<String, serde_json::Value>,
    #[serde(default, deserialize_with = "nullable")]
    working_dir: String,
    #[serde(default, deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
    #[serde(default, deserialize_with = "nullable")]
    stop_signal: String,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
struct Rootfs {
    #[serde(default, deserialize_with = "nullable")]
    diff_ids: Vec<Digest>,
}

/// The user an image names: what CRI's `Image` reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageUser {
    /// Nothing is said: root.
    Unset,
    Uid(i64),
    Name(String),
}

impl ImageConfig {
    pub(crate) fn parse(bytes: &[u8], digest: Digest) -> Result<ImageConfig, ImageError> {
        parse("image configuration", bytes, digest)
    }

    /// `NAME=value` lines.
    pub fn env(&self) -> &[String] {
        &self.config.env
    }

    pub fn entrypoint(&self) -> &[String] {
        &self.config.entrypoint
    }

    pub fn cmd(&self) -> &[String] {
        &self.config.cmd
    }

    /// What a container runs, by Kubernetes' rules: `command` replaces the entrypoint and drops the image's arguments,
    /// `args` replaces the arguments.
    pub fn command_line(&self, command: &[String], args: &[String]) -> Vec<String> {
        match (command.is_empty(), args.is_empty()) {
            (true, true) => [self.entrypoint(), self.cmd()].concat(),
            (true, false) => [self.entrypoint(), args].concat(),
            (false, _) => [command, args].concat(),
        }
    }

    /// `USER` as written: `name`, `uid`, `name:group`, `uid:gid`; empty if unset.
    pub fn user(&self) -> &str {
        &self.config.user
    }

    /// The user without the group, as CRI reports it. Upstream: containerd `getUserFromImage`.
    pub fn image_user(&self) -> ImageUser {
        match self.config.user.split(':').next().unwrap_or_default() {
            "" => ImageUser::Unset,
            user => user.parse().map_or_else(|_| ImageUser::Name(user.to_owned()), ImageUser::Uid),
        }
    }

    /// Where the process starts; empty if unset.
    pub fn working_dir(&self) -> &str {
        &self.config.working_dir
    }

    /// Such as `SIGTERM` or `15`; empty if unset.
    pub fn stop_signal(&self) -> &str {
        &self.config.stop_signal
    }

    /// Paths that the image wants as volumes.
    pub fn volumes(&self) -> impl Iterator<Item = &str> {
        self.config.volumes.keys().map(String::as_str)
    }

    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.config.labels
    }

    /// Such as `80/tcp`.
    pub fn exposed_ports(&self) -> impl Iterator<Item = &str> {
        self.config.exposed_ports.keys().map(String::as_str)
    }

    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    pub fn os(&self) -> &str {
        &self.os
    }

    /// RFC 3339; empty if unset.
    pub fn created(&self) -> &str {
        &self.created
    }

    /// The digests of the uncompressed layers, base first.
    pub(crate) fn diff_ids(&self) -> &[Digest] {
        &self.rootfs.diff_ids
    }
}

/// A pointer to content.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    #[serde(default, deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub schema_version: u32,
    #[serde(default)]
    pub media_type: String,
    pub config: Descriptor,
    pub layers: Vec<Descriptor>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    #[serde(default, deserialize_with = "nullable")]
    pub manifests: Vec<Descriptor>,
}

/// A manifest or an index, told apart by what they hold, as not all of them carry a media type.
pub(crate) enum Document {
    Manifest(Box<Manifest>),
    Index(Index),
}

impl Document {
    pub(crate) fn parse(bytes: &[u8], digest: Digest) -> Result<Document, ImageError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            #[serde(default)]
            schema_version: u32,
            manifests: Option<serde::de::IgnoredAny>,
            config: Option<serde::de::IgnoredAny>,
        }
        let probe: Probe = parse("manifest", bytes, digest)?;
        let malformed = |message: &str| ImageError::Malformed { what: "manifest", digest, message: message.to_owned() };
        match (probe.schema_version, probe.manifests.is_some(), probe.config.is_some()) {
            (2, true, false) => Ok(Document::Index(parse("index", bytes, digest)?)),
            (2, false, true) => Ok(Document::Manifest(Box::new(parse("manifest", bytes, digest)?))),
            (2, ..) => Err(malformed("neither an image nor an index")),
            (version, ..) => Err(malformed(&format!("unsupported schema version {version}"))),
        }
    }
}

impl Index {
    /// The entry for this machine. An entry without platform serves any; attestations never do.
    pub(crate) fn select(&self, digest: Digest) -> Result<&Descriptor, ImageError> {
        let architecture = host_architecture();
        let fits = |descriptor: &&Descriptor| match &descriptor.platform {
            Some(platform) => platform.os == "linux" && platform.architecture == architecture,
            None => false,
        };
        let any = |descriptor: &&Descriptor| descriptor.platform.is_none();
        let found = self.manifests.iter().find(fits).or_else(|| self.manifests.iter().find(any));
        found.ok_or(ImageError::NoPlatform { digest, architecture })
    }
}

/// Go's name of this machine's architecture.
pub(crate) fn host_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

pub(crate) fn parse<T: for<'de> Deserialize<'de>>(
    what: &'static str,
    bytes: &[u8],
    digest: Digest,
) -> Result<T, ImageError> {
    serde_json::from_slice(bytes).map_err(|error| ImageError::Malformed { what, digest, message: error.to_string() })
}

/// The names of the file systems that the layers make one upon the other. Upstream: OCI image-spec, "Layer ChainID".
pub(crate) fn chain_ids(diff_ids: &[Digest]) -> Vec<Digest> {
    let mut chain: Vec<Digest> = Vec::with_capacity(diff_ids.len());
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
            None => *diff_id,
        });
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_of_docker_and_oci_are_read() {
        let bytes = br#"{"architecture":"amd64","os":"linux","config":{"User":"33:33","Env":["A=b"],"Entrypoint":null,
            "Cmd":["sh"],"Volumes":{"/data":{}},"WorkingDir":"/w","StopSignal":"SIGINT","Labels":null},
            "rootfs":{"type":"layers","diff_ids":[]},"history":null}"#;
        let config = ImageConfig::parse(bytes, Digest::of(bytes)).unwrap();
        assert_eq!(config.env(), ["A=b"]);
        assert_eq!(config.image_user(), ImageUser::Uid(33));
        assert_eq!(config.volumes().collect::<Vec<_>>(), ["/data"]);
        assert_eq!((config.working_dir(), config.stop_signal()), ("/w", "SIGINT"));
        assert!(ImageConfig::parse(b"{}", Digest::of(b"")).unwrap().image_user() == ImageUser::Unset);
        assert!(ImageConfig::parse(b"[", Digest::of(b"")).is_err());
    }

    #[test]
    fn command_lines_follow_kubernetes() {
        let text = br#"{"config":{"Entrypoint":["e"],"Cmd":["c"]}}"#;
        let config = ImageConfig::parse(text, Digest::of(text)).unwrap();
        let words = |words: &str| words.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        for (command, args, expect) in [("", "", "e c"), ("", "a", "e a"), ("x", "", "x"), ("x", "a", "x a")] {
            assert_eq!(config.command_line(&words(command), &words(args)), words(expect));
        }
    }

    #[test]
    fn chain_ids_follow_the_image_spec() {
        let (a, b) = (Digest::of(b"a"), Digest::of(b"b"));
        assert_eq!(chain_ids(&[a, b]), [a, Digest::of(format!("{a} {b}").as_bytes())]);
        assert_eq!(chain_ids(&[]), []);
    }

    #[test]
    fn the_index_entry_for_this_machine_is_taken() {
        let d = |name: &[u8]| Digest::of(name);
        let text = format!(
            r#"{{"schemaVersion":2,"manifests":[
            {{"digest":"{}","size":1,"platform":{{"architecture":"unknown","os":"unknown"}}}},
            {{"digest":"{}","size":1,"platform":{{"architecture":"s390x","os":"linux"}}}},
            {{"digest":"{}","size":1,"platform":{{"architecture":"{}","os":"linux"}}}}]}}"#,
            d(b"attestation"),
            d(b"other"),
            d(b"mine"),
            host_architecture()
        );
        let Ok(Document::Index(mut index)) = Document::parse(text.as_bytes(), d(b"")) else { panic!() };
        assert_eq!(index.select(d(b"")).unwrap().digest, d(b"mine"));
        index.manifests.pop();
        assert_eq!(index.select(d(b"")).unwrap_err().code(), crate::image::error::Code::NotFound);
    }
}
