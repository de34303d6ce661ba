//! The kernel behind a safe API: every syscall, all `unsafe`, netlink, nftables, cgroups, mounts and namespaces.
//!
//! It knows nothing of pods or of Kubernetes. Names of links, tables, cgroups, sockets and folders come from [`Scope`]
//! alone, so that several clusters share a machine.

pub mod cgroup;
pub mod mount;
pub mod namespace;
pub mod process;
mod scope;

pub use scope::Scope;
