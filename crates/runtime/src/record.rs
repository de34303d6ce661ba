//! What is remembered about sandboxes and containers across restarts of the daemon and of the machine.
//!
//! Each has a folder with its CRI configuration, as the protobuf message it came in, and a record of what became of it. A folder
//! whose record is missing or broken belongs to something half made.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use prost::Message;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use cri::v1::{ContainerConfig, LinuxContainerResources, PodSandboxConfig};

const FORMAT: u32 = 1;
const CONFIG: &str = "config.pb";
const RECORD: &str = "record.json";
const RESOURCES: &str = "resources.pb";

/// What became of a sandbox.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct SandboxRecord {
    pub(crate) format: u32,
    /// Nanoseconds since 1970.
    pub(crate) created_at: i64,
    pub(crate) handler: String,
    /// Below which its containers' groups lie.
    pub(crate) cgroup: PathBuf,
    pub(crate) ips: Vec<IpAddr>,
    /// False until everything is made, and again when it is stopped.
    pub(crate) ready: bool,
    /// True while it is being made.
    pub(crate) making: bool,
}

/// What became of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ContainerRecord {
    pub(crate) format: u32,
    pub(crate) sandbox: String,
    /// Nanoseconds since 1970.
    pub(crate) created_at: i64,
    pub(crate) started_at: i64,
    pub(crate) finished_at: i64,
    pub(crate) phase: Phase,
    pub(crate) exit_code: i32,
    pub(crate) reason: String,
    pub(crate) message: String,
    /// The image's id and what it was called when the container was made.
    pub(crate) image_id: String,
    pub(crate) image_ref: String,
    /// The signal that asks it to end.
    pub(crate) stop_signal: i32,
    pub(crate) user: UserRecord,
    pub(crate) making: bool,
}

/// Who a container's process is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct UserRecord {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
}

/// Where in its life a container is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Phase {
    #[default]
    Created,
    Running,
    Exited,
}

pub(crate) trait Record: Serialize + DeserializeOwned {
    type Config: Message + Default;
    fn format(&mut self) -> &mut u32;
}

impl Record for SandboxRecord {
    type Config = PodSandboxConfig;
    fn format(&mut self) -> &mut u32 {
        &mut self.format
    }
}

impl Record for ContainerRecord {
    type Config = ContainerConfig;
    fn format(&mut self) -> &mut u32 {
        &mut self.format
    }
}

/// Makes the folder with its configuration and first record.
pub(crate) fn create<R: Record>(folder: &Path, config: &R::Config, record: &R) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(CONFIG), config.encode_to_vec())?;
    save(folder, record)
}

/// Replaces the record, in one write: a file that takes another's place would first have to reach the disk, which a pod's start has no
/// time for, and what a power cut breaks is taken for half made, as nothing of it runs then.
pub(crate) fn save<R: Record>(folder: &Path, record: &R) -> io::Result<()> {
    let mut value = serde_json::to_value(record)?;
    value["format"] = FORMAT.into();
    let mut text = serde_json::to_vec(&value)?;
    let path = folder.join(RECORD);
    match fs::OpenOptions::new().write(true).open(&path) {
        Ok(file) => {
            // What was there before is no part of it: blanks mean nothing.
            let before = usize::try_from(file.metadata()?.len()).unwrap_or(0);
            text.resize(text.len().max(before), b' ');
            file.write_all_at(&text, 0)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => replace(&path, &text),
        Err(error) => Err(error),
    }
}

/// Writes a file so that it never is half written.
pub(crate) fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, content)?;
    fs::rename(&temporary, path)
}

/// Reads what [`create`] and [`save`] wrote; `None` when it is not whole. A later release's record is an error.
pub(crate) fn load<R: Record>(folder: &Path) -> io::Result<Option<(R::Config, R)>> {
    let (Ok(config), Ok(record)) = (fs::read(folder.join(CONFIG)), fs::read(folder.join(RECORD))) else {
        return Ok(None);
    };
    let (Ok(config), Ok(mut record)) = (R::Config::decode(&config[..]), serde_json::from_slice::<R>(&record)) else {
        return Ok(None);
    };
    match *record.format() {
        FORMAT => Ok(Some((config, record))),
        other => Err(io::Error::other(format!("{} has format {other}, this release reads {FORMAT}", folder.display()))),
    }
}

/// Remembers resources that differ from the configuration's.
pub(crate) fn save_resources(folder: &Path, resources: &LinuxContainerResources) -> io::Result<()> {
    replace(&folder.join(RESOURCES), &resources.encode_to_vec())
}

/// What [`save_resources`] wrote, if anything.
pub(crate) fn load_resources(folder: &Path) -> Option<LinuxContainerResources> {
    LinuxContainerResources::decode(&fs::read(folder.join(RESOURCES)).ok()?[..]).ok()
}

/// The names of the folders in `folder`.
pub(crate) fn list(folder: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut names = Vec::new();
    for entry in entries {
        names.extend(entry?.file_name().into_string().ok());
    }
    names.sort();
    Ok(names)
}

/// Removes the folder and all in it; no error when there is none.
pub(crate) fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_and_broken_ones_are_half_made() {
        let folder = std::env::temp_dir().join(format!("runtime-record-{}", std::process::id()));
        let config = ContainerConfig { log_path: "0.log".into(), ..ContainerConfig::default() };
        let record = ContainerRecord { sandbox: "s".into(), phase: Phase::Running, ..ContainerRecord::default() };
        create(&folder, &config, &record).unwrap();
        let (config, record) = load::<ContainerRecord>(&folder).unwrap().unwrap();
        assert_eq!((config.log_path.as_str(), record.phase), ("0.log", Phase::Running));
        // A longer and a shorter one in its place.
        for message in ["a long message about what went wrong", ""] {
            save(&folder, &ContainerRecord { message: message.into(), ..record.clone() }).unwrap();
            assert_eq!(load::<ContainerRecord>(&folder).unwrap().unwrap().1.message, message);
        }
        fs::write(folder.join(RECORD), "{").unwrap();
        assert!(load::<ContainerRecord>(&folder).unwrap().is_none());
        fs::write(folder.join(RECORD), r#"{"format":99}"#).unwrap();
        assert!(load::<ContainerRecord>(&folder).is_err());
        remove(&folder).unwrap();
        remove(&folder).unwrap();
    }
}
