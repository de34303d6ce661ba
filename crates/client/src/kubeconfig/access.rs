//! From a context to what a transport needs.

use std::path::Path;

use base64::Engine;
use serde_yaml_ng::{Mapping, Value as Yaml};

use super::{Kubeconfig, KubeconfigError};
use crate::{TlsConfig, Token};

/// One entry's part, and the folder that its file names are relative to.
struct Part<'a> {
    kind: &'static str,
    name: &'a str,
    fields: &'a Mapping,
    folder: &'a Path,
}

impl Kubeconfig {
    /// How to reach the cluster of `context` (`None`: the current one) as its user.
    pub fn access(&self, context: Option<&str>) -> Result<TlsConfig, KubeconfigError> {
        let context = context.or_else(|| self.current_context()).ok_or(KubeconfigError::NoContext)?;
        let context = self.part("contexts", "context", context)?;
        let cluster = self.part("clusters", "cluster", context.text("cluster").unwrap_or_default())?;
        let user = match context.text("user") {
            Some(user) => Some(self.part("users", "user", user)?),
            None => None,
        };
        let mut config = TlsConfig {
            server: cluster.text("server").unwrap_or_default().to_owned(),
            ca: cluster.data("certificate-authority-data", "certificate-authority")?.unwrap_or_default(),
            insecure: cluster.fields.get("insecure-skip-tls-verify").and_then(Yaml::as_bool).unwrap_or_default(),
            server_name: cluster.text("tls-server-name").map(str::to_owned),
            identity: None,
            token: None,
        };
        if let Some(user) = user {
            let certificate = user.data("client-certificate-data", "client-certificate")?;
            config.identity = certificate.zip(user.data("client-key-data", "client-key")?);
            let token = user.text("token").map(|token| Token::Static(token.to_owned()));
            config.token = token.or_else(|| Some(Token::File(user.folder.join(user.text("tokenFile")?))));
        }
        Ok(config)
    }

    /// The namespace of `context` (`None`: the current one), `default` where it names none.
    pub fn namespace(&self, context: Option<&str>) -> String {
        let context = context.or_else(|| self.current_context()).unwrap_or_default();
        let part = self.part("contexts", "context", context);
        part.ok().and_then(|part| part.text("namespace").map(str::to_owned)).unwrap_or_else(|| "default".to_owned())
    }

    fn part<'a>(&'a self, list: &str, kind: &'static str, name: &'a str) -> Result<Part<'a>, KubeconfigError> {
        let missing = || KubeconfigError::Missing { kind, name: name.to_owned() };
        let (file, entry) = self.entry(list, name).ok_or_else(missing)?;
        let fields = entry.get(kind).and_then(Yaml::as_mapping).ok_or_else(missing)?;
        Ok(Part { kind, name, fields, folder: file.path.parent().unwrap_or(Path::new("")) })
    }
}

impl Part<'_> {
    fn text(&self, field: &str) -> Option<&str> {
        self.fields.get(field)?.as_str().filter(|text| !text.is_empty())
    }

    /// What stands in the entry itself, or else in the file that it names.
    fn data(&self, inline: &'static str, file: &str) -> Result<Option<Vec<u8>>, KubeconfigError> {
        if let Some(text) = self.text(inline) {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text.trim());
            let wrong = |_| KubeconfigError::Base64 { kind: self.kind, name: self.name.to_owned(), field: inline };
            return bytes.map(Some).map_err(wrong);
        }
        let Some(file) = self.text(file) else { return Ok(None) };
        let path = self.folder.join(file);
        std::fs::read(&path).map(Some).map_err(|source| KubeconfigError::Io { path, source })
    }
}
