use super::*;
use cri::v1::{Capability, LinuxContainerConfig};

#[test]
fn capabilities_are_added_and_dropped_as_upstream_does() {
    let check = |add: &[&str], drop: &[&str], has: &[&str], lacks: &[&str]| {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let capabilities =
            Capability { add_capabilities: list(add), drop_capabilities: list(drop), ..Capability::default() };
        let security = LinuxContainerSecurityContext {
            capabilities: Some(capabilities),
            ..LinuxContainerSecurityContext::default()
        };
        let names = process::capabilities(&security).unwrap().names();
        for name in has {
            assert!(names.iter().any(|other| other == name), "{name} in {names:?}");
        }
        for name in lacks {
            assert!(!names.iter().any(|other| other == name), "no {name} in {names:?}");
        }
    };
    check(&[], &[], &["CAP_CHOWN", "CAP_NET_RAW"], &["CAP_SYS_ADMIN"]);
    check(&["NET_ADMIN"], &["CAP_CHOWN"], &["CAP_NET_ADMIN"], &["CAP_CHOWN"]);
    check(&["net_bind_service"], &["ALL"], &["CAP_NET_BIND_SERVICE"], &["CAP_CHOWN"]);
    check(&["ALL"], &["SYS_ADMIN"], &["CAP_NET_ADMIN"], &["CAP_SYS_ADMIN"]);
}

#[test]
fn limits_follow_upstream() {
    let check = |resources: LinuxContainerResources, expect: Limits| assert_eq!(limits(&resources), expect);
    check(LinuxContainerResources::default(), Limits::default());
    check(
        LinuxContainerResources { memory_limit_in_bytes: 64, cpu_shares: 2, ..Default::default() },
        Limits { memory: Some(64), memory_swap: Some(64), cpu_shares: Some(2), ..Default::default() },
    );
    check(
        LinuxContainerResources { memory_limit_in_bytes: 64, memory_swap_limit_in_bytes: 128, ..Default::default() },
        Limits { memory: Some(64), memory_swap: Some(128), ..Default::default() },
    );
}

#[test]
fn lists_of_paths_are_the_clients_once_it_says_anything() {
    let silent = ContainerConfig::default();
    let mut said = ContainerConfig::default();
    let security = LinuxContainerSecurityContext::default();
    said.linux = Some(LinuxContainerConfig { security_context: Some(security), ..Default::default() });
    assert_eq!(paths(false, &silent, &[], &MASKED).len(), MASKED.len());
    assert!(paths(false, &said, &[], &MASKED).is_empty());
    assert!(paths(true, &silent, &[], &MASKED).is_empty());
}
