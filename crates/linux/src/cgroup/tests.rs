use std::process::{Command, Stdio};

use super::limits::weight;
use super::*;

/// A group of this test's own, gone with the guard.
struct Temporary(Group);

impl Temporary {
    fn new(name: &str) -> Temporary {
        let hierarchies = Hierarchies::detect().unwrap();
        let group = hierarchies.group(format!("oxikube-linux-test-{name}-{}", std::process::id())).unwrap();
        group.create().unwrap();
        Temporary(group)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = self.0.kill();
        self.0.remove().unwrap();
    }
}

#[test]
fn a_path_may_not_leave_its_root() {
    let hierarchies = Hierarchies::detect().unwrap();
    let check = |path: &str, expect: Option<&str>| {
        let got = hierarchies.group(path).ok();
        assert_eq!(got.as_ref().map(|group| group.path().to_str().unwrap()), expect, "{path}");
    };
    check("/a/b", Some("a/b"));
    check("a//b/.", Some("a/b"));
    check("a/../../b", None);
    check("/", None);
}

#[test]
fn folders_tell_what_mounts_tell() {
    let sorted = |mut found: Hierarchies| {
        found.controllers.sort();
        (found.version, found.controllers, found.unified)
    };
    assert_eq!(sorted(Hierarchies::detect().unwrap()), sorted(Hierarchies::by_mounts().unwrap()));
    let membership = "5:cpuacct,cpu:/a\n3:memory:/\n1:name=systemd:/\n0::/\n";
    let check = |folder: &str, expect: Option<&[&str]>| {
        let found = controllers_of(Path::new(folder), membership);
        let expect = expect.map(|names| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(found, expect, "{folder}");
    };
    check("/x/cpu,cpuacct", Some(&["cpu", "cpuacct"]));
    check("/x/memory", Some(&["memory"]));
    check("/x/systemd", Some(&["name=systemd"]));
    check("/x/cpu", None);
}

#[test]
fn shares_become_weights() {
    for (shares, expect) in [(0, 0), (2, 1), (1024, 39), (262_144, 10_000), (u64::MAX, 10_000)] {
        assert_eq!(weight(shares), expect, "{shares}");
    }
}

#[test]
fn limits_are_set_raised_and_lowered() {
    let group = Temporary::new("limits");
    let memory = |bytes: i64| Limits { memory: Some(bytes), memory_swap: Some(bytes), ..Limits::default() };
    for bytes in [64 << 20, 32 << 20, 128 << 20] {
        group.0.apply(&memory(bytes)).unwrap();
        assert_eq!(group.0.usage().unwrap().memory.limit, Some(bytes as u64));
    }
    for (quota, period) in [(50_000, 100_000), (2000, 10_000), (400_000, 200_000), (-1, 100_000)] {
        group.0.apply(&Limits { cpu_quota: Some(quota), cpu_period: Some(period), ..Limits::default() }).unwrap();
    }
    group.0.apply(&Limits { cpu_shares: Some(512), pids: Some(40), ..Limits::default() }).unwrap();
    let file = if group.0.hierarchies.version() == Version::V1 { "cpu.shares" } else { "cpu.weight" };
    let expect = if group.0.hierarchies.version() == Version::V1 { "512" } else { "20" };
    assert_eq!(group.0.read("cpu", file).as_deref(), Some(expect));
    assert_eq!(group.0.read("pids", "pids.max").as_deref(), Some("40"));
    group.0.apply(&memory(-1)).unwrap();
    assert_eq!(group.0.usage().unwrap().memory.limit, None);
}

#[test]
fn processes_are_listed_killed_and_gone() {
    let group = Temporary::new("kill");
    let child = group.0.child("inner").unwrap();
    child.create().unwrap();
    let mut sleeper = Command::new("sleep").arg("1000").stdout(Stdio::null()).spawn().unwrap();
    child.add(sleeper.id() as i32).unwrap();
    assert_eq!(group.0.processes().unwrap(), [sleeper.id() as i32]);
    assert!(group.0.usage().unwrap().pids >= 1);
    group.0.kill().unwrap();
    use std::os::unix::process::ExitStatusExt;
    assert_eq!(sleeper.wait().unwrap().signal(), Some(libc::SIGKILL));
    group.0.remove().unwrap();
    assert!(!group.0.exists());
}

/// The program is tried on the v2 hierarchy wherever one is mounted, be it in use or not.
#[test]
fn the_device_program_allows_what_it_names() {
    let hierarchies = Hierarchies::detect().unwrap();
    let Some(unified) = hierarchies.unified.clone() else {
        panic!("no v2 hierarchy is mounted");
    };
    let v2 = Hierarchies { version: Version::V2, controllers: Vec::new(), unified: Some(unified) };
    let group = Temporary(v2.group(format!("oxikube-linux-test-devices-{}", std::process::id())).unwrap());
    group.0.create().unwrap();
    let rule = |minor, access: &str| DeviceRule {
        kind: DeviceKind::Character,
        major: Some(1),
        minor: Some(minor),
        access: access.to_owned(),
    };
    group.0.allow_devices(&[rule(3, "rwm"), rule(5, "r")]).unwrap();
    let procs = group.0.folder("").unwrap().join("cgroup.procs");
    let check = |command: &str, allowed: bool| {
        let script = format!("echo $$ > {} && {command}", procs.display());
        let status =
            Command::new("sh").args(["-c", &script]).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
        assert_eq!(status.success(), allowed, "{command}");
    };
    check("head -c1 /dev/null", true);
    check("echo x > /dev/null", true);
    check("head -c1 /dev/zero", true);
    check("echo x > /dev/zero", false);
    check("head -c1 /dev/urandom", false);
}
