//! Images made from given files, the same bytes every time.
//!
//! ```
//! use testkit::image::{Image, Layer, Packing};
//! let image = Image::new().layer(Layer::new().file("etc/motd", 0o644, "hello\n"), Packing::Gzip).cmd(["cat", "/etc/motd"]);
//! let archive = testkit::image::oci_layout(&[("example.com/motd:1", &image)]);
//! assert_eq!(archive, testkit::image::oci_layout(&[("example.com/motd:1", &image)]));
//! ```

mod layer;

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::Digest as _;

pub use layer::Layer;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// How content is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Plain,
    Gzip,
    Zstd,
}

/// `sha256:…` of `bytes`.
pub fn digest(bytes: &[u8]) -> String {
    let hash = sha2::Sha256::digest(bytes);
    format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// `bytes` compressed, without time stamps.
pub fn pack(bytes: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => bytes.to_vec(),
        Packing::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(bytes).and_then(|()| encoder.finish()).expect("memory takes what is written")
        }
        Packing::Zstd => zstd::encode_all(bytes, 3).expect("memory takes what is written"),
    }
}

/// An image: layers and a configuration.
#[derive(Clone, Debug)]
pub struct Image {
    architecture: String,
    process: BTreeMap<String, Value>,
    layers: Vec<PackedLayer>,
}

#[derive(Clone, Debug)]
struct PackedLayer {
    media_type: &'static str,
    diff_id: String,
    tar: Vec<u8>,
    packed: Vec<u8>,
}

impl Default for Image {
    fn default() -> Image {
        Image::new()
    }
}

impl Image {
    /// An image without layers, for this machine.
    pub fn new() -> Image {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Image { architecture: architecture.to_owned(), process: BTreeMap::new(), layers: Vec::new() }
    }

    /// The Debian package `busybox-static` with a link in `/bin` for each of its programs, and the files a shell wants.
    pub fn busybox(packing: Packing) -> io::Result<Image> {
        let path = ["PATH=/bin"];
        Ok(Image::new().layer(busybox_layer()?, packing).env(path).cmd(["sh"]))
    }

    /// Adds a layer on top.
    pub fn layer(self, layer: Layer, packing: Packing) -> Image {
        self.raw_layer(layer.into_tar(), packing)
    }

    /// Adds a layer that is any bytes, archive or not.
    pub fn raw_layer(mut self, tar: Vec<u8>, packing: Packing) -> Image {
        let media_type = match packing {
            Packing::Plain => "application/vnd.oci.image.layer.v1.tar",
            Packing::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
            Packing::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        };
        self.layers.push(PackedLayer { media_type, diff_id: digest(&tar), packed: pack(&tar, packing), tar });
        self
    }

    /// Claims another digest for the last layer's uncompressed content.
    pub fn with_wrong_diff_id(mut self) -> Image {
        if let Some(layer) = self.layers.last_mut() {
            layer.diff_id = digest(b"something else");
        }
        self
    }

    /// For another machine: `amd64`, `arm64`, `s390x`.
    pub fn architecture(mut self, architecture: &str) -> Image {
        self.architecture = architecture.to_owned();
        self
    }

    pub fn env<'a>(self, env: impl IntoIterator<Item = &'a str>) -> Image {
        let env = env.into_iter().collect::<Vec<_>>();
        self.set("Env", json!(env))
    }

    pub fn cmd<'a>(self, cmd: impl IntoIterator<Item = &'a str>) -> Image {
        let cmd = cmd.into_iter().collect::<Vec<_>>();
        self.set("Cmd", json!(cmd))
    }

    pub fn entrypoint<'a>(self, entrypoint: impl IntoIterator<Item = &'a str>) -> Image {
        let entrypoint = entrypoint.into_iter().collect::<Vec<_>>();
        self.set("Entrypoint", json!(entrypoint))
    }

    pub fn user(self, user: &str) -> Image {
        self.set("User", json!(user))
    }

    /// Any member of the configuration's `config`: `WorkingDir`, `StopSignal`, `Volumes`, `ExposedPorts`.
    pub fn set(mut self, key: &str, value: Value) -> Image {
        self.process.insert(key.to_owned(), value);
        self
    }

    /// The configuration; its digest is the image's id.
    pub fn config(&self) -> Vec<u8> {
        let diff_ids: Vec<&str> = self.layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let config = json!({
            "created": "2023-11-14T22:13:20Z",
            "architecture": self.architecture,
            "os": "linux",
            "config": self.process,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        config.to_string().into_bytes()
    }

    /// The image's id.
    pub fn id(&self) -> String {
        digest(&self.config())
    }

    /// The OCI manifest.
    pub fn manifest(&self) -> Vec<u8> {
        let descriptor = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &self.config()),
            "layers": self.layers.iter().map(|layer| descriptor(layer.media_type, &layer.packed)).collect::<Vec<_>>(),
        });
        manifest.to_string().into_bytes()
    }

    /// Configuration and layers by digest.
    pub fn blobs(&self) -> BTreeMap<String, Vec<u8>> {
        let layers = self.layers.iter().map(|layer| layer.packed.clone());
        layers.chain([self.config()]).map(|bytes| (digest(&bytes), bytes)).collect()
    }

    /// The digests of the layers as transferred, base first.
    pub fn layer_digests(&self) -> Vec<String> {
        self.layers.iter().map(|layer| digest(&layer.packed)).collect()
    }
}

/// An index over images for several machines.
pub fn index(images: &[&Image]) -> Vec<u8> {
    let manifests: Vec<Value> = images.iter().map(|image| index_entry(image)).collect();
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests }).to_string().into_bytes()
}

fn index_entry(image: &Image) -> Value {
    let manifest = image.manifest();
    json!({
        "mediaType": MANIFEST,
        "digest": digest(&manifest),
        "size": manifest.len(),
        "platform": { "os": "linux", "architecture": image.architecture },
    })
}

/// An OCI image layout as a tar archive. An empty name gives an image without one.
pub fn oci_layout(images: &[(&str, &Image)]) -> Vec<u8> {
    let entries = images.iter().map(|(name, image)| {
        let mut entry = index_entry(image);
        annotate(&mut entry, name);
        entry
    });
    layout(entries.collect(), images.iter().map(|(_, image)| *image), &[])
}

/// The same with one name for images of several machines.
pub fn oci_layout_multi_platform(name: &str, images: &[&Image]) -> Vec<u8> {
    let nested = index(images);
    let mut entry = json!({ "mediaType": INDEX, "digest": digest(&nested), "size": nested.len() });
    annotate(&mut entry, name);
    layout(vec![entry], images.iter().copied(), &[nested])
}

fn annotate(entry: &mut Value, name: &str) {
    if !name.is_empty() {
        let tag = name.rsplit(':').next().unwrap_or(name);
        entry["annotations"] = json!({ "io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag });
    }
}

fn layout<'a>(entries: Vec<Value>, images: impl Iterator<Item = &'a Image>, more: &[Vec<u8>]) -> Vec<u8> {
    let mut files = BTreeMap::new();
    let blob = |bytes: &[u8]| format!("blobs/sha256/{}", &digest(bytes)["sha256:".len()..]);
    for image in images {
        for bytes in image.blobs().into_values().chain([image.manifest()]) {
            files.insert(blob(&bytes), bytes);
        }
    }
    files.extend(more.iter().map(|bytes| (blob(bytes), bytes.clone())));
    let index = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": entries });
    files.insert("index.json".to_owned(), index.to_string().into_bytes());
    files.insert("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec());
    archive(files)
}

/// What `docker save` wrote before it knew of OCI layouts.
pub fn docker_save(images: &[(&str, &Image)]) -> Vec<u8> {
    let mut files = BTreeMap::new();
    let mut manifest = Vec::new();
    for (name, image) in images {
        let config = format!("{}.json", &image.id()["sha256:".len()..]);
        let mut layers = Vec::new();
        for layer in &image.layers {
            let path = format!("{}/layer.tar", &layer.diff_id["sha256:".len()..]);
            files.insert(path.clone(), layer.tar.clone());
            layers.push(path);
        }
        let tags = if name.is_empty() { Value::Null } else { json!([name]) };
        manifest.push(json!({ "Config": config, "RepoTags": tags, "Layers": layers }));
        files.insert(config, image.config());
    }
    files.insert("manifest.json".to_owned(), Value::from(manifest).to_string().into_bytes());
    archive(files)
}

fn archive(files: BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    files.into_iter().fold(Layer::new(), |layer, (path, bytes)| layer.file(&path, 0o644, bytes)).into_tar()
}

/// The layer of [`Image::busybox`].
pub fn busybox_layer() -> io::Result<Layer> {
    let program = ["/bin/busybox", "/usr/bin/busybox"].into_iter().map(Path::new).find(|path| path.exists());
    let program = program
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "busybox: install the package busybox-static"))?;
    applets_layer(program)
}

/// A layer with the busybox `program`, a link in `/bin` for each program that it is, and the files a shell wants.
pub fn applets_layer(program: &Path) -> io::Result<Layer> {
    let listed = std::process::Command::new(program).arg("--list").output()?;
    let applets = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut layer = Layer::new()
        .dir("bin", 0o755)
        .dir("etc", 0o755)
        .dir("proc", 0o555)
        .dir("root", 0o700)
        .dir("tmp", 0o1777)
        .dir("var", 0o755)
        .file("bin/busybox", 0o755, std::fs::read(program)?)
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        .file("etc/group", 0o644, "root:x:0:\nnogroup:x:65534:\n");
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        layer = layer.symlink(&format!("bin/{applet}"), "busybox");
    }
    Ok(layer)
}

/// A layer with programs of this machine and the libraries they load, found by `ldd`, all at the paths they have here
/// (links resolved). Each program is given with the path it gets.
pub fn programs_layer(mut layer: Layer, programs: &[(&Path, &str)]) -> io::Result<Layer> {
    let mut libraries: BTreeMap<PathBuf, PathBuf> = BTreeMap::new();
    for (program, _) in programs {
        let listed = std::process::Command::new("ldd").arg(program).output()?;
        if !listed.status.success() {
            return Err(io::Error::other(format!(
                "ldd {}: {}",
                program.display(),
                String::from_utf8_lossy(&listed.stderr)
            )));
        }
        for line in String::from_utf8_lossy(&listed.stdout).lines() {
            // `name => /path (address)` or `/path (address)`.
            let path = line.split("=>").last().unwrap_or_default().trim().split(" (").next().unwrap_or_default();
            if path == "not found" {
                return Err(io::Error::new(io::ErrorKind::NotFound, line.trim().to_owned()));
            }
            if path.starts_with('/') {
                libraries.insert(path.into(), std::fs::canonicalize(path)?);
            }
        }
    }
    for (name, source) in libraries {
        layer = layer.file(&name.to_string_lossy()[1..], 0o755, std::fs::read(source)?);
    }
    for (program, target) in programs {
        layer = layer.file(target, 0o755, std::fs::read(std::fs::canonicalize(program)?)?);
    }
    Ok(layer)
}
