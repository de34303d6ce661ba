//! Other OCI runtimes are asked to change a container's limits themselves.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use cri::v1::LinuxContainerResources;
use serde_json::{Map, Value as Json, json};

use crate::error::{Context, Error};

/// Runs `PROGRAM update --resources -` for the container.
pub(super) fn by_program(
    program: &Path,
    root: &Path,
    id: &str,
    resources: &LinuxContainerResources,
) -> Result<(), Error> {
    let failed = || format!("failed to update resources by {}", program.display());
    let run = || {
        let mut command = Command::new(program);
        command.arg("--root").arg(root).args(["update", "--resources", "-", id]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(in_words_of_oci(resources).to_string().as_bytes())?;
        }
        let output = child.wait_with_output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
    };
    run().context(failed)
}

/// Only what is given. Upstream: runtime-spec's LinuxResources.
fn in_words_of_oci(resources: &LinuxContainerResources) -> Json {
    let numbers = |list: &[(&str, i64)]| -> Map<String, Json> {
        list.iter().filter(|(_, value)| *value != 0).map(|(name, value)| ((*name).to_owned(), json!(value))).collect()
    };
    let memory = [("limit", resources.memory_limit_in_bytes), ("swap", resources.memory_swap_limit_in_bytes)];
    let mut cpu =
        numbers(&[("shares", resources.cpu_shares), ("quota", resources.cpu_quota), ("period", resources.cpu_period)]);
    for (name, text) in [("cpus", &resources.cpuset_cpus), ("mems", &resources.cpuset_mems)] {
        if !text.is_empty() {
            cpu.insert(name.to_owned(), json!(text));
        }
    }
    let pages = resources.hugepage_limits.iter();
    let pages: Vec<Json> = pages.map(|page| json!({"pageSize": page.page_size, "limit": page.limit})).collect();
    let mut all = json!({"memory": numbers(&memory), "cpu": cpu});
    if !pages.is_empty() {
        all["hugepageLimits"] = json!(pages);
    }
    if !resources.unified.is_empty() {
        all["unified"] = json!(resources.unified);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_is_changed() {
        let resources = LinuxContainerResources {
            cpu_shares: 512,
            memory_limit_in_bytes: -1,
            cpuset_cpus: "0".into(),
            ..Default::default()
        };
        let expect = json!({"memory": {"limit": -1}, "cpu": {"shares": 512, "cpus": "0"}});
        assert_eq!(in_words_of_oci(&resources), expect);
    }
}
