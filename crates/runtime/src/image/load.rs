//! Images from archives: what `docker save` writes, and OCI image layouts.
//!
//! The archive is streamed into a temporary folder; nothing of it is believed before it has been hashed, and no image gets
//! its name before all of them are whole.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;

use super::catalog;
use super::compression::decompress;
use super::config::{
    Descriptor, Document, ImageConfig, Index, MAX_DOCUMENT, Manifest, OCI_CONFIG, OCI_LAYER, OCI_MANIFEST, chain_ids,
    host_architecture, parse,
};
use super::digest::Hashing;
use super::error::At;
use super::tarball::{Kind, Tarball};
use super::trash::Trash;
use super::{Digest, ImageError, Inner, Reference};

/// An image that an archive brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    pub id: Digest,
    /// Its names in the archive, normalised; none for an image saved by id.
    pub references: Vec<String>,
}

/// How many files an archive may have: an image is a handful.
const MAX_FILES: usize = 100_000;

pub(crate) fn load(store: &Arc<Inner>, archive: impl Read) -> Result<Vec<Loaded>, ImageError> {
    let archive = Archive::read(store, archive)?;
    let images = match (archive.file("index.json"), archive.file("manifest.json")) {
        (Some(index), _) => archive.oci_images(index)?,
        (None, Some(manifest)) => archive.docker_images(manifest)?,
        (None, None) => return Err(ImageError::Archive("neither index.json nor manifest.json found".to_owned())),
    };
    if images.is_empty() {
        return Err(ImageError::Archive("no image found".to_owned()));
    }
    let mut records = Vec::new();
    let mut loaded: Vec<Loaded> = Vec::new();
    let mut pins = Vec::new();
    for image in images {
        pins.push(store.pin(image.pinned()));
        for n in 0..image.chain.len() {
            store.unpack(&image.layers[n], image.diff_ids[n], &image.chain[..=n])?;
        }
        let (manifest, id) = (Digest::of(&image.manifest), Digest::of(&image.config));
        store.blobs.put(&image.manifest, manifest)?;
        store.blobs.put(&image.config, id)?;
        match loaded.iter_mut().find(|loaded| loaded.id == id) {
            Some(known) => known.references.extend(image.references.clone()),
            None => loaded.push(Loaded { id, references: image.references.clone() }),
        }
        records.push(catalog::Record {
            id,
            manifest,
            tags: image.references,
            digests: Vec::new(),
            size: image.size,
            layers: image.chain,
            last_used: store.config.env.now().as_second(),
        });
    }
    store.record(records)?;
    Ok(loaded)
}

/// An image ready to be unpacked.
struct Found {
    references: Vec<String>,
    manifest: Vec<u8>,
    config: Vec<u8>,
    size: u64,
    layers: Vec<PathBuf>,
    diff_ids: Vec<Digest>,
    chain: Vec<Digest>,
}

impl Found {
    fn pinned(&self) -> Vec<Digest> {
        let mut all = self.chain.clone();
        all.extend([Digest::of(&self.manifest), Digest::of(&self.config)]);
        all
    }
}

/// A file of the archive, where it was put.
#[derive(Clone)]
struct Member {
    path: PathBuf,
    digest: Digest,
    size: u64,
}

/// What the archive holds, by name.
struct Archive<'a> {
    files: HashMap<String, Member>,
    links: HashMap<String, String>,
    _folder: Folder<'a>,
}

/// A temporary folder.
struct Folder<'a> {
    path: PathBuf,
    trash: &'a Trash,
}

impl Drop for Folder<'_> {
    fn drop(&mut self) {
        if self.trash.take(&self.path).and_then(|()| self.trash.empty()).is_err() {
            tracing::warn!(path = %self.path.display(), "left an archive's content for the next start to remove");
        }
    }
}

fn invalid(error: io::Error) -> ImageError {
    ImageError::Archive(error.to_string())
}

impl<'a> Archive<'a> {
    fn read(store: &'a Inner, archive: impl Read) -> Result<Archive<'a>, ImageError> {
        let path = store.root().join(format!("ingest/load-{:016x}", store.config.env.random_u64()));
        fs::create_dir(&path).at("create", &path)?;
        let folder = Folder { path, trash: &store.trash };
        let (mut files, mut links) = (HashMap::new(), HashMap::new());
        let mut tarball = Tarball::new(decompress(archive).map_err(invalid)?);
        let mut buffer = vec![0; 128 << 10];
        let mut bytes = 0;
        while let Some(entry) = tarball.next_entry().map_err(invalid)? {
            let name = String::from_utf8_lossy(&entry.path).into_owned();
            let name =
                join("", &name).ok_or_else(|| ImageError::Archive(format!("path {name:?} leaves the archive")))?;
            if files.len() + links.len() >= MAX_FILES {
                return Err(ImageError::Archive(format!("more than {MAX_FILES} files")));
            }
            let link = String::from_utf8_lossy(&entry.link).into_owned();
            match entry.kind {
                Kind::File => {
                    bytes += entry.size;
                    let limit = store.config.limits.bytes;
                    if bytes > limit {
                        return Err(ImageError::TooLarge { what: "image archive", size: bytes, limit });
                    }
                    let path = folder.path.join(files.len().to_string());
                    let file = File::create_new(&path).at("create", &path)?;
                    let said = name.strip_prefix("blobs/sha512/").and_then(|hex| Digest::from_hex(hex).ok());
                    let mut file = match said {
                        Some(digest) => Hashing::expecting(file, digest),
                        None => Hashing::new(file),
                    };
                    loop {
                        match tarball.read(&mut buffer) {
                            Ok(0) => break,
                            Ok(n) => file.write_all(&buffer[..n]).at("write", &path)?,
                            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                            Err(error) => return Err(invalid(error)),
                        }
                    }
                    let (_, digest, size) = file.finish();
                    links.remove(&name);
                    files.insert(name, Member { path, digest, size });
                }
                // Old dockers save a layer that several images share once, and link to it.
                Kind::Symlink => {
                    let parent = Path::new(&name).parent().and_then(Path::to_str).unwrap_or("");
                    links.extend(join(parent, &link).map(|target| (name, target)));
                }
                Kind::HardLink => links.extend(join("", &link).map(|target| (name, target))),
                Kind::Directory => {}
                Kind::Char | Kind::Block | Kind::Fifo => {
                    return Err(ImageError::Archive(format!("{name:?} is neither file nor link")));
                }
            }
        }
        // To the very end: what a compressor checks last would else go unseen.
        io::copy(&mut tarball.into_inner(), &mut io::sink()).map_err(invalid)?;
        Ok(Archive { files, links, _folder: folder })
    }

    fn file(&self, name: &str) -> Option<&Member> {
        let mut name = join("", name)?;
        for _ in 0..8 {
            match self.links.get(&name) {
                Some(target) => name = target.clone(),
                None => break,
            }
        }
        self.files.get(&name)
    }

    fn require(&self, name: &str) -> Result<&Member, ImageError> {
        self.file(name).ok_or_else(|| ImageError::Archive(format!("{name} is missing")))
    }

    /// The blob of an OCI layout, whose name must be its digest.
    fn blob(&self, digest: Digest) -> Result<&Member, ImageError> {
        let member = self.require(&format!("blobs/{}/{}", digest.algorithm(), digest.hex()))?;
        match member.digest == digest {
            true => Ok(member),
            false => Err(ImageError::WrongDigest { expected: digest, actual: member.digest }),
        }
    }

    fn oci_images(&self, index: &Member) -> Result<Vec<Found>, ImageError> {
        let top: Index = parse("index", &document(index)?, index.digest)?;
        let mut found = Vec::new();
        let mut unfit = None;
        for descriptor in &top.manifests {
            let elsewhere = descriptor
                .platform
                .as_ref()
                .is_some_and(|platform| platform.os != "linux" || platform.architecture != host_architecture());
            if elsewhere {
                unfit = Some(ImageError::NoPlatform { digest: index.digest, architecture: host_architecture() });
                continue;
            }
            let member = self.blob(descriptor.digest)?;
            let (manifest, bytes) = match Document::parse(&document(member)?, member.digest)? {
                Document::Manifest(manifest) => (*manifest, document(member)?),
                Document::Index(nested) => {
                    let chosen = self.blob(nested.select(member.digest)?.digest)?;
                    (parse::<Manifest>("manifest", &document(chosen)?, chosen.digest)?, document(chosen)?)
                }
            };
            let config = self.blob(manifest.config.digest)?;
            let layers = manifest.layers.iter().map(|layer| self.blob(layer.digest)).collect::<Result<Vec<_>, _>>()?;
            found.push(image(names(descriptor), bytes, config, &layers)?);
        }
        match (found.is_empty(), unfit) {
            (true, Some(unfit)) => Err(unfit),
            _ => Ok(found),
        }
    }

    fn docker_images(&self, manifest: &Member) -> Result<Vec<Found>, ImageError> {
        #[derive(Deserialize)]
        #[serde(rename_all = "PascalCase")]
        struct Saved {
            config: String,
            repo_tags: Option<Vec<String>>,
            layers: Option<Vec<String>>,
        }
        let saved: Vec<Saved> = parse("manifest.json", &document(manifest)?, manifest.digest)?;
        let mut found = Vec::new();
        for saved in saved {
            let config = self.require(&saved.config)?;
            // The file is called by its digest.
            let stem = Path::new(&saved.config).file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            match Digest::from_hex(stem) {
                Ok(expected) if expected != config.digest => {
                    return Err(ImageError::WrongDigest { expected, actual: config.digest });
                }
                _ => {}
            }
            let layers = saved.layers.unwrap_or_default();
            let layers = layers.iter().map(|name| self.require(name)).collect::<Result<Vec<_>, _>>()?;
            let mut references = Vec::new();
            for tag in saved.repo_tags.unwrap_or_default() {
                references.push(tag.parse::<Reference>()?.to_string());
            }
            let descriptor = |media_type: &str, member: &Member| Descriptor {
                media_type: media_type.to_owned(),
                digest: member.digest,
                size: member.size,
                platform: None,
                annotations: Default::default(),
            };
            let manifest = Manifest {
                schema_version: 2,
                media_type: OCI_MANIFEST.to_owned(),
                config: descriptor(OCI_CONFIG, config),
                layers: layers.iter().map(|layer| descriptor(OCI_LAYER, layer)).collect(),
            };
            let manifest = serde_json::to_vec(&manifest).expect("a manifest of strings and numbers serialises");
            found.push(image(references, manifest, config, &layers)?);
        }
        Ok(found)
    }
}

fn image(references: Vec<String>, manifest: Vec<u8>, config: &Member, layers: &[&Member]) -> Result<Found, ImageError> {
    let size = manifest.len() as u64 + config.size + layers.iter().map(|layer| layer.size).sum::<u64>();
    let bytes = document(config)?;
    let diff_ids = ImageConfig::parse(&bytes, config.digest)?.diff_ids().to_vec();
    if diff_ids.len() != layers.len() {
        let message = format!("{} layers in the manifest, {} diff ids", layers.len(), diff_ids.len());
        return Err(ImageError::Malformed { what: "image configuration", digest: config.digest, message });
    }
    Ok(Found {
        references,
        manifest,
        config: bytes,
        size,
        layers: layers.iter().map(|layer| layer.path.clone()).collect(),
        chain: chain_ids(&diff_ids),
        diff_ids,
    })
}

/// The names an index gives an image: containerd's annotation is a whole one, OCI's may be a tag alone, which names nothing.
fn names(descriptor: &Descriptor) -> Vec<String> {
    let annotation = |key: &str| descriptor.annotations.get(key).filter(|name| !name.is_empty());
    let whole = annotation("io.containerd.image.name");
    let name =
        whole.or_else(|| annotation("org.opencontainers.image.ref.name").filter(|name| name.contains(['/', ':'])));
    name.and_then(|name| name.parse::<Reference>().ok()).map(|name| name.to_string()).into_iter().collect()
}

fn document(member: &Member) -> Result<Vec<u8>, ImageError> {
    if member.size > MAX_DOCUMENT {
        return Err(ImageError::TooLarge { what: "document", size: member.size, limit: MAX_DOCUMENT });
    }
    fs::read(&member.path).at("read", &member.path)
}

/// `path` as seen from `folder`, without `.` and `..`; `None` if it climbs out.
fn join(folder: &str, path: &str) -> Option<String> {
    let from = if path.starts_with('/') { "" } else { folder };
    let mut parts: Vec<&str> = Vec::new();
    for part in from.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}
