//! Processes: forking, signals, capabilities, system call filters, replacing one's own image.

mod capability;

use std::ffi::{CString, OsStr};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub use capability::{Capabilities, UnknownCapability};

/// One instruction of a classic BPF program, as the kernel's `sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FilterInstruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when the comparison holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

impl FilterInstruction {
    /// The eight bytes a filter file holds per instruction, in this machine's byte order.
    pub fn to_bytes(self) -> [u8; 8] {
        let (code, k) = (self.code.to_ne_bytes(), self.k.to_ne_bytes());
        [code[0], code[1], self.jt, self.jf, k[0], k[1], k[2], k[3]]
    }

    /// The instruction in eight bytes made by [`FilterInstruction::to_bytes`].
    pub fn from_bytes(bytes: [u8; 8]) -> FilterInstruction {
        FilterInstruction {
            code: u16::from_ne_bytes([bytes[0], bytes[1]]),
            jt: bytes[2],
            jf: bytes[3],
            k: u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        }
    }
}

/// Forks; the child runs `child` and exits with its result, without running the parent's exit handlers.
///
/// Fails when the process has more than one thread, as the child could then find locks held by threads it does not have.
pub fn fork(child: impl FnOnce() -> i32) -> io::Result<i32> {
    clone(0, child)
}

/// Like [`fork`], but the new process becomes a child of the caller's parent, which must reap it.
pub fn fork_sibling(child: impl FnOnce() -> i32) -> io::Result<i32> {
    clone(libc::CLONE_PARENT, child)
}

fn clone(flags: libc::c_int, child: impl FnOnce() -> i32) -> io::Result<i32> {
    if std::fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("fork needs a process with a single thread"));
    }
    // SAFETY: no stack is given, so this is fork with other flags; there is one thread, so no lock is held by another.
    let pid = unsafe { libc::syscall(libc::SYS_clone, (flags | libc::SIGCHLD) as libc::c_ulong, 0, 0, 0, 0) };
    match pid {
        -1 => Err(io::Error::last_os_error()),
        0 => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(101);
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(code) }
        }
        pid => Ok(pid as i32),
    }
}

/// Orphans below this process become its children, not init's.
pub fn become_subreaper() -> io::Result<()> {
    // SAFETY: sets a flag of this process.
    match unsafe { libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives this process, and those it starts, a keyring apart from whoever started it.
pub fn join_new_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: no name is given, so a new, nameless keyring is made.
    match unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Makes `/proc/self` of this process inaccessible to processes without `CAP_SYS_PTRACE` until it executes another program.
pub fn hide_from_ptrace() -> io::Result<()> {
    // SAFETY: sets a flag of this process.
    match unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The process' name as `ps` shows it; at most 15 bytes count.
pub fn set_name(name: &str) {
    if let Ok(name) = CString::new(name) {
        let _ = rustix::thread::set_name(&name);
    }
}

/// Every signal's default action, nothing blocked: what a program expects when it starts.
pub fn reset_signals() -> io::Result<()> {
    // As the kernel lays an action out: the default one is all zero.
    let default = [0u64; 4];
    for signal in (1..=64).filter(|signal| *signal != libc::SIGKILL && *signal != libc::SIGSTOP) {
        // SAFETY: a whole action that outlives the call. By system call, as libc refuses two signals that it uses itself but
        // whose disposition is inherited like any other's.
        let result =
            unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null_mut::<u64>(), 8) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    // SAFETY: an empty set that outlives the call; the old one is not asked for.
    let result = unsafe {
        let none = 0u64;
        let old = std::ptr::null_mut::<u64>();
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &none, old, 8)
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Sends a signal by its number (real-time signals included); a process that is gone already is no error.
pub fn signal(pid: i32, number: i32) -> io::Result<()> {
    if pid <= 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a process"));
    }
    // SAFETY: sends a signal to one process.
    if unsafe { libc::kill(pid, number) } == 0 {
        return Ok(());
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
        error => Err(error),
    }
}

/// Lets the kernel reap this process' children, also adopted ones, and waits until a signal ends it.
pub fn reap_forever() -> ! {
    // SAFETY: SIG_IGN is a valid disposition.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    loop {
        // SAFETY: waits for a signal.
        unsafe { libc::pause() };
    }
}

/// Filters the calling thread's system calls from now on. Needs `CAP_SYS_ADMIN` or no-new-privileges; sets neither.
pub fn install_filter(program: &[FilterInstruction]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::Error::other("system call filter too long"))?;
    let program = libc::sock_fprog { len, filter: program.as_ptr() as *mut libc::sock_filter };
    // SAFETY: `program` points to `len` instructions of the kernel's layout that outlive the call.
    match unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &program) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Replaces this process by `program`; returns only on failure.
pub fn execute(
    program: &Path,
    args: &[String],
    env: impl Iterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
) -> io::Error {
    let run = || -> io::Result<std::convert::Infallible> {
        let program = CString::new(program.as_os_str().as_bytes())?;
        let args = args.iter().map(|arg| CString::new(arg.as_bytes())).collect::<Result<Vec<_>, _>>()?;
        let env = env
            .map(|(key, value)| CString::new([key.as_ref().as_bytes(), b"=", value.as_ref().as_bytes()].concat()))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(nix::unistd::execve(&program, &args, &env)?)
    };
    match run() {
        Err(error) => error,
        Ok(never) => match never {},
    }
}

/// Sets this process' `oom_score_adj`. Lowering it needs `CAP_SYS_RESOURCE`.
pub fn set_oom_score_adj(value: i32) -> io::Result<()> {
    std::fs::write("/proc/self/oom_score_adj", value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filter_instructions_survive_their_file() {
        let instruction = FilterInstruction { code: 0x15, jt: 1, jf: 255, k: 0xdead_beef };
        assert_eq!(FilterInstruction::from_bytes(instruction.to_bytes()), instruction);
    }

    #[test]
    fn fork_refuses_a_process_with_threads() {
        // The test harness has several.
        assert!(fork(|| 0).is_err());
    }
}
