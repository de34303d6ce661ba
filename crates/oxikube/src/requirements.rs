//! What components need of the machine.

use cluster::{Requirement, Settings};
use linux::nft;

/// Requirements beside those of the commands themselves.
pub(crate) fn requirements(settings: &Settings) -> Vec<Requirement> {
    vec![Requirement::of("nftables", nftables(settings)), Requirement::of("cgroup folders", cgroups(settings))]
}

/// A table that is made and removed again shows that rules can be set.
fn nftables(settings: &Settings) -> Result<(), nft::Error> {
    let socket = nft::Socket::open()?;
    let table = settings.scope().table("check");
    let mut batch = nft::Batch::new(nft::Family::Ip, &table);
    batch.table();
    socket.commit(batch)?;
    socket.delete_table(nft::Family::Ip, &table).map(drop)
}

/// Pods need control groups of their own.
fn cgroups(settings: &Settings) -> std::io::Result<()> {
    let hierarchies = linux::cgroup::Hierarchies::detect()?;
    let group = hierarchies.group(settings.scope().cgroup("check"))?;
    group.create()?;
    group.remove()
}
