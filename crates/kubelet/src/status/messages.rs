//! What containers said at their end. Upstream: kuberuntime_container.go getTerminationMessage.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::runtime::{Container, PodState, labels};

/// By container id.
pub(crate) type Messages = BTreeMap<String, String>;

const LONGEST: u64 = 4096;
const LONGEST_OF_LOG: usize = 2048;
const LINES_OF_LOG: usize = 80;

/// Reads what the containers of `state` that have ended said, unless `known` has it. Blocks on the disk.
pub(crate) fn read(state: &PodState, known: &mut Messages) {
    known.retain(|id, _| state.containers.iter().any(|container| container.id() == id));
    for container in state.containers.iter().filter(|container| container.is_exited()) {
        if !known.contains_key(container.id()) {
            known.insert(container.id().to_owned(), message(container));
        }
    }
}

fn message(container: &Container) -> String {
    let annotation = |key: &str| container.status.annotations.get(key).map(String::as_str).unwrap_or_default();
    let path = annotation(labels::MESSAGE_PATH);
    let mount = container.status.mounts.iter().find(|mount| mount.container_path == path);
    let written = mount.map(|mount| head(Path::new(&mount.host_path))).and_then(Result::ok).unwrap_or_default();
    let from_log = annotation(labels::MESSAGE_POLICY) == "FallbackToLogsOnError" && container.status.exit_code != 0;
    let own = &container.status.message;
    let said = if written.is_empty() && from_log {
        tail(Path::new(&container.status.log_path)).unwrap_or_default()
    } else {
        written
    };
    match (own.is_empty(), said.is_empty()) {
        (false, false) => format!("{own}: {said}"),
        (false, true) => own.clone(),
        (true, _) => said,
    }
}

fn head(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Ok(String::new());
    }
    file.take(LONGEST).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines of a log, without the runtime's prefixes.
fn tail(path: &Path) -> io::Result<String> {
    // Prefixes are about forty bytes a line.
    const READ: u64 = 16 * 1024;
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(READ)))?;
    let mut bytes = Vec::new();
    file.take(READ).read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<(&str, &str)> = text
        .lines()
        .filter_map(|line| {
            let mut parts = line.splitn(4, ' ').skip(2);
            parts.next().zip(parts.next())
        })
        .collect();
    let mut said = String::new();
    for (tags, line) in &lines[lines.len().saturating_sub(LINES_OF_LOG)..] {
        said.push_str(line);
        // The rest of a partial line follows, or its end never came.
        if tags.split(':').next() != Some("P") {
            said.push('\n');
        }
    }
    let mut from = said.len().saturating_sub(LONGEST_OF_LOG);
    while !said.is_char_boundary(from) {
        from += 1;
    }
    Ok(said[from..].to_owned())
}

#[cfg(test)]
mod tests {
    use cri::v1::{ContainerState, ContainerStatus, Mount};

    use super::*;

    #[test]
    fn last_words_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let (file, log) = (folder.path().join("m"), folder.path().join("0.log"));
        let check = |written: &str, policy: &str, code: i32, expect: &str| {
            std::fs::write(&file, written).unwrap();
            std::fs::write(&log, "t stdout F one\nt stderr P two\nt stderr P  words\n").unwrap();
            let status = ContainerStatus {
                id: "1".into(),
                state: ContainerState::ContainerExited.into(),
                exit_code: code,
                annotations: [
                    (labels::MESSAGE_PATH.to_owned(), "/dev/termination-log".to_owned()),
                    (labels::MESSAGE_POLICY.to_owned(), policy.to_owned()),
                ]
                .into(),
                mounts: vec![Mount {
                    container_path: "/dev/termination-log".into(),
                    host_path: file.to_string_lossy().into_owned(),
                    ..Mount::default()
                }],
                log_path: log.to_string_lossy().into_owned(),
                ..ContainerStatus::default()
            };
            let state = PodState { containers: vec![Container { sandbox: "s".into(), status }], ..PodState::default() };
            let mut known = Messages::new();
            read(&state, &mut known);
            assert_eq!(known["1"], expect);
        };
        check("bye", "File", 1, "bye");
        check("", "File", 1, "");
        check("", "FallbackToLogsOnError", 1, "one\ntwo words");
        check("", "FallbackToLogsOnError", 0, "");
        check("bye", "FallbackToLogsOnError", 1, "bye");
        check(&"x".repeat(5000), "File", 0, &"x".repeat(4096));
    }
}
