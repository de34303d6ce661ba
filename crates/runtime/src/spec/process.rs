//! The process: command, environment, user, capabilities.

use std::path::PathBuf;

use linux::process::Capabilities;
use serde_json::{Value, json};

use cri::v1::{ContainerConfig, LinuxContainerSecurityContext, Signal};

use super::Ingredients;
use crate::error::Error;
use crate::image::ImageConfig;

/// Upstream: containerd's `defaultUnixEnv`.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Upstream: containerd's `defaultUnixCaps`.
const DEFAULT_CAPABILITIES: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// OCI's `process`. The working folder is `/`: the executor enters, and if need be makes, the wanted one.
pub(super) fn process(parts: &Ingredients<'_>, security: &LinuxContainerSecurityContext) -> Result<Value, Error> {
    let config = parts.config;
    let args = parts.image.command_line(&config.command, &config.args);
    if args.is_empty() {
        return Err(Error::Invalid("no command specified".to_owned()));
    }
    let env = environment(config, parts.image, parts.sandbox.hostname);
    if args.iter().chain(&env).any(|text| text.contains('\0')) {
        return Err(Error::Invalid("arguments and variables cannot hold null bytes".to_owned()));
    }
    let user = parts.user;
    let mut process = json!({
        "terminal": config.tty,
        "user": {"uid": user.uid, "gid": user.gid, "additionalGids": user.groups},
        "args": args,
        "env": env,
        "cwd": "/",
    });
    if security.no_new_privs {
        process["noNewPrivileges"] = true.into();
    }
    Ok(process)
}

/// Later ones win: defaults, the image's, the container's.
fn environment(config: &ContainerConfig, image: &ImageConfig, hostname: &str) -> Vec<String> {
    let mut env: Vec<String> = vec![DEFAULT_PATH.to_owned()];
    if config.tty {
        env.push("TERM=xterm".to_owned());
    }
    if !hostname.is_empty() {
        env.push(format!("HOSTNAME={hostname}"));
    }
    env.extend(image.env().iter().cloned());
    env.extend(config.envs.iter().map(|pair| format!("{}={}", pair.key, pair.value)));
    let mut unique: Vec<String> = Vec::with_capacity(env.len());
    for variable in env {
        let name = variable.split('=').next().unwrap_or_default();
        match unique.iter_mut().find(|other| other.split('=').next() == Some(name)) {
            Some(other) => *other = variable,
            None => unique.push(variable),
        }
    }
    unique.retain(|variable| variable.contains('='));
    unique
}

/// Where the process starts.
pub(super) fn cwd(config: &ContainerConfig, image: &ImageConfig) -> PathBuf {
    let wanted = if config.working_dir.is_empty() { image.working_dir() } else { &config.working_dir };
    // Relative ones are meant from the root, as upstream's runtimes do.
    PathBuf::from("/").join(wanted)
}

/// What the process may do. Upstream: containerd's `WithCapabilities` of the CRI plugin.
pub(super) fn capabilities(security: &LinuxContainerSecurityContext) -> Result<Capabilities, Error> {
    let available = Capabilities::available()
        .map_err(|source| Error::Io { action: "read this process' capabilities".to_owned(), source })?;
    if security.privileged {
        return Ok(available);
    }
    let changes = security.capabilities.clone().unwrap_or_default();
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let named = |name: &str| {
        Capabilities::named(name)
            .map_err(|error| Error::Invalid(format!("{error}: see capabilities(7) for their names")))
    };
    let mut set = Capabilities::default();
    for name in DEFAULT_CAPABILITIES {
        set = set.with(named(name)?);
    }
    if changes.add_capabilities.iter().any(is_all) {
        set = available;
    }
    if changes.drop_capabilities.iter().any(is_all) {
        set = Capabilities::default();
    }
    for name in changes.add_capabilities.iter().filter(|name| !is_all(name)) {
        set = set.with(named(name)?);
    }
    for name in changes.drop_capabilities.iter().filter(|name| !is_all(name)) {
        set = set.without(named(name)?);
    }
    Ok(set)
}

/// What the process keeps across executions although its user is not root. Upstream: containerd's `WithAmbientCapabilities`.
pub(super) fn ambient(security: &LinuxContainerSecurityContext, within: Capabilities) -> Result<Capabilities, Error> {
    let mut set = Capabilities::default();
    for name in security.capabilities.iter().flat_map(|changes| &changes.add_ambient_capabilities) {
        let one = if name.eq_ignore_ascii_case("ALL") { Ok(within) } else { Capabilities::named(name) };
        set = set.with(one.map_err(|error| Error::Invalid(format!("{error}: see capabilities(7) for their names")))?);
    }
    // None can be ambient that is not permitted.
    Ok(set.within(within))
}

/// The number of the signal that asks the container to end: the container's, the image's, or SIGTERM.
pub(crate) fn stop_signal(config: &ContainerConfig, image: &ImageConfig) -> i32 {
    let of_container = match config.stop_signal() {
        Signal::RuntimeDefault => None,
        signal => signal_number(signal.as_str_name()),
    };
    let of_image = || signal_number(image.stop_signal());
    of_container.or_else(of_image).unwrap_or(libc::SIGTERM)
}

/// `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`, and CRI's spelling `SIGRTMINPLUS3`.
fn signal_number(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    for (prefix, base, sign) in [("RTMIN", 34, 1), ("RTMAX", 64, -1)] {
        if let Some(rest) = name.strip_prefix(prefix) {
            let digits = rest.trim_start_matches("PLUS").trim_start_matches("MINUS").trim_start_matches(['+', '-']);
            let offset: i32 = if rest.is_empty() { 0 } else { digits.parse().ok()? };
            let number = base + sign * offset;
            return (34..=64).contains(&number).then_some(number);
        }
    }
    Some(match name {
        "ABRT" | "IOT" => libc::SIGABRT,
        "ALRM" => libc::SIGALRM,
        "BUS" => libc::SIGBUS,
        "CHLD" | "CLD" => libc::SIGCHLD,
        "CONT" => libc::SIGCONT,
        "FPE" => libc::SIGFPE,
        "HUP" => libc::SIGHUP,
        "ILL" => libc::SIGILL,
        "INT" => libc::SIGINT,
        "IO" | "POLL" => libc::SIGIO,
        "KILL" => libc::SIGKILL,
        "PIPE" => libc::SIGPIPE,
        "PROF" => libc::SIGPROF,
        "PWR" => libc::SIGPWR,
        "QUIT" => libc::SIGQUIT,
        "SEGV" => libc::SIGSEGV,
        "STKFLT" => libc::SIGSTKFLT,
        "STOP" => libc::SIGSTOP,
        "SYS" => libc::SIGSYS,
        "TERM" => libc::SIGTERM,
        "TRAP" => libc::SIGTRAP,
        "TSTP" => libc::SIGTSTP,
        "TTIN" => libc::SIGTTIN,
        "TTOU" => libc::SIGTTOU,
        "URG" => libc::SIGURG,
        "USR1" => libc::SIGUSR1,
        "USR2" => libc::SIGUSR2,
        "VTALRM" => libc::SIGVTALRM,
        "WINCH" => libc::SIGWINCH,
        "XCPU" => libc::SIGXCPU,
        "XFSZ" => libc::SIGXFSZ,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_in_every_spelling() {
        let check = |text: &str, expect: Option<i32>| assert_eq!(signal_number(text), expect, "{text}");
        check("SIGTERM", Some(15));
        check("quit", Some(3));
        check("9", Some(9));
        check("SIGRTMIN", Some(34));
        check("SIGRTMIN+3", Some(37));
        check("SIGRTMINPLUS15", Some(49));
        check("SIGRTMAXMINUS14", Some(50));
        check("SIGRTMAX", Some(64));
        check("SIGNOTHING", None);
        check("65", None);
        check("", None);
    }
}
