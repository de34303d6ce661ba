//! Which sandbox has which addresses and ports: a record that outlives the daemon.
//!
//! An address that was given back is given out again only after all others of its range: clients may still be sending to
//! its former owner.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{NetworkError, PortMapping};

/// The record, as it is on disk.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    format: u32,
    /// The node's ranges, at most one per family, the primary one first.
    ranges: Vec<Range>,
    /// By sandbox id.
    pub(crate) sandboxes: BTreeMap<String, Sandbox>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Range {
    cidr: String,
    /// The offset to try first.
    next: u32,
}

/// What a sandbox has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sandbox {
    /// The end of its link that is in the node's namespace, without the scope's prefix.
    pub(crate) link: String,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<PortMapping>,
}

const FORMAT: u32 = 1;
/// The network's own address, and the gateway's.
const RESERVED: u32 = 2;

/// The record in memory and its file.
pub(crate) struct Ipam {
    path: PathBuf,
    record: Record,
}

impl Ipam {
    /// Reads the record, if there is one.
    pub(crate) fn open(path: PathBuf) -> Result<Ipam, NetworkError> {
        let record = match std::fs::read(&path) {
            Ok(bytes) => parse(&bytes).map_err(|detail| NetworkError::RecordFormat { path: path.clone(), detail })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Record { format: FORMAT, ..Record::default() },
            Err(source) => return Err(NetworkError::Record { path, source }),
        };
        Ok(Ipam { path, record })
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// The node's ranges.
    pub(crate) fn ranges(&self) -> Vec<IpNet> {
        self.record.ranges.iter().filter_map(|range| range.cidr.parse().ok()).collect()
    }

    /// Changes the node's ranges. Addresses in use must lie within the new ones.
    pub(crate) fn set_ranges(&mut self, ranges: &[IpNet]) -> Result<(), NetworkError> {
        for address in self.record.sandboxes.values().flat_map(|sandbox| &sandbox.addresses) {
            if !ranges.iter().any(|range| range.contains(address)) {
                let to = ranges.iter().map(IpNet::to_string).collect::<Vec<_>>().join(",");
                return Err(NetworkError::CidrInUse { to, address: *address });
            }
        }
        let before = std::mem::take(&mut self.record.ranges);
        self.record.ranges = ranges.iter().map(|net| Range { cidr: net.trunc().to_string(), next: RESERVED }).collect();
        for range in &mut self.record.ranges {
            if let Some(same) = before.iter().find(|former| former.cidr == range.cidr) {
                range.next = same.next;
            }
        }
        self.save()
    }

    /// Gives the sandbox one address of each range and its ports; the same ones again, if it has some.
    pub(crate) fn allocate(&mut self, id: &str, ports: &[PortMapping]) -> Result<Sandbox, NetworkError> {
        if let Some(sandbox) = self.record.sandboxes.get(id) {
            return Ok(sandbox.clone());
        }
        let ports: Vec<_> = ports.iter().filter(|port| port.host_port != 0).copied().collect();
        for port in &ports {
            let holds = |sandbox: &Sandbox| sandbox.ports.iter().any(|other| other.conflicts(port));
            if let Some((holder, _)) = self.record.sandboxes.iter().find(|(_, sandbox)| holds(sandbox)) {
                let holder = holder.clone();
                return Err(NetworkError::PortTaken { port: port.host_port, protocol: port.protocol, holder });
            }
        }
        if self.record.ranges.is_empty() {
            return Err(NetworkError::NoPodCidr);
        }
        let (mut addresses, mut offsets) = (Vec::new(), Vec::new());
        for range in &self.record.ranges {
            let (offset, address) =
                self.free(range).ok_or_else(|| NetworkError::Exhausted { range: range.cidr.clone() })?;
            addresses.push(address);
            offsets.push(offset);
        }
        let link = format!("v{:08x}", offsets[0]);
        for (range, offset) in self.record.ranges.iter_mut().zip(offsets) {
            range.next = offset + 1;
        }
        let sandbox = Sandbox { link, addresses, ports };
        self.record.sandboxes.insert(id.to_owned(), sandbox.clone());
        match self.save() {
            Ok(()) => Ok(sandbox),
            Err(error) => {
                self.record.sandboxes.remove(id);
                Err(error)
            }
        }
    }

    /// Takes back what the sandbox has.
    pub(crate) fn release(&mut self, id: &str) -> Result<(), NetworkError> {
        match self.record.sandboxes.remove(id) {
            Some(_) => self.save(),
            None => Ok(()),
        }
    }

    fn free(&self, range: &Range) -> Option<(u32, IpAddr)> {
        let net: IpNet = range.cidr.parse().ok()?;
        let taken: std::collections::HashSet<IpAddr> =
            self.record.sandboxes.values().flat_map(|sandbox| sandbox.addresses.iter().copied()).collect();
        let end = end(&net);
        let first = range.next.clamp(RESERVED, end.max(RESERVED));
        (first..end)
            .chain(RESERVED..first.min(end))
            .map(|offset| (offset, address(&net, offset)))
            .find(|(_, address)| !taken.contains(address))
    }

    fn save(&self) -> Result<(), NetworkError> {
        let failed = |source| NetworkError::Record { path: self.path.clone(), source };
        let bytes = serde_json::to_vec(&self.record).map_err(|error| failed(error.into()))?;
        replace(&self.path, &bytes).map_err(failed)
    }
}

/// The gateway of a range's pods, which is on the node's end of every link. IPv6 knows addresses that are only a link's; for
/// IPv4 it is the range's first one.
pub(crate) fn gateway(range: &IpNet) -> IpAddr {
    match range {
        IpNet::V4(_) => address(range, 1),
        IpNet::V6(_) => IpAddr::V6(std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
    }
}

/// The address `offset` after the range's first.
fn address(range: &IpNet, offset: u32) -> IpAddr {
    match range.network() {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip).wrapping_add(offset)).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip).wrapping_add(offset as u128)).into()),
    }
}

/// One more than the last usable offset: IPv4's last address means everybody.
fn end(range: &IpNet) -> u32 {
    let bits = (range.max_prefix_len() - range.prefix_len()) as u32;
    let size = 1_u32.checked_shl(bits).unwrap_or(u32::MAX);
    match range {
        IpNet::V4(_) => size.saturating_sub(1),
        IpNet::V6(_) => size,
    }
}

fn parse(bytes: &[u8]) -> Result<Record, String> {
    let record: Record = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match record.format {
        FORMAT => Ok(record),
        other => Err(format!("format {other} is not {FORMAT}")),
    }
}

/// Puts a new file in the old one's place: a reader sees one or the other.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("new");
    std::fs::write(&new, bytes)?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Protocol;

    /// A record whose folder ends with the test.
    struct Temporary(Ipam);

    fn ipam(name: &str, ranges: &[&str]) -> Temporary {
        let path = std::env::temp_dir().join(format!("oxikube-ipam-{}-{name}/pods.json", std::process::id()));
        let mut ipam = Temporary(Ipam::open(path).unwrap());
        ipam.set_ranges(&ranges.iter().map(|range| range.parse().unwrap()).collect::<Vec<_>>()).unwrap();
        ipam
    }

    impl std::ops::Deref for Temporary {
        type Target = Ipam;
        fn deref(&self) -> &Ipam {
            &self.0
        }
    }

    impl std::ops::DerefMut for Temporary {
        fn deref_mut(&mut self) -> &mut Ipam {
            &mut self.0
        }
    }

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(self.path.parent().unwrap());
        }
    }

    fn get(ipam: &mut Ipam, id: &str) -> String {
        match ipam.allocate(id, &[]) {
            Ok(sandbox) => sandbox.addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(","),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn an_address_comes_round_only_after_all_others() {
        let mut ipam = ipam("round", &["10.1.0.0/29", "fd00:1::/64"]);
        assert_eq!(get(&mut ipam, "a"), "10.1.0.2,fd00:1::2");
        assert_eq!(get(&mut ipam, "a"), "10.1.0.2,fd00:1::2");
        assert_eq!(get(&mut ipam, "b"), "10.1.0.3,fd00:1::3");
        ipam.release("a").unwrap();
        ipam.release("a").unwrap();
        for (id, last) in [("c", 4), ("d", 5), ("e", 6)] {
            assert_eq!(get(&mut ipam, id), format!("10.1.0.{last},fd00:1::{last}"));
        }
        assert_eq!(get(&mut ipam, "f"), "10.1.0.2,fd00:1::7");
        assert_eq!(get(&mut ipam, "g"), "no free address in 10.1.0.0/29");
        let mut again = Ipam::open(ipam.path.clone()).unwrap();
        assert_eq!(again.record, ipam.record);
        ipam.release("c").unwrap();
        again.release("c").unwrap();
        assert_eq!(get(&mut again, "g"), "10.1.0.4,fd00:1::8");
    }

    #[test]
    fn ranges_change_around_what_is_in_use() {
        let mut ipam = ipam("ranges", &["10.1.0.0/24"]);
        assert_eq!(get(&mut ipam, "a"), "10.1.0.2");
        let refused = ipam.set_ranges(&["10.2.0.0/24".parse().unwrap()]).unwrap_err();
        assert_eq!(refused.to_string(), "pod CIDR cannot become 10.2.0.0/24: 10.1.0.2 is in use");
        assert_eq!(get(&mut ipam, "b"), "10.1.0.3");
        ipam.release("a").unwrap();
        ipam.release("b").unwrap();
        ipam.set_ranges(&["10.2.0.0/24".parse().unwrap()]).unwrap();
        assert_eq!(get(&mut ipam, "b"), "10.2.0.2");
        ipam.release("b").unwrap();
        ipam.set_ranges(&[]).unwrap();
        assert_eq!(get(&mut ipam, "b"), "the node has no pod CIDR yet");
    }

    #[test]
    fn a_port_has_one_holder() {
        let mut ipam = ipam("ports", &["10.1.0.0/24"]);
        let port = PortMapping { protocol: Protocol::Udp, container_port: 53, host_port: 5353, host_ip: None };
        ipam.allocate("a", &[port, PortMapping { host_port: 0, ..port }]).unwrap();
        let refused = ipam.allocate("b", &[port]).unwrap_err();
        assert_eq!(refused.to_string(), "host port 5353/UDP is taken by sandbox a");
        ipam.release("a").unwrap();
        ipam.allocate("b", &[port]).unwrap();
        ipam.release("b").unwrap();
    }

    #[test]
    fn a_newer_record_is_not_touched() {
        assert_eq!(parse(br#"{"format":2,"ranges":[],"sandboxes":{}}"#).unwrap_err(), "format 2 is not 1");
    }
}
