//! What a container may do, and who it is.

use cri::v1::security_profile::ProfileType;
use cri::v1::*;

use crate::support::*;

/// `name:` in `/proc/self/status`.
fn field<'a>(text: &'a str, name: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} in {text}")).trim()
}

pub async fn users_groups_and_capabilities(mut node: Node) {
    let sandbox = node.sandbox("users").await;
    let script = "id -u; id -g; id -G; grep -E '^(Cap|NoNewPrivs|SigBlk|SigIgn|Umask)' /proc/self/status; echo $HOME";
    let (text, _) = node.output(&sandbox, shell("root", script)).await;
    assert_eq!(field(&text, "Umask"), "0022");
    assert!(text.starts_with("0\n0\n0\n"), "{text}");
    assert_eq!((field(&text, "CapBnd"), field(&text, "CapEff")), ("00000000a80425fb", "00000000a80425fb"));
    assert_eq!((field(&text, "CapInh"), field(&text, "NoNewPrivs")), ("0000000000000000", "0"));
    // Nothing of the shim's signal set-up is passed on.
    assert_eq!((field(&text, "SigBlk"), field(&text, "SigIgn")), ("0000000000000000", "0000000000000000"));
    let config = secured(shell("web", script), |security| {
        security.run_as_username = "web".to_owned();
        security.supplemental_groups = vec![3000];
        security.no_new_privs = true;
        security.capabilities = Some(Capability {
            add_capabilities: vec!["NET_ADMIN".into()],
            drop_capabilities: vec!["ALL".into()],
            ..Default::default()
        });
    });
    let (text, _) = node.output(&sandbox, config).await;
    assert!(text.starts_with("1000\n1001\n1001 2000 3000\n"), "{text}");
    assert_eq!((field(&text, "CapBnd"), field(&text, "CapEff")), ("0000000000001000", "0000000000000000"));
    assert_eq!(field(&text, "NoNewPrivs"), "1");
    assert!(text.ends_with("/home/web\n"), "{text}");
    let config = secured(shell("number", script), |security| {
        security.run_as_user = Some(Int64Value { value: 4000 });
        security.run_as_group = Some(Int64Value { value: 5000 });
    });
    let (text, _) = node.output(&sandbox, config).await;
    assert!(text.starts_with("4000\n5000\n5000\n"), "{text}");
    // Standard streams belong to the user.
    let config = secured(shell("streams", "echo reopened > /dev/stdout"), |security| {
        security.run_as_user = Some(Int64Value { value: 4000 });
    });
    assert_eq!(node.output(&sandbox, config).await, ("reopened\n".to_owned(), 0));
    let bad = secured(shell("bad", script), |security| security.run_as_username = "nobody-knows".to_owned());
    assert!(node.create(&sandbox, bad).await.unwrap_err().message().contains("unable to find user"));
    node.finish().await;
}

pub async fn ambient_capabilities_reach_programs(mut node: Node) {
    let sandbox = node.sandbox("ambient").await;
    let script = "grep -E '^(Cap(Eff|Amb|Inh)|Uid)' /proc/self/status";
    let sets = Capability {
        add_capabilities: vec!["NET_ADMIN".into()],
        add_ambient_capabilities: vec!["NET_ADMIN".into()],
        ..Default::default()
    };
    let config = secured(shell("user", script), |security| {
        security.run_as_user = Some(Int64Value { value: 4000 });
        security.capabilities = Some(sets.clone());
    });
    let (text, _) = node.output(&sandbox, config).await;
    for name in ["CapEff", "CapAmb", "CapInh"] {
        assert_eq!(field(&text, name), "0000000000001000", "{name}");
    }
    // Also for commands.
    let config = secured(command("sleeper", &["sleep", "1000"]), |security| {
        security.run_as_user = Some(Int64Value { value: 4000 });
        security.capabilities = Some(sets);
    });
    let id = node.run(&sandbox, config).await;
    let answer = node.exec(&id, &["sh", "-c", script], 10).await.unwrap();
    let text = String::from_utf8(answer.stdout).unwrap();
    assert_eq!((field(&text, "CapEff"), field(&text, "CapAmb")), ("0000000000001000", "0000000000001000"));
    node.finish().await;
}

pub async fn seccomp_profiles_hold_for_containers_and_commands(mut node: Node) {
    let sandbox = node.sandbox("seccomp").await;
    let profile = |kind: ProfileType, file: &str| {
        Some(SecurityProfile { profile_type: kind.into(), localhost_ref: file.to_owned() })
    };
    let script =
        "grep -E '^(Seccomp|NoNewPrivs):' /proc/self/status; unshare -U true 2>&1; mkdir /tmp/made 2>&1; echo end";
    let with = |name: &str, seccomp, user: Option<i64>| {
        secured(shell(name, script), |security| {
            security.seccomp = seccomp;
            security.run_as_user = user.map(|value| Int64Value { value });
        })
    };
    let (text, _) = node.output(&sandbox, with("none", None, None)).await;
    assert_eq!(field(&text, "Seccomp"), "0");
    let (text, _) = node.output(&sandbox, with("unconfined", profile(ProfileType::Unconfined, ""), None)).await;
    assert_eq!(field(&text, "Seccomp"), "0");
    for (name, user) in [("default", None), ("default-user", Some(1000))] {
        let (text, _) = node.output(&sandbox, with(name, profile(ProfileType::RuntimeDefault, ""), user)).await;
        assert_eq!((field(&text, "Seccomp"), field(&text, "NoNewPrivs")), ("2", "0"), "{text}");
        assert!(text.contains("unshare") && text.contains("not permitted"), "{text}");
    }
    let file = node.host_folder("seccomp").join("no-mkdir.json");
    let deny = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
        {"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO","errnoRet":13}]}"#;
    std::fs::write(&file, deny).unwrap();
    let local = profile(ProfileType::Localhost, file.to_str().unwrap());
    let (text, _) = node.output(&sandbox, with("local", local.clone(), None)).await;
    assert!(text.contains("mkdir: can't create directory '/tmp/made': Permission denied"), "{text}");
    // A command gets the container's filter, capabilities and user.
    let sleeper = secured(command("sleeper", &["sleep", "1000"]), |security| {
        security.seccomp = local;
        security.run_as_user = Some(Int64Value { value: 1000 });
        security.capabilities = Some(Capability { drop_capabilities: vec!["ALL".into()], ..Default::default() });
    });
    let id = node.run(&sandbox, sleeper).await;
    let script = "grep -E '^(Seccomp|CapBnd|Uid):' /proc/self/status; mkdir /tmp/a 2>&1";
    let answer = node.exec(&id, &["sh", "-c", script], 10).await.unwrap();
    let text = String::from_utf8(answer.stdout).unwrap();
    assert_eq!((field(&text, "Seccomp"), field(&text, "CapBnd")), ("2", "0000000000000000"));
    assert!(field(&text, "Uid").starts_with("1000") && text.contains("Permission denied"), "{text}");
    let missing = with("missing", profile(ProfileType::Localhost, "/no/such.json"), None);
    assert!(node.create(&sandbox, missing).await.unwrap_err().message().contains("cannot load seccomp profile"));
    node.finish().await;
}

pub async fn roots_masks_and_mounts(mut node: Node) {
    let sandbox = node.sandbox("files").await;
    let folder = node.host_folder("volume");
    std::fs::write(folder.join("f"), "data\n").unwrap();
    std::fs::create_dir(folder.join("below")).unwrap();
    linux::mount::tmpfs(&folder.join("below"), linux::mount::TmpfsFlags::ReadWrite, "mode=755").unwrap();
    let mount = |path: &str, readonly, recursive_read_only| Mount {
        container_path: path.to_owned(),
        host_path: folder.to_string_lossy().into_owned(),
        readonly,
        recursive_read_only,
        ..Default::default()
    };
    let script = "touch /x 2>&1; touch /tmp/x 2>&1; head -c1 /proc/kcore | wc -c; ls /sys/firmware | wc -l;
        echo 1 2>&1 > /proc/sys/kernel/panic; cat /rw/f; touch /rw/g && echo written; touch /ro/g 2>&1;
        touch /ro/below/g && echo below; touch /rro/below/g 2>&1; cat /etc/hostname; ls -d /etc/hosts /etc/resolv.conf;
        stat -f -c %T /dev/shm; touch /dev/shm/x && echo shm; group=/sys/fs/cgroup; [ -d $group/memory ] && group=$group/memory; touch $group/group 2>&1";
    let mut config = secured(shell("files", script), |security| {
        security.readonly_rootfs = true;
        security.masked_paths = vec!["/proc/kcore".into(), "/sys/firmware".into()];
        security.readonly_paths = vec!["/proc/sys".into()];
    });
    config.mounts = vec![mount("/rw", false, false), mount("/ro", true, false), mount("/rro", true, true)];
    let (text, _) = node.output(&sandbox, config).await;
    for expect in [
        "touch: /x: Read-only file system",
        "touch: /tmp/x: Read-only file system",
        "\n0\n0\n",
        "can't create /proc/sys/kernel/panic: Read-only file system",
        "data\nwritten\n",
        "touch: /ro/g: Read-only file system",
        "\nbelow\n",
        "touch: /rro/below/g: Read-only file system",
        "\nfiles\n/etc/hosts\n/etc/resolv.conf\ntmpfs\nshm\n",
        "/group: Read-only file system",
    ] {
        assert!(text.contains(expect), "{expect:?} in {text}");
    }
    assert!(folder.join("g").exists());
    linux::mount::unmount_all(&folder.join("below")).unwrap();
    node.finish().await;
}

pub async fn propagation_goes_where_it_is_wanted(mut node: Node) {
    let sandbox = node.sandbox("propagation").await;
    let folder = node.host_folder("shared");
    linux::mount::bind(&folder, &folder).unwrap();
    let mount = |path: &str, propagation: MountPropagation| Mount {
        container_path: path.to_owned(),
        host_path: folder.to_string_lossy().into_owned(),
        propagation: propagation.into(),
        ..Default::default()
    };
    let privileged = |name: &str, script: &str| secured(shell(name, script), |security| security.privileged = true);
    let mut config = privileged("refused", "true");
    config.mounts = vec![mount("/both", MountPropagation::PropagationBidirectional)];
    linux::mount::set_propagation(&folder, linux::mount::Propagation::Private, false).unwrap();
    let error = node.create(&sandbox, config).await.unwrap_err();
    assert!(error.message().contains("it is not a shared mount"), "{}", error.message());

    linux::mount::set_propagation(&folder, linux::mount::Propagation::Shared, false).unwrap();
    for name in ["inside", "outside"] {
        std::fs::create_dir(folder.join(name)).unwrap();
    }
    let mut config = privileged(
        "main",
        "mount -t tmpfs t /both/inside; echo mounted; while [ ! -e /slave/outside/seen ]; do sleep 0.01; done;
         ls /both/outside /private/outside | grep -c seen; echo end; sleep 1000",
    );
    config.mounts = vec![
        mount("/both", MountPropagation::PropagationBidirectional),
        mount("/slave", MountPropagation::PropagationHostToContainer),
        mount("/private", MountPropagation::PropagationPrivate),
    ];
    let before = node.mounts().len();
    let id = node.run(&sandbox, config).await;
    node.logged(&id, "mounted").await;
    assert!(linux::mount::is_mount_point(&folder.join("inside")).unwrap());
    // The root's overlay and the container's own mount are the only new ones: nothing else of the container's shows here.
    assert_eq!(node.mounts().len(), before + 2, "{:#?}", node.mounts());
    linux::mount::tmpfs(&folder.join("outside"), linux::mount::TmpfsFlags::ReadWrite, "mode=755").unwrap();
    std::fs::write(folder.join("outside/seen"), "").unwrap();
    let lines = node.logged(&id, "end").await;
    assert!(lines.iter().any(|line| line.text == "1"), "{lines:?}");
    node.stop(&id, 0).await;
    linux::mount::unmount_below(&folder).unwrap();
    node.finish().await;
}

pub async fn privileged_containers_may_everything(mut node: Node) {
    let sandbox = node.sandbox("privileged").await;
    let script =
        "grep CapEff /proc/self/status; grep Seccomp: /proc/self/status; ls /dev | wc -l; mount -t tmpfs t /mnt 2>&1 ||
        (mkdir /mnt && mount -t tmpfs t /mnt && echo mounted)";
    let config = secured(shell("main", script), |security| {
        security.privileged = true;
        security.seccomp = Some(SecurityProfile::default());
    });
    let (text, code) = node.output(&sandbox, config).await;
    let available = linux::process::Capabilities::available().unwrap();
    assert_eq!(field(&text, "CapEff"), format!("{:016x}", available.0));
    assert_eq!((field(&text, "Seccomp"), code), ("0", 0));
    assert!(text.contains("mounted"), "{text}");
    // Only what every container has, and what was asked for, can be used.
    let mut config = shell(
        "device",
        "head -c1 /dev/fuse 2>&1; ls -l /dev/mine; head -c1 /dev/mine | wc -c; mknod /dev/k c 1 11; head -c1 /dev/k 2>&1",
    );
    let device = Device { container_path: "/dev/mine".into(), host_path: "/dev/zero".into(), permissions: "r".into() };
    config.devices = vec![device];
    let (text, _) = node.output(&sandbox, config).await;
    assert!(text.contains("1,") && text.contains("\n1\n"), "{text}");
    assert!(text.contains("/dev/k: Operation not permitted"), "{text}");
    node.finish().await;
}

pub async fn what_is_not_supported_says_so(mut node: Node) {
    let sandbox = node.sandbox("unsupported").await;
    let apparmor = secured(shell("apparmor", "true"), |security| {
        let kind = ProfileType::Localhost.into();
        security.apparmor = Some(SecurityProfile { profile_type: kind, localhost_ref: "mine".into() });
    });
    assert!(node.create(&sandbox, apparmor).await.unwrap_err().message().contains("apparmor is not supported"));
    let capability = secured(shell("capability", "true"), |security| {
        security.capabilities = Some(Capability { add_capabilities: vec!["FLY".into()], ..Default::default() });
    });
    assert!(node.create(&sandbox, capability).await.unwrap_err().message().contains("unknown capability"));
    let mut userns = node.sandbox_config("userns");
    let options = NamespaceOption {
        userns_options: Some(UserNamespace { mode: NamespaceMode::Pod.into(), ..Default::default() }),
        ..Default::default()
    };
    let security = LinuxSandboxSecurityContext { namespace_options: Some(options), ..Default::default() };
    userns.linux = Some(LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() });
    assert!(node.run_sandbox(userns).await.unwrap_err().message().contains("user namespaces are not supported"));
    node.finish().await;
}
