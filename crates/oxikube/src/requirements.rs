//! What components need of the machine.

use cluster::{Requirement, Settings};

/// Requirements beside those of the commands themselves.
pub(crate) fn requirements(settings: &Settings) -> Vec<Requirement> {
    vec![
        Requirement::of("nftables", proxy::probe(&settings.scope())),
        Requirement::of("cgroup folders", cgroups(settings)),
    ]
}

/// Pods need control groups of their own.
fn cgroups(settings: &Settings) -> std::io::Result<()> {
    let hierarchies = linux::cgroup::Hierarchies::detect()?;
    let group = hierarchies.group(settings.scope().cgroup("check"))?;
    group.create()?;
    group.remove()?;
    // A cluster that is there keeps its own.
    hierarchies.group(settings.scope().cgroup(""))?.remove_if_empty().map(drop)
}
