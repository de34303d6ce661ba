//! Starts that can't be, and programs that aren't called.

use std::fs::{self, Permissions};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use testkit::machine::{Machine, Said};

use super::traces::traces;

/// A refusal is one sentence, on standard error.
#[track_caller]
pub fn refused(said: &Said, part: &str) {
    assert_eq!((said.code, said.out.as_str(), said.err.lines().count()), (Some(1), "", 1), "{said:?}");
    assert!(said.err.starts_with("oxikube: ") && said.err.contains(part), "{said:?}");
}

#[test]
fn a_start_that_fails_leaves_nothing() {
    let machine = Machine::new("taken", env!("CARGO_BIN_EXE_oxikube"));
    let before = traces(&machine);
    // The daemon's folder for the store is a file: opening it fails after the control group was made.
    let blocked = machine.data_dir();
    fs::create_dir_all(&blocked).unwrap();
    fs::write(blocked.join("store"), "in the way").unwrap();
    let said = machine.oxikube("start");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.lines().count() == 1 && said.err.contains("store"), "{said:?}");
    let after = traces(&machine);
    let left: Vec<_> = after.difference(&before).collect();
    assert!(left.is_empty(), "{left:#?}");
}

/// What the machine lacks is named by `start`, which leaves nothing, and by `check`.
#[test]
fn what_is_missing_is_named() {
    let machine = Machine::new("lacking", env!("CARGO_BIN_EXE_oxikube"));
    let before = traces(&machine);

    // Somebody who is not root needs a program that may be read.
    fs::set_permissions(machine.folder(), Permissions::from_mode(0o755)).unwrap();
    let program = machine.folder().join("oxikube");
    // By another program: what other tests start at this moment would hold our copy open for writing, which can't be executed then.
    let mut copy = machine.command("cp");
    copy.arg(env!("CARGO_BIN_EXE_oxikube")).arg(&program);
    machine.run(copy).ok();
    let nobody = |verb: &str| {
        let mut command = machine.command(&program);
        command.args([verb, "--name", machine.name()]).current_dir("/").uid(65534).gid(65534);
        machine.run(command)
    };
    refused(&nobody("start"), "root: namespaces, mounts and network rules need it; run this as root");
    let said = nobody("check");
    assert!(said.code == Some(1) && said.out.starts_with("root  missing: "), "{said:?}");

    // A kernel without something: hidden in a mount namespace.
    let file = machine.folder().join("filesystems");
    fs::write(&file, "nodev\tproc\nnodev\ttmpfs\n").unwrap();
    let no_overlay = format!(
        "mount --bind {} /proc/filesystems && {{ [ ! -d /lib/modules ] || mount -t tmpfs none /lib/modules; }}",
        file.display()
    );
    let kernels = [
        (no_overlay.as_str(), "overlay file system", "this kernel has no overlay file system"),
        ("umount -R -l /sys/fs/cgroup", "cgroups", "no controller cpu, memory, pids is mounted below /sys/fs/cgroup"),
    ];
    for (hide, requirement, expect) in kernels {
        let on_it = |verb: &str| {
            let mut command = machine.command("unshare");
            let start = machine.oxikube_command(verb);
            command.args(["-m", "sh", "-c", &format!("{hide} && exec \"$@\""), "sh"]);
            command.arg(start.get_program()).args(start.get_args());
            machine.run(command)
        };
        refused(&on_it("start"), &format!("{requirement}: {expect}"));
        let said = on_it("check");
        let line = said.out.lines().find(|line| line.starts_with(requirement)).unwrap_or_else(|| panic!("{said:?}"));
        assert!(said.code == Some(1) && line.ends_with(&format!("  missing: {expect}")), "{said:?}");
    }

    // A machine with everything.
    let said = machine.oxikube("check");
    let lines: Vec<&str> = said.out.lines().collect();
    assert!(said.code == Some(0) && lines.len() >= 12, "{said:?}");
    assert!(lines.iter().all(|line| line.ends_with("  ok") || line.contains("  degraded: ")), "{said:?}");

    // The default cluster's ports are fixed; its folders are the machine's, so it is only checked here, not started.
    let listener = machine.namespace().run(|| TcpListener::bind("0.0.0.0:6443")).unwrap().unwrap();
    let mut command = machine.command(env!("CARGO_BIN_EXE_oxikube"));
    command.args(["check", "--data-dir"]).arg(machine.data_dir());
    let said = machine.run(command).failed();
    assert!(said.contains("port 6443 is taken by another program"), "{said}");
    drop(listener);

    fs::remove_file(program).unwrap();
    fs::remove_file(file).unwrap();
    let mut left = traces(&machine);
    left.retain(|trace| !before.contains(trace));
    assert!(left.is_empty(), "{left:#?}");
}

/// `start` needs no other program, and no folder to find one in: every program that it and its daemon execute is itself.
#[test]
fn no_other_program_is_called() {
    let machine = Machine::new("alone", env!("CARGO_BIN_EXE_oxikube"));
    let seen = machine.folder().join("executed");
    let start = machine.oxikube_command("start");
    let mut command = machine.command("strace");
    command
        .args([
            "--follow-forks",
            "--interruptible=waiting",
            "--trace=execve,execveat",
            "--signal=none",
            "--successful-only",
            "--output",
        ])
        .arg(&seen);
    // The watcher would stay as long as the daemon: it is told to let go once the command itself has ended.
    command.args(["--", "/bin/busybox", "sh", "-c", "PATH= \"$@\"; echo $? >ended; kill $PPID", "sh"]);
    command.arg(start.get_program()).args(start.get_args());
    machine.run(command);
    assert_eq!(fs::read_to_string(machine.folder().join("ended")).unwrap(), "0\n");
    machine.kubectl("get nodes").ok();
    let seen = fs::read_to_string(seen).unwrap();
    let programs: Vec<&str> = seen.lines().filter_map(|line| line.split('"').nth(1)).collect();
    let (shell, ours) = programs.split_first().unwrap();
    assert_eq!(*shell, "/bin/busybox", "{seen}");
    assert!(ours.len() >= 2, "{seen}");
    assert!(ours.iter().all(|program| [env!("CARGO_BIN_EXE_oxikube"), "/proc/self/exe"].contains(program)), "{seen}");
}
