//! What the new process does between libcontainer's preparations and its program.
//!
//! libcontainer leaves open: it passes on the shim's signal mask and dispositions, knows no seccomp without a C library, changes
//! no mount's propagation, does not make a missing working folder, does not give standard streams to the user, and does not say
//! why a program could not be executed. Each of these is closed here.

use std::ffi::OsString;
use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use libcontainer::oci_spec::runtime::Spec;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use linux::mount;
use linux::process::{Capabilities, FilterInstruction};

use crate::protocol::{Execution, Propagation};

/// Ends in the container's program.
#[derive(Clone)]
pub(crate) struct PodExecutor {
    execution: Arc<Execution>,
    filters: Arc<Vec<Vec<FilterInstruction>>>,
    /// Closed by a successful execution; else the reason is written to it.
    failure: Arc<OwnedFd>,
}

impl PodExecutor {
    /// Reads what has to be read before the container's root hides it.
    pub(crate) fn new(execution: &Execution, failure: OwnedFd) -> io::Result<PodExecutor> {
        let filters = execution.seccomp.as_deref().map(crate::filters::load).transpose()?.unwrap_or_default();
        Ok(PodExecutor {
            execution: Arc::new(execution.clone()),
            filters: Arc::new(filters),
            failure: Arc::new(failure),
        })
    }

    /// Returns only the reason why it could not.
    fn execute(&self, spec: &Spec) -> Result<std::convert::Infallible, String> {
        let execution = &self.execution;
        let process = spec.process().as_ref().ok_or("the configuration has no process")?;
        let args = process.args().as_deref().unwrap_or_default();
        linux::process::reset_signals().map_err(|error| step("reset signals", error))?;
        for (path, propagation) in &execution.propagation {
            let (kind, recursive) = match propagation {
                Propagation::Private => (mount::Propagation::Private, true),
                Propagation::HostToContainer => (mount::Propagation::Slave, true),
                Propagation::Bidirectional => (mount::Propagation::Shared, true),
            };
            // The root itself only: what is mounted below it has entries of its own.
            let recursive = recursive && path != Path::new("/");
            mount::set_propagation(path, kind, recursive)
                .map_err(|error| step(&format!("set the propagation of {}", path.display()), error))?;
        }
        own_streams(process.user().uid());
        enter_folder(&execution.cwd)?;
        if let Some(profile) = &execution.apparmor {
            confine(profile).map_err(|error| step(&format!("apply apparmor profile {profile:?}"), error))?;
        }
        // Needs CAP_SYS_ADMIN unless no-new-privileges is set, hence before capabilities go; otherwise as late as possible.
        if !execution.no_new_privileges {
            self.install_filters()?;
        }
        if let Some(capabilities) = execution.capabilities {
            let (kept, ambient) = (Capabilities(capabilities), Capabilities(execution.ambient));
            kept.keep_only().and_then(|()| ambient.make_ambient()).map_err(|error| step("drop capabilities", error))?;
        }
        let name = args.first().ok_or("no command given")?;
        let program = look_up(name, std::env::var_os("PATH"))?;
        if execution.no_new_privileges {
            self.install_filters()?;
        }
        let error = linux::process::execute(&program, args, std::env::vars_os());
        Err(format!("exec {}: {}", program.display(), reason(&error)))
    }

    fn install_filters(&self) -> Result<(), String> {
        for filter in self.filters.iter() {
            linux::process::install_filter(filter).map_err(|error| step("install the seccomp filter", error))?;
        }
        Ok(())
    }
}

impl Executor for PodExecutor {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let Err(message) = self.execute(spec);
        if let Ok(file) = self.failure.try_clone() {
            let _ = fs::File::from(file).write_all(message.as_bytes());
        }
        Err(ExecutorError::Other(message))
    }

    fn validate(&self, _: &Spec) -> Result<(), ExecutorValidationError> {
        // The program is looked up when everything else is in place, as the user it runs as.
        Ok(())
    }
}

fn step(what: &str, error: impl Display) -> String {
    format!("{what}: {error}")
}

/// From the next execution on. Upstream: runc's `setProcAttr`.
fn confine(profile: &str) -> io::Result<()> {
    let own = Path::new("/proc/self/attr/apparmor/exec");
    let path = if own.exists() { own } else { Path::new("/proc/self/attr/exec") };
    fs::write(path, format!("exec {profile}"))
}

/// Gives the standard streams to the user, so that programs can open `/dev/stdout`. Upstream: runc's `fixStdioPermissions`.
fn own_streams(uid: u32) {
    for link in ["/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2"] {
        let Ok(about) = fs::metadata(link) else { continue };
        let null = about.rdev() == rustix::fs::makedev(1, 3);
        if about.uid() != uid && !null {
            // A stream on a read-only filesystem keeps its owner.
            let _ = std::os::unix::fs::chown(link, Some(uid), None);
        }
    }
}

/// Makes `cwd` the working folder, and makes it first if need be, owned by root.
fn enter_folder(cwd: &Path) -> Result<(), String> {
    if cwd.as_os_str().is_empty() {
        return Ok(());
    }
    match std::env::set_current_dir(cwd) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let made = missing(cwd);
            fs::create_dir_all(cwd).map_err(|error| format!("mkdir {}: {}", cwd.display(), reason(&error)))?;
            for folder in made {
                let _ = std::os::unix::fs::chown(folder, Some(0), Some(0));
            }
            std::env::set_current_dir(cwd).map_err(|error| format!("chdir to cwd ({:?}): {}", cwd, reason(&error)))
        }
        result => {
            result.map_err(|error| format!("chdir to cwd ({:?}) set in config.json failed: {}", cwd, reason(&error)))
        }
    }
}

fn missing(cwd: &Path) -> Vec<PathBuf> {
    cwd.ancestors().take_while(|folder| !folder.exists()).map(Path::to_path_buf).collect()
}

/// The file that `name` means, as Go's `exec.LookPath` finds it; else its words for why there is none.
fn look_up(name: &str, search: Option<OsString>) -> Result<PathBuf, String> {
    if name.contains('/') {
        return match executable(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(format!("exec: {name:?}: stat {name}: {}", reason(&error)))
            }
            Err(error) => Err(format!("exec: {name:?}: {}", reason(&error))),
        };
    }
    let search = search.unwrap_or_default();
    let folders = std::env::split_paths(&search).map(|dir| if dir.as_os_str().is_empty() { ".".into() } else { dir });
    let found = folders.map(|folder| folder.join(name)).find(|path| !name.is_empty() && executable(path).is_ok());
    found.ok_or_else(|| format!("exec: {name:?}: executable file not found in $PATH"))
}

fn executable(path: &Path) -> io::Result<()> {
    let about = fs::metadata(path)?;
    if about.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    match rustix::fs::accessat(rustix::fs::CWD, path, rustix::fs::Access::EXEC_OK, rustix::fs::AtFlags::EACCESS) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) if about.permissions().mode() & 0o111 != 0 => Ok(()),
        Err(_) => Err(io::Error::from_raw_os_error(libc::EACCES)),
    }
}

/// The error's text as C and Go write it: lower case, no number.
fn reason(error: &io::Error) -> String {
    let text = match error.raw_os_error() {
        Some(number) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        None => error.to_string(),
    };
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_go_finds_them() {
        let check = |name: &str, search: &str, expect: Result<&str, &str>| {
            let got = look_up(name, Some(search.into()));
            assert_eq!(got.as_deref().map(|path| path.to_str().unwrap()).map_err(String::as_str), expect, "{name}");
        };
        check("sh", "/nowhere:/bin", Ok("/bin/sh"));
        check("/bin/sh", "", Ok("/bin/sh"));
        check("nosuch", "/bin", Err("exec: \"nosuch\": executable file not found in $PATH"));
        check("", "/bin", Err("exec: \"\": executable file not found in $PATH"));
        check("/no/such", "/bin", Err("exec: \"/no/such\": stat /no/such: no such file or directory"));
        check("/etc/passwd", "/bin", Err("exec: \"/etc/passwd\": permission denied"));
        check("/etc/", "/bin", Err("exec: \"/etc/\": is a directory"));
    }

    #[test]
    fn missing_folders_are_counted_from_the_inside() {
        assert!(missing(Path::new("/etc")).is_empty());
        let expect: Vec<PathBuf> = vec!["/etc/no-such/a".into(), "/etc/no-such".into()];
        assert_eq!(missing(Path::new("/etc/no-such/a")), expect);
    }
}
