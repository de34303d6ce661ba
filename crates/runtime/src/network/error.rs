//! What can go wrong between a sandbox and its network.

use std::net::IpAddr;
use std::path::PathBuf;

/// A pod network operation failed.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// No pod range is known yet.
    #[error("the node has no pod CIDR yet")]
    NoPodCidr,
    /// Not a list of network ranges, one per family.
    #[error("invalid pod CIDR {0:?}")]
    InvalidPodCidr(String),
    /// All addresses are taken.
    #[error("no free address in {range}")]
    Exhausted {
        /// The range that is full.
        range: String,
    },
    /// Another sandbox holds the port.
    #[error("host port {port}/{protocol} is taken by sandbox {holder}")]
    PortTaken {
        /// The host port.
        port: u16,
        /// Its protocol.
        protocol: super::Protocol,
        /// The sandbox that holds it.
        holder: String,
    },
    /// The namespace's pin cannot be opened.
    #[error("network namespace {}", path.display())]
    Namespace {
        /// The pin.
        path: PathBuf,
        /// Why.
        source: linux::netns::Error,
    },
    /// The kernel refused a link, address or route.
    #[error("{step}")]
    Link {
        /// What was tried.
        step: &'static str,
        /// Why it failed.
        source: linux::netlink::Error,
    },
    /// The kernel refused packet rules.
    #[error("packet rules")]
    Rules(#[source] linux::nft::Error),
    /// A kernel setting could not be made.
    #[error("kernel setting")]
    Sysctl(#[source] linux::sysctl::Error),
    /// The record of addresses cannot be read or written.
    #[error("address record {}", path.display())]
    Record {
        /// The record's file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The record was written by a newer release, or is damaged.
    #[error("address record {} is not readable: {detail}", path.display())]
    RecordFormat {
        /// The record's file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// An address in use lies outside the new range.
    #[error("pod CIDR cannot become {to}: {address} is in use")]
    CidrInUse {
        /// The range asked for.
        to: String,
        /// The address that would be cut off.
        address: IpAddr,
    },
}
