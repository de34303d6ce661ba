//! The images that upstream's suite names, under their upstream names.
//!
//! Programs of upstream's own come from their Go modules (see `peers`), all else from Debian packages. What is in an image follows from what
//! the specs run in it, not from upstream's base images.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::json;
use testkit::image::{self, Image, Layer, Packing, applets_layer, digest, oci_layout};

use super::busybox;
use super::debian::{self, Tree};
use crate::peers;

/// What the images' tools come from.
const PACKAGES: &[&str] = &[
    "bash",
    "bind9-dnsutils",
    "bind9-host",
    "curl",
    "iperf",
    "iproute2",
    "libc-bin",
    "netcat-openbsd",
    "nginx",
    "stress",
    "util-linux",
];

/// What specs call in `agnhost`, besides busybox's programs.
const TOOLS: &[(&str, &str)] = &[
    ("bin/bash", "bin/bash"),
    ("bin/nc.openbsd", "bin/nc"),
    ("bin/ss", "bin/ss"),
    ("sbin/ip", "sbin/ip"),
    ("usr/bin/curl", "usr/bin/curl"),
    ("usr/bin/dig", "usr/bin/dig"),
    ("usr/bin/getent", "usr/bin/getent"),
    ("usr/bin/host", "usr/bin/host"),
    ("usr/bin/iperf", "usr/bin/iperf"),
    ("usr/bin/nslookup", "usr/bin/nslookup"),
];

/// `jessie-dnsutils` stands for an old Debian, with glibc's resolver.
const DNS_TOOLS: &[(&str, &str)] = &[
    ("bin/bash", "bin/bash"),
    ("usr/bin/dig", "usr/bin/dig"),
    ("usr/bin/getent", "usr/bin/getent"),
    ("usr/bin/host", "usr/bin/host"),
    ("usr/bin/nslookup", "usr/bin/nslookup"),
];

const IPC_TOOLS: &[(&str, &str)] = &[("usr/bin/ipcmk", "usr/bin/ipcmk"), ("usr/bin/ipcs", "usr/bin/ipcs")];

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What decides how images come out, besides programs and packages.
const RECIPES: [&str; 3] = [include_str!("upstream.rs"), include_str!("busybox.rs"), include_str!("debian.rs")];

/// Makes the archive with all of them in `target/images`, unless it is there as it should be, and says where it is.
pub fn archive(root: &Path) -> Result<PathBuf> {
    peers::build(root, peers::OF_IMAGES)?;
    let cache = testkit::peers::folder().join("images");
    fs::create_dir_all(&cache).with_context(|| format!("creating {}", cache.display()))?;
    let lock = fs::File::create(cache.join(".lock")).context("creating the lock of the images' folder")?;
    lock.lock().context("locking the images' folder")?;
    let made_of = digest((peers::made_of(root, peers::OF_IMAGES)? + &RECIPES.concat()).as_bytes());
    let (made, stamp) = (cache.join("upstream.tar"), cache.join("upstream.stamp"));
    if !made.exists() || fs::read_to_string(&stamp).unwrap_or_default() != made_of {
        eprintln!("making upstream's images");
        let images = all(root, &cache)?;
        let named: Vec<(&str, &Image)> = images.iter().map(|(name, image)| (name.as_str(), image)).collect();
        let new = cache.join("upstream.tar.new");
        fs::write(&new, oci_layout(&named))
            .and_then(|()| fs::rename(&new, &made))
            .and_then(|()| fs::write(&stamp, &made_of))
            .with_context(|| format!("writing {}", made.display()))?;
        for (name, image) in &images {
            eprintln!("{name}\t{}", image.id());
        }
    }
    let folder = root.join("target/images");
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let path = folder.join("upstream.tar");
    if !same_file(&made, &path) {
        let new = folder.join("upstream.tar.new");
        let _ = fs::remove_file(&new);
        fs::hard_link(&made, &new)
            .or_else(|_| fs::copy(&made, &new).map(drop))
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(path)
}

fn same_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let identity = |path: &Path| fs::metadata(path).map(|found| (found.dev(), found.ino())).ok();
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// Every image with its name.
fn all(root: &Path, cache: &Path) -> Result<Vec<(String, Image)>> {
    debian::update()?;
    let busybox = busybox::build(cache)?;
    let unpacked = tempfile::tempdir().context("making a temporary folder")?;
    let parts = Parts {
        tree: Tree::unpack(PACKAGES, &cache.join("debian"), unpacked.path())?,
        sources: peers::sources(root)?.join("test/images"),
        base: Image::new().layer(base(&busybox)?, Packing::Zstd).env([PATH]).cmd(["sh"]),
    };
    let pause = parts.pause()?;
    let agnhost = parts.agnhost(&pause)?;
    let nginx = parts.nginx()?;
    let named = [
        ("agnhost:2.59", agnhost.clone()),
        ("agnhost:2.55", marked(agnhost.clone(), "2.55")),
        ("busybox:1.37.0-1", parts.base.clone()),
        ("ipc-utils:1.3", parts.with_tools(IPC_TOOLS)?),
        ("jessie-dnsutils:1.7", parts.with_tools(DNS_TOOLS)?),
        ("kitten:1.7", parts.pictured(&agnhost, "kitten")?),
        ("nautilus:1.7", parts.pictured(&agnhost, "nautilus")?),
        ("nginx:1.14-4", nginx.clone()),
        ("nginx:1.15-4", marked(nginx, "1.15")),
        ("nonewprivs:1.3", parts.nonewprivs()?),
        ("nonroot:1.4", parts.base.clone().user("1234")),
        ("resource-consumer:1.13", parts.resource_consumer()?),
        ("sample-apiserver:1.29.2", parts.sample_apiserver()?),
    ];
    let mut images: Vec<(String, Image)> =
        named.into_iter().map(|(name, image)| (format!("registry.k8s.io/e2e-test-images/{name}"), image)).collect();
    images.push(("registry.k8s.io/etcd:3.6.6-0".to_owned(), parts.etcd()?));
    images.push(("registry.k8s.io/pause:3.10.1".to_owned(), pause));
    Ok(images)
}

/// Another image with the same content: specs replace one by the other and look which one runs.
fn marked(image: Image, version: &str) -> Image {
    image.set("Labels", json!({ "version": version }))
}

/// busybox, and the folders and files that a shell and glibc's resolver want.
fn base(busybox: &Path) -> Result<Layer> {
    let layer = applets_layer(busybox).with_context(|| format!("reading {}", busybox.display()))?;
    let folders =
        ["home", "run", "sbin", "usr", "usr/bin", "usr/local", "usr/local/bin", "usr/sbin", "var/log", "var/run"];
    let layer = folders.iter().fold(layer, |layer, folder| layer.dir(folder, 0o755));
    Ok(layer.file("etc/nsswitch.conf", 0o644, "passwd: files\ngroup: files\nhosts: files dns\n"))
}

/// What images are made of.
struct Parts {
    tree: Tree,
    /// Upstream's folder with the files of its images.
    sources: PathBuf,
    /// The image `busybox`, which is under most others.
    base: Image,
}

impl Parts {
    fn with_tools(&self, tools: &[(&str, &str)]) -> Result<Image> {
        Ok(self.base.clone().layer(self.tree.programs(Layer::new(), tools)?, Packing::Zstd))
    }

    fn source(&self, path: &str) -> Result<Vec<u8>> {
        let path = self.sources.join(path);
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    }

    fn pause(&self) -> Result<Image> {
        let layer = Layer::new().file("pause", 0o755, peer("pause")?);
        Ok(Image::new().layer(layer, Packing::Zstd).env([PATH]).entrypoint(["/pause"]).user("65535:65535"))
    }

    /// Its program is many; specs also look up users and groups in it, link to it by another name, and pull `pause` from the registry
    /// that it can be.
    fn agnhost(&self, pause: &Image) -> Result<Image> {
        let users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n\
                     user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n";
        let groups = "root:x:0:\nnogroup:x:65534:\nuser-defined-in-image:x:1000:\n\
                      group-defined-in-image:x:50000:user-defined-in-image\n";
        let files = Layer::new()
            .file("agnhost", 0o755, peer("agnhost")?)
            .symlink("agnhost-2", "agnhost")
            .dir("uploads", 0o755)
            .file("localhost.crt", 0o644, self.source("agnhost/porter/localhost.crt")?)
            .file("localhost.key", 0o644, self.source("agnhost/porter/localhost.key")?)
            .file("etc/passwd", 0o644, users)
            .file("etc/group", 0o644, groups);
        let ports = json!({ "80/tcp": {}, "5000/tcp": {}, "8080/tcp": {}, "8081/tcp": {}, "9376/tcp": {} });
        Ok(self
            .with_tools(TOOLS)?
            .layer(registry(files, "pause", "testing", pause), Packing::Zstd)
            .set("ExposedPorts", ports)
            .entrypoint(["/agnhost"])
            .cmd(["pause"]))
    }

    /// agnhost as a web server with a picture.
    fn pictured(&self, agnhost: &Image, name: &str) -> Result<Image> {
        let layer = ["data.json".to_owned(), format!("{name}.jpg")].iter().try_fold(Layer::new(), |layer, file| {
            anyhow::Ok(layer.file(file, 0o644, self.source(&format!("{name}/html/{file}"))?))
        })?;
        Ok(agnhost.clone().layer(layer, Packing::Zstd).cmd(["test-webserver"]))
    }

    fn nginx(&self) -> Result<Image> {
        let config = "user nginx;\nworker_processes 1;\npid /run/nginx.pid;\nerror_log /dev/stderr notice;\n\
                      events { worker_connections 256; }\n\
                      http {\n  types { text/html html; }\n  access_log /dev/stdout;\n\
                      server { listen 80; root /usr/share/nginx/html; index index.html; }\n}\n";
        let page = "<!DOCTYPE html>\n<html><head><title>Welcome to nginx!</title></head>\n\
                    <body><h1>Welcome to nginx!</h1></body></html>\n";
        let files = Layer::new()
            .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nnginx:x:101:101:nginx:/:/bin/false\n")
            .file("etc/group", 0o644, "root:x:0:\nnginx:x:101:\n")
            .file("etc/nginx/nginx.conf", 0o644, config)
            .file("usr/share/nginx/html/index.html", 0o644, page)
            .dir("var/lib/nginx", 0o755)
            .dir("var/log/nginx", 0o755)
            .symlink("var/log/nginx/error.log", "/dev/stderr");
        let layer = self.tree.programs(files, &[("usr/sbin/nginx", "usr/sbin/nginx")])?;
        Ok(self
            .base
            .clone()
            .layer(layer, Packing::Zstd)
            .set("ExposedPorts", json!({ "80/tcp": {} }))
            .set("StopSignal", json!("SIGQUIT"))
            .cmd(["nginx", "-g", "daemon off;"]))
    }

    /// Its program is root's whoever runs it, unless the kernel is told that nobody gains rights.
    fn nonewprivs(&self) -> Result<Image> {
        let layer = Layer::new().file("usr/local/bin/nnp", 0o6755, peer("nonewprivs")?);
        Ok(self.base.clone().layer(layer, Packing::Zstd).cmd(["nnp"]))
    }

    fn resource_consumer(&self) -> Result<Image> {
        let files = Layer::new().file("consumer", 0o755, peer("resource-consumer")?).file(
            "consume-cpu",
            0o755,
            peer("consume-cpu")?,
        );
        let layer = self.tree.programs(files, &[("usr/bin/stress", "usr/bin/stress")])?;
        let image = self.base.clone().layer(layer, Packing::Zstd).set("ExposedPorts", json!({ "8080/tcp": {} }));
        Ok(image.entrypoint(["/consumer"]).set("Cmd", json!([])))
    }

    fn sample_apiserver(&self) -> Result<Image> {
        let layer = Layer::new().file("sample-apiserver", 0o755, peer("sample-apiserver")?);
        let image = self.base.clone().layer(layer, Packing::Zstd);
        Ok(image.entrypoint(["/sample-apiserver"]).set("Cmd", json!([])))
    }

    fn etcd(&self) -> Result<Image> {
        let layer = Layer::new().file("usr/local/bin/etcd", 0o755, peer("etcd")?);
        Ok(self.base.clone().layer(layer, Packing::Zstd).cmd(["/usr/local/bin/etcd"]))
    }
}

fn peer(name: &str) -> Result<Vec<u8>> {
    let path = testkit::peers::path(name);
    fs::read(&path).with_context(|| format!("reading {}", path.display()))
}

/// An image as agnhost's own registry serves it, from files below `/var/registry`.
fn registry(layer: Layer, name: &str, tag: &str, image: &Image) -> Layer {
    let index = image::index(&[image]);
    let manifest = image.manifest();
    let folder = format!("var/registry/{name}");
    let (manifests, blobs) = (format!("{folder}/manifests"), format!("{folder}/blobs"));
    let mut layer = layer.dir("var/registry", 0o755).dir(&folder, 0o755).dir(&manifests, 0o755).dir(&blobs, 0o755);
    layer = layer.file(&format!("{manifests}/{tag}"), 0o644, digest(&index));
    for content in [index, manifest] {
        layer = layer.file(&format!("{manifests}/{}", digest(&content)), 0o644, content);
    }
    for (digest, content) in image.blobs() {
        layer = layer.file(&format!("{blobs}/{digest}"), 0o644, content);
    }
    layer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_version_replaces_another() {
        let image = Image::new().layer(Layer::new().file("a", 0o644, "a"), Packing::Plain);
        let other = marked(image.clone(), "2");
        assert_ne!(image.id(), other.id());
        assert_eq!(image.layer_digests(), other.layer_digests());
    }

    #[test]
    fn the_registry_answers_what_it_points_to() {
        let image = Image::new().layer(Layer::new().file("pause", 0o755, "program"), Packing::Zstd);
        let tar = registry(Layer::new(), "pause", "testing", &image).into_tar();
        let holds = |text: &str| tar.windows(text.len()).any(|window| window == text.as_bytes());
        let index = digest(&image::index(&[&image]));
        let manifest = digest(&image.manifest());
        let (blob, config) = (image.layer_digests()[0].clone(), image.id());
        for path in [
            "var/registry/pause/manifests/testing".to_owned(),
            format!("var/registry/pause/manifests/{index}"),
            format!("var/registry/pause/manifests/{manifest}"),
            format!("var/registry/pause/blobs/{blob}"),
            format!("var/registry/pause/blobs/{config}"),
        ] {
            assert!(holds(&path), "{path}");
        }
    }

    #[test]
    fn a_link_is_the_same_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), "a").unwrap();
        fs::write(path("b"), "a").unwrap();
        fs::hard_link(path("a"), path("c")).unwrap();
        assert!(same_file(&path("a"), &path("c")));
        assert!(!same_file(&path("a"), &path("b")));
        assert!(!same_file(&path("a"), &path("none")));
    }
}
