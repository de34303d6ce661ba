//! Ports of the node that lead to a pod.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// A transport protocol.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Protocol {
    /// TCP.
    #[default]
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    /// Its number in IP packets.
    pub fn number(self) -> u8 {
        match self {
            Protocol::Tcp => 6,
            Protocol::Udp => 17,
            Protocol::Sctp => 132,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        })
    }
}

/// One port of the node that leads to one port of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The protocol.
    pub protocol: Protocol,
    /// The pod's port.
    pub container_port: u16,
    /// The node's port; 0: none.
    pub host_port: u16,
    /// Only this address of the node; `None` or unspecified: all of them.
    pub host_ip: Option<IpAddr>,
}

impl PortMapping {
    /// The one address of the node it is limited to.
    pub(crate) fn only_address(&self) -> Option<IpAddr> {
        self.host_ip.filter(|ip| !ip.is_unspecified())
    }

    /// Whether both claim the same port of the same address.
    pub(crate) fn conflicts(&self, other: &PortMapping) -> bool {
        let overlap = match (self.only_address(), other.only_address()) {
            (Some(one), Some(another)) => one == another,
            _ => true,
        };
        overlap && self.host_port != 0 && (self.protocol, self.host_port) == (other.protocol, other.host_port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_belongs_to_one() {
        let port = |host_ip: &str, protocol, host_port| PortMapping {
            protocol,
            container_port: 80,
            host_port,
            host_ip: host_ip.parse().ok(),
        };
        let check = |a: PortMapping, b: PortMapping, conflict: bool| {
            assert_eq!((a.conflicts(&b), b.conflicts(&a)), (conflict, conflict), "{a:?} {b:?}");
        };
        use Protocol::{Tcp, Udp};
        check(port("", Tcp, 80), port("", Tcp, 80), true);
        check(port("", Tcp, 80), port("0.0.0.0", Tcp, 80), true);
        check(port("", Tcp, 80), port("10.0.0.1", Tcp, 80), true);
        check(port("10.0.0.1", Tcp, 80), port("10.0.0.1", Tcp, 80), true);
        check(port("10.0.0.1", Tcp, 80), port("10.0.0.2", Tcp, 80), false);
        check(port("", Tcp, 80), port("", Udp, 80), false);
        check(port("", Tcp, 80), port("", Tcp, 81), false);
        check(port("", Tcp, 0), port("", Tcp, 0), false);
    }
}
