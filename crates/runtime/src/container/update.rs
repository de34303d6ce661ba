//! Other OCI runtimes are asked to change a container's limits themselves.

use std::io::{self, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use cri::v1::LinuxContainerResources;

use crate::error::{Context, Error};
use crate::spec::program;

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
            input.write_all(program::limits(resources).to_string().as_bytes())?;
        }
        let output = child.wait_with_output()?;
        match output.status.success() {
            true => Ok(()),
            false => Err(io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
    };
    run().context(failed)
}
