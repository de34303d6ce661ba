//! RuntimeClass handlers: which OCI runtime's program makes a pod's containers.
//!
//! No handler means the embedded runtime. As with upstream's runtimes, `runc` and `crun` can be asked for without any
//! configuration where they are installed; they are looked for when a pod wants them, and nothing is run before.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// Handlers that need no configuration, by the name of their program.
const KNOWN: [&str; 2] = ["crun", "runc"];

/// Where programs are looked for; what the daemon's own `PATH` says does not count.
const FOLDERS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The programs by handler.
pub(crate) struct Handlers {
    configured: BTreeMap<String, PathBuf>,
}

impl Handlers {
    pub(crate) fn new(configured: BTreeMap<String, PathBuf>) -> Handlers {
        Handlers { configured }
    }

    /// The program of the handler called `name`; none for the embedded runtime.
    pub(crate) fn program(&self, name: &str) -> Result<Option<PathBuf>, Error> {
        if name.is_empty() {
            return Ok(None);
        }
        let found = self.all().remove(name);
        found.map(Some).ok_or_else(|| {
            Error::State(format!("failed to get sandbox runtime: no runtime for {name:?} is configured"))
        })
    }

    /// Every handler but the embedded runtime.
    pub(crate) fn all(&self) -> BTreeMap<String, PathBuf> {
        let known = KNOWN.iter().filter_map(|name| Some(((*name).to_owned(), find(name)?)));
        known.chain(self.configured.clone()).collect()
    }
}

fn find(name: &str) -> Option<PathBuf> {
    FOLDERS.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers_are_found_by_name() {
        let own = BTreeMap::from([
            ("runc".to_owned(), PathBuf::from("/opt/runc")),
            ("mine".to_owned(), PathBuf::from("/opt/mine")),
        ]);
        let handlers = Handlers::new(own);
        let check = |name: &str, expect: Option<&str>| {
            assert_eq!(handlers.program(name).unwrap().as_deref(), expect.map(Path::new), "{name}");
        };
        check("", None);
        check("mine", Some("/opt/mine"));
        check("runc", Some("/opt/runc"));
        let error = handlers.program("nosuch").unwrap_err().to_string();
        assert_eq!(error, "failed to get sandbox runtime: no runtime for \"nosuch\" is configured");
    }
}
