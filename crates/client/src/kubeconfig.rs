//! Kubeconfig: where clusters are, who we are there, and which one is meant.
//!
//! Several files are read as one, the first that says something about a name wins; changes touch only the entries they are
//! about, in the files these are in. Upstream: client-go tools/clientcmd.

mod access;
mod file;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_yaml_ng::{Mapping, Value as Yaml};

use crate::TlsError;
use file::{File, Lock};

/// The files that are read as one.
pub struct Kubeconfig {
    files: Vec<File>,
    /// Where new entries go.
    default: usize,
}

/// A cluster and how we are known there, under one name as cluster, user and context.
#[derive(Clone)]
pub struct ClusterEntry {
    pub name: String,
    pub server: String,
    /// PEM.
    pub ca: Vec<u8>,
    /// PEM.
    pub client_certificate: Vec<u8>,
    /// PEM.
    pub client_key: Vec<u8>,
}

/// What [`Kubeconfig::upsert`] found, to be given to [`Kubeconfig::remove`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Before {
    /// The context that was current, if another.
    pub current_context: Option<String>,
    /// The file, if it did not exist.
    pub created: Option<PathBuf>,
    /// Its folder, if that did not exist.
    pub created_folder: Option<PathBuf>,
}

/// Why a kubeconfig cannot be read, written or used.
#[derive(Debug, thiserror::Error)]
pub enum KubeconfigError {
    #[error("kubeconfig {path}")]
    Io { path: PathBuf, source: std::io::Error },
    #[error("kubeconfig {path} is not YAML of the expected shape")]
    Yaml { path: PathBuf, source: serde_yaml_ng::Error },
    #[error("kubeconfig {path} is no mapping")]
    Shape { path: PathBuf },
    #[error("kubeconfig is locked by another program: {path} exists")]
    Locked { path: PathBuf },
    #[error("no home folder to put a kubeconfig in: HOME is not set")]
    NoHome,
    #[error("kubeconfig has no current context")]
    NoContext,
    #[error("kubeconfig has no {kind} {name:?}")]
    Missing { kind: &'static str, name: String },
    #[error("{field} of kubeconfig's {kind} {name:?} is not base64")]
    Base64 { kind: &'static str, name: String, field: &'static str },
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Kubeconfig {
    /// The files to read: `explicit` alone, or those in `KUBECONFIG`, or `~/.kube/config`.
    pub fn locate(explicit: Option<&Path>) -> Result<Vec<PathBuf>, KubeconfigError> {
        if let Some(path) = explicit {
            return Ok(vec![path.to_owned()]);
        }
        let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
        let mut paths: Vec<PathBuf> = Vec::new();
        for path in std::env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty()) {
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        if paths.is_empty() {
            let home = std::env::var_os("HOME").filter(|home| !home.is_empty()).ok_or(KubeconfigError::NoHome)?;
            paths.push(PathBuf::from(home).join(".kube/config"));
        }
        Ok(paths)
    }

    /// Reads the files; those that do not exist are empty.
    pub fn load(paths: &[PathBuf]) -> Result<Kubeconfig, KubeconfigError> {
        let files = paths.iter().map(|path| File::read(path)).collect::<Result<Vec<_>, _>>()?;
        let default = files.iter().position(|file| file.existed).unwrap_or(files.len().saturating_sub(1));
        Ok(Kubeconfig { files, default })
    }

    /// Reads the files, edits them and writes what changed, while other programs that honour the lock keep out.
    pub fn edit<R>(paths: &[PathBuf], edit: impl FnOnce(&mut Kubeconfig) -> R) -> Result<R, KubeconfigError> {
        let _locks = paths.iter().map(|path| Lock::take(path)).collect::<Result<Vec<_>, _>>()?;
        let mut config = Kubeconfig::load(paths)?;
        let result = edit(&mut config);
        config.files.iter().try_for_each(File::write)?;
        Ok(result)
    }

    pub fn current_context(&self) -> Option<&str> {
        self.files.iter().find_map(|file| file.text("current-context"))
    }

    /// Makes `name` the current context.
    pub fn set_current_context(&mut self, name: &str) {
        let holder = self.files.iter().position(|file| file.text("current-context").is_some());
        self.files[holder.unwrap_or(self.default)].set("current-context", name);
    }

    pub fn has_context(&self, name: &str) -> bool {
        self.entry("contexts", name).is_some()
    }

    /// The server's URL of the cluster `name`.
    pub fn cluster_server(&self, name: &str) -> Option<&str> {
        self.entry("clusters", name)?.1.get("cluster")?.get("server")?.as_str()
    }

    /// The client certificate (PEM) that the user `name` shows, if the kubeconfig itself holds one.
    pub fn client_certificate(&self, name: &str) -> Option<Vec<u8>> {
        let text = self.entry("users", name)?.1.get("user")?.get("client-certificate-data")?.as_str()?;
        file::from_base64(text)
    }

    /// Gives the user of the entry its certificate and key; what is current stays so.
    pub fn renew(&mut self, entry: &ClusterEntry) {
        let user = [
            ("client-certificate-data", file::base64(&entry.client_certificate)),
            ("client-key-data", file::base64(&entry.client_key)),
        ];
        self.put("users", "user", &entry.name, &user);
    }

    /// Writes the entry's cluster, user and context, makes it current, and says how it was before.
    pub fn upsert(&mut self, entry: &ClusterEntry) -> Before {
        let current = self.current_context().filter(|current| *current != entry.name).map(str::to_owned);
        let file = &self.files[self.default];
        let created = (!file.existed).then(|| file.path.clone());
        let folder = created.as_deref().and_then(Path::parent).filter(|folder| !folder.exists());
        let before = Before { current_context: current, created_folder: folder.map(Path::to_owned), created };
        let data = |pem: &[u8]| file::base64(pem);
        let cluster = [("certificate-authority-data", data(&entry.ca)), ("server", entry.server.clone())];
        self.put("clusters", "cluster", &entry.name, &cluster);
        self.renew(entry);
        let context = [("cluster", entry.name.clone()), ("user", entry.name.clone())];
        self.put("contexts", "context", &entry.name, &context);
        self.set_current_context(&entry.name);
        before
    }

    /// Takes away cluster, user and context `name`; if it is current, the context from before is again, where it still exists.
    /// A file that [`Kubeconfig::upsert`] created goes if nothing else is in it.
    pub fn remove(&mut self, name: &str, before: &Before) {
        for list in ["clusters", "users", "contexts"] {
            self.files.iter_mut().for_each(|file| file.remove_entry(list, name));
        }
        if self.current_context() == Some(name) {
            let previous = before.current_context.as_deref().filter(|previous| self.has_context(previous));
            let previous = previous.unwrap_or_default().to_owned();
            for file in self.files.iter_mut().filter(|file| file.text("current-context") == Some(name)) {
                file.set("current-context", &previous);
            }
        }
        for file in self.files.iter_mut().filter(|file| before.created.as_ref() == Some(&file.path)) {
            file.remove_if_empty(before.created_folder.clone());
        }
    }

    fn entry(&self, list: &str, name: &str) -> Option<(&File, &Mapping)> {
        self.files.iter().find_map(|file| Some((file, file.entry(list, name)?)))
    }

    /// Sets fields of an entry's part, where the entry is or else in the default file; its other fields stay.
    fn put(&mut self, list: &str, part: &str, name: &str, fields: &[(&str, String)]) {
        let holder = self.files.iter().position(|file| file.entry(list, name).is_some());
        let entry = self.files[holder.unwrap_or(self.default)].entry_mut(list, name);
        let part = entry.entry(part.into()).or_insert_with(|| Yaml::Mapping(Mapping::new()));
        if !part.is_mapping() {
            *part = Yaml::Mapping(Mapping::new());
        }
        for (field, text) in fields {
            part[*field] = Yaml::String(text.clone());
        }
    }
}

#[cfg(test)]
mod tests;
