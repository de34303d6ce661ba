//! The kernel behind a safe API: every syscall, all `unsafe`, netlink, nftables, cgroups, mounts and namespaces.
//!
//! It knows nothing of pods or of Kubernetes. Names of links, tables, cgroups, sockets and folders come from [`Scope`]
//! alone, so that several clusters share a machine.
//!
//! ```
//! let scope = linux::Scope::new("oxikube", "/run/oxikube/oxikube".into(), "/var/lib/oxikube/oxikube".into());
//! assert_eq!(scope.run("cri.sock").to_str(), Some("/run/oxikube/oxikube/cri.sock"));
//! ```

pub mod cgroup;
pub mod conntrack;
pub mod descriptor;
pub mod mount;
pub mod namespace;
mod netfilter;
pub mod netlink;
pub mod netns;
pub mod nft;
pub mod process;
pub mod ready;
mod scope;
pub mod sysctl;
pub mod tree;

pub use scope::Scope;
