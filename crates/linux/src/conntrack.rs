//! The connection table: forget UDP flows whose translated destination is gone.
//!
//! A UDP flow keeps its translation for as long as its client goes on sending, so a server that is removed must be removed
//! here as well. TCP needs none of this: its connections end by themselves.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netfilter::{self, ACK, DUMP, Messages, attributes, find};
use crate::netns::{self, NetNs};

/// The connection table cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The socket failed.
    #[error("{action}")]
    Socket {
        /// What was done.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// The namespace cannot be entered.
    #[error("enter the network namespace")]
    Namespace(#[from] netns::Error),
}

/// One tracked connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flow {
    /// The transport protocol.
    pub protocol: u8,
    /// Where its client sends to.
    pub destination: (IpAddr, u16),
    /// Who answers: the destination after translation.
    pub server: (IpAddr, u16),
    original: Vec<u8>,
}

/// A connection to one namespace's table.
pub struct Conntrack(netfilter::Socket);

const SUBSYSTEM: u16 = 1;
const NEW: u16 = 0;
const GET: u16 = 1;
const DELETE: u16 = 2;
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const NESTED: u16 = 0x8000;

impl Conntrack {
    /// Connects to the calling thread's namespace.
    pub fn open() -> Result<Conntrack, Error> {
        let socket = netfilter::Socket::open();
        socket.map(Conntrack).map_err(|source| Error::Socket { action: "open a netfilter socket", source })
    }

    /// Connects to `ns`.
    pub fn open_in(ns: &NetNs) -> Result<Conntrack, Error> {
        ns.run(Conntrack::open)?
    }

    /// Every connection of one transport protocol, IPv4 and IPv6.
    pub fn flows(&self, protocol: u8) -> Result<Vec<Flow>, Error> {
        let mut request = Messages::new();
        request.push(SUBSYSTEM << 8 | GET, DUMP, 0, 0, |_| {});
        let mut flows = Vec::new();
        let result = self.0.dump(&request, |kind, body| {
            if kind == SUBSYSTEM << 8 | NEW {
                flows.extend(flow(body).filter(|flow| flow.protocol == protocol));
            }
        });
        match result {
            // Something changed meanwhile: what was seen is still true, and what came since is not stale.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(flows),
            Err(source) => Err(Error::Socket { action: "list connections", source }),
            Ok(()) => Ok(flows),
        }
    }

    /// Forgets every connection of this protocol for which `stale` holds; returns their number.
    pub fn forget(&self, protocol: u8, mut stale: impl FnMut(&Flow) -> bool) -> Result<usize, Error> {
        let failed = |source| Error::Socket { action: "forget a connection", source };
        let mut count = 0;
        for flow in self.flows(protocol)?.iter().filter(|flow| stale(flow)) {
            let mut request = Messages::new();
            let family = if flow.destination.0.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 } as u8;
            let last = request.push(SUBSYSTEM << 8 | DELETE, ACK, family, 0, |out| {
                out.attribute(TUPLE_ORIGINAL | NESTED, &flow.original);
            });
            match self.0.request(&request, last).map_err(failed)?.unwrap_or_default().first() {
                None => count += 1,
                Some(refusal) if refusal.errno == libc::ENOENT => {}
                Some(refusal) => return Err(failed(io::Error::from_raw_os_error(refusal.errno))),
            }
        }
        Ok(count)
    }
}

fn flow(body: &[u8]) -> Option<Flow> {
    let (original, reply) = (find(body, TUPLE_ORIGINAL)?, find(body, TUPLE_REPLY)?);
    let (protocol, _, destination) = tuple(original)?;
    let (_, server, _) = tuple(reply)?;
    Some(Flow { protocol, destination, server, original: original.to_vec() })
}

/// An address and its port.
type Side = (IpAddr, u16);

/// A direction's protocol, source and destination.
fn tuple(bytes: &[u8]) -> Option<(u8, Side, Side)> {
    let (ip, transport) = (find(bytes, 1)?, find(bytes, 2)?);
    let port = |kind| Some(u16::from_be_bytes(find(transport, kind)?.try_into().ok()?));
    let address = |v4, v6| {
        attributes(ip).find_map(|(kind, value)| match kind {
            kind if kind == v4 => <[u8; 4]>::try_from(value).ok().map(|bytes| IpAddr::V4(Ipv4Addr::from(bytes))),
            kind if kind == v6 => <[u8; 16]>::try_from(value).ok().map(|bytes| IpAddr::V6(Ipv6Addr::from(bytes))),
            _ => None,
        })
    };
    Some((*find(transport, 1)?.first()?, (address(1, 3)?, port(2)?), (address(2, 4)?, port(3)?)))
}
