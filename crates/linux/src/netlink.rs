//! Links, addresses, routes and neighbours of one network namespace, over rtnetlink.

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;

use futures_util::{FutureExt, StreamExt, TryStreamExt};
use ipnet::IpNet;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressScope};
use rtnetlink::packet_route::link::{InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::neighbour::NeighbourState;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::{Handle, LinkMessageBuilder, LinkUnspec, RouteMessageBuilder};

use crate::netns::{self, NetNs};

/// A request failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection.
    #[error("open a netlink socket")]
    Open(#[source] io::Error),
    /// The namespace cannot be entered.
    #[error("enter the network namespace")]
    Namespace(#[from] netns::Error),
    /// The kernel refused.
    #[error("{request}")]
    Refused {
        /// What was asked, for people.
        request: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// No link has this name.
    #[error("no link {0}")]
    NoLink(String),
}

impl Error {
    /// The kernel's error number, if it was the kernel that refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// Carries a connection's messages: run it as a task for as long as the [`Netlink`] is used. Ends with the last clone.
pub type Driver = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A link's hardware address.
pub type Mac = [u8; 6];

/// A connection to one namespace.
#[derive(Clone)]
pub struct Netlink(Handle);

/// A network link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number in its namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its hardware address.
    pub mac: Option<Mac>,
    /// Its largest packet.
    pub mtu: u32,
    /// Whether it is administratively up.
    pub up: bool,
}

/// A veth pair to make: one end here, one in another namespace.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    /// This end's name.
    pub name: &'a str,
    /// This end's hardware address.
    pub mac: Mac,
    /// The other end's name.
    pub peer_name: &'a str,
    /// The other end's hardware address.
    pub peer_mac: Mac,
    /// Where the other end shall be.
    pub peer_ns: &'a NetNs,
    /// Both ends' largest packet.
    pub mtu: u32,
}

/// An address of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// The link's number.
    pub link: u32,
    /// The address and its prefix length.
    pub net: IpNet,
    /// Whether it is valid beyond its link and host.
    pub global: bool,
}

/// A unicast route in the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// Through which router; `None`: the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// Out of which link.
    pub link: Option<u32>,
    /// The source address of packets that have none yet.
    pub source: Option<IpAddr>,
    /// Among equal destinations the lowest wins.
    pub metric: Option<u32>,
    /// Who made it: rtnetlink's protocol number.
    pub protocol: u8,
    /// Of an IPv4 route without a router: packets to it get a source address that is valid beyond the link.
    pub universal: bool,
}

/// The protocol number of our routes (unassigned in iproute2's list).
pub const PROTOCOL: u8 = 0x6f;

impl Route {
    /// A route of ours to `destination` out of `link`.
    pub fn on_link(destination: IpNet, link: u32) -> Route {
        Route {
            destination,
            gateway: None,
            link: Some(link),
            source: None,
            metric: None,
            protocol: PROTOCOL,
            universal: false,
        }
    }
}

impl Netlink {
    /// Connects to the calling thread's namespace. Needs a tokio runtime with I/O.
    pub fn open() -> Result<(Netlink, Driver), Error> {
        let (connection, handle, _) = rtnetlink::new_connection().map_err(Error::Open)?;
        Ok((Netlink(handle), connection.boxed()))
    }

    /// Connects to `ns`. Needs a tokio runtime with I/O.
    pub async fn open_in(ns: &NetNs) -> Result<(Netlink, Driver), Error> {
        let runtime = tokio::runtime::Handle::current();
        ns.run_async(move || {
            let _entered = runtime.enter();
            Netlink::open()
        })
        .await?
    }

    /// Every link.
    pub async fn links(&self) -> Result<Vec<Link>, Error> {
        let found = self.0.link().get().execute().map_ok(link_from).try_collect().await;
        found.map_err(|error| refused("list links".into(), error))
    }

    /// The link called `name`.
    pub async fn find_link(&self, name: &str) -> Result<Option<Link>, Error> {
        let mut found = self.0.link().get().match_name(name).execute().boxed();
        match found.next().await {
            None => Ok(None),
            Some(Ok(message)) => Ok(Some(link_from(message))),
            Some(Err(error)) => match refused(format!("look for link {name}"), error) {
                error if error.errno() == Some(libc::ENODEV) => Ok(None),
                error => Err(error),
            },
        }
    }

    /// The link called `name`, which must exist.
    pub async fn link(&self, name: &str) -> Result<Link, Error> {
        self.find_link(name).await?.ok_or_else(|| Error::NoLink(name.to_owned()))
    }

    /// Makes a veth pair; this end is up at once.
    pub async fn add_veth(&self, veth: &Veth<'_>) -> Result<(), Error> {
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(veth.peer_name.to_owned()));
        peer.attributes.push(LinkAttribute::Address(veth.peer_mac.to_vec()));
        peer.attributes.push(LinkAttribute::Mtu(veth.mtu));
        peer.attributes.push(LinkAttribute::NetNsFd(veth.peer_ns.as_fd().as_raw_fd()));
        let message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth)
            .name(veth.name)
            .address(veth.mac.to_vec())
            .mtu(veth.mtu)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        let result = self.0.link().add(message).execute().await;
        result.map_err(|error| refused(format!("add link {}", veth.name), error))
    }

    /// Makes a link that leads nowhere: a place for addresses and routes. It is up at once. Its other end is called `name` with a
    /// `p` behind and goes with it; a kernel that has pods has these, but not always dummy links.
    pub async fn add_dummy(&self, name: &str) -> Result<(), Error> {
        let peer_name = format!("{name}p");
        let mut peer = LinkMessage::default();
        peer.attributes.push(LinkAttribute::IfName(peer_name.clone()));
        let message = LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(InfoKind::Veth)
            .name(name)
            .up()
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)))
            .build();
        let result = self.0.link().add(message).execute().await;
        result.map_err(|error| refused(format!("add link {name}"), error))?;
        self.set_up(self.link(&peer_name).await?.index).await
    }

    /// Brings the link up.
    pub async fn set_up(&self, link: u32) -> Result<(), Error> {
        let result = self.0.link().set(LinkUnspec::new_with_index(link).up().build()).execute().await;
        result.map_err(|error| refused(format!("bring up link {link}"), error))
    }

    /// Deletes the link called `name` (and a veth's other end); false if there was none.
    pub async fn delete_link(&self, name: &str) -> Result<bool, Error> {
        let Some(link) = self.find_link(name).await? else { return Ok(false) };
        match self.0.link().del(link.index).execute().await {
            Ok(()) => Ok(true),
            Err(error) => match refused(format!("delete link {name}"), error) {
                error if error.errno() == Some(libc::ENODEV) => Ok(false),
                error => Err(error),
            },
        }
    }

    /// Every address of every link.
    pub async fn addresses(&self) -> Result<Vec<Address>, Error> {
        let messages: Result<Vec<_>, _> = self.0.address().get().execute().try_collect().await;
        let messages = messages.map_err(|error| refused("list addresses".into(), error))?;
        let address = |message: rtnetlink::packet_route::address::AddressMessage| {
            // A point-to-point link's own address is `Local`; `Address` is then the other end's.
            let local = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Local(ip) => Some(*ip),
                _ => None,
            });
            let any = message.attributes.iter().find_map(|attribute| match attribute {
                AddressAttribute::Address(ip) => Some(*ip),
                _ => None,
            });
            Some(Address {
                link: message.header.index,
                net: IpNet::new(local.or(any)?, message.header.prefix_len).ok()?,
                global: message.header.scope == AddressScope::Universe,
            })
        };
        Ok(messages.into_iter().filter_map(address).collect())
    }

    /// Gives the link an address: no route comes with it, and no duplicate detection. It may be there already.
    pub async fn add_address(&self, link: u32, net: IpNet) -> Result<(), Error> {
        self.add_scoped_address(link, net, AddressScope::Universe).await
    }

    /// Like [`Netlink::add_address`], for an address that is only used on this link: nothing gets it as its source by itself.
    pub async fn add_link_address(&self, link: u32, net: IpNet) -> Result<(), Error> {
        self.add_scoped_address(link, net, AddressScope::Link).await
    }

    async fn add_scoped_address(&self, link: u32, net: IpNet, scope: AddressScope) -> Result<(), Error> {
        let mut request = self.0.address().add(link, net.addr(), net.prefix_len()).replace();
        request.message_mut().header.scope = scope;
        let flags = match net {
            IpNet::V4(_) => AddressFlags::Noprefixroute,
            IpNet::V6(_) => AddressFlags::Noprefixroute | AddressFlags::Nodad,
        };
        request.message_mut().attributes.push(AddressAttribute::Flags(flags));
        request.execute().await.map_err(|error| refused(format!("add address {net} to link {link}"), error))
    }

    /// Every unicast route of the main table.
    pub async fn routes(&self) -> Result<Vec<Route>, Error> {
        let mut all = Vec::new();
        let requests = [RouteMessageBuilder::<Ipv4Addr>::new().build(), RouteMessageBuilder::<Ipv6Addr>::new().build()];
        for request in requests {
            let found: Result<Vec<_>, _> = self.0.route().get(request).execute().try_collect().await;
            let found = found.map_err(|error| refused("list routes".into(), error))?;
            all.extend(found.into_iter().filter_map(route_from));
        }
        Ok(all)
    }

    /// Adds the route; takes the place of one with the same destination and metric.
    pub async fn add_route(&self, route: &Route) -> Result<(), Error> {
        let result = self.0.route().add(route_message(route)).replace().execute().await;
        result.map_err(|error| refused(format!("add route to {}", route.destination), error))
    }

    /// Deletes the route; false if there was none.
    pub async fn delete_route(&self, route: &Route) -> Result<bool, Error> {
        match self.0.route().del(route_message(route)).execute().await {
            Ok(()) => Ok(true),
            Err(error) => match refused(format!("delete route to {}", route.destination), error) {
                error if error.errno() == Some(libc::ESRCH) => Ok(false),
                error => Err(error),
            },
        }
    }

    /// Notes for good that `ip` on `link` has the hardware address `mac`.
    pub async fn add_neighbour(&self, link: u32, ip: IpAddr, mac: Mac) -> Result<(), Error> {
        let request = self.0.neighbours().add(link, ip).link_layer_address(&mac).state(NeighbourState::Permanent);
        let result = request.replace().execute().await;
        result.map_err(|error| refused(format!("add neighbour {ip} to link {link}"), error))
    }
}

fn refused(request: String, error: rtnetlink::Error) -> Error {
    let source = match error {
        rtnetlink::Error::NetlinkError(message) => message.to_io(),
        other => io::Error::other(other),
    };
    Error::Refused { request, source }
}

fn link_from(message: LinkMessage) -> Link {
    let mut link = Link {
        index: message.header.index,
        name: String::new(),
        mac: None,
        mtu: 0,
        up: message.header.flags.contains(LinkFlags::Up),
    };
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => link.name = name,
            LinkAttribute::Address(mac) => link.mac = mac.try_into().ok(),
            LinkAttribute::Mtu(mtu) => link.mtu = mtu,
            _ => {}
        }
    }
    link
}

fn route_message(route: &Route) -> RouteMessage {
    let scope = if route.gateway.is_some() || route.universal { RouteScope::Universe } else { RouteScope::Link };
    let protocol = RouteProtocol::from(route.protocol);
    match route.destination {
        IpNet::V4(net) => {
            let mut message = RouteMessageBuilder::<Ipv4Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .scope(scope)
                .protocol(protocol);
            if let Some(IpAddr::V4(gateway)) = route.gateway {
                message = message.gateway(gateway);
            }
            if let Some(IpAddr::V4(source)) = route.source {
                message = message.pref_source(source);
            }
            finish(message, route)
        }
        IpNet::V6(net) => {
            let mut message = RouteMessageBuilder::<Ipv6Addr>::new()
                .destination_prefix(net.network(), net.prefix_len())
                .protocol(protocol);
            if let Some(IpAddr::V6(gateway)) = route.gateway {
                message = message.gateway(gateway);
            }
            if let Some(IpAddr::V6(source)) = route.source {
                message = message.pref_source(source);
            }
            finish(message, route)
        }
    }
}

fn finish<T>(mut message: RouteMessageBuilder<T>, route: &Route) -> RouteMessage {
    if let Some(link) = route.link {
        message = message.output_interface(link);
    }
    if let Some(metric) = route.metric {
        message = message.priority(metric);
    }
    message.build()
}

fn route_from(message: RouteMessage) -> Option<Route> {
    if message.header.table != RouteHeader::RT_TABLE_MAIN || message.header.kind != RouteType::Unicast {
        return None;
    }
    let address = |address: &RouteAddress| match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    };
    let unspecified = match message.header.address_family {
        rtnetlink::packet_route::AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let mut route = Route {
        destination: IpNet::new(unspecified, 0).ok()?,
        gateway: None,
        link: None,
        source: None,
        metric: None,
        protocol: message.header.protocol.into(),
        universal: false,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(destination) => {
                route.destination = IpNet::new(address(destination)?, message.header.destination_prefix_length).ok()?;
            }
            RouteAttribute::Gateway(gateway) => route.gateway = address(gateway),
            RouteAttribute::Oif(link) => route.link = Some(*link),
            RouteAttribute::PrefSource(source) => route.source = address(source),
            RouteAttribute::Priority(metric) => route.metric = Some(*metric),
            _ => {}
        }
    }
    let universe = message.header.scope == RouteScope::Universe;
    route.universal = universe && unspecified.is_ipv4() && route.gateway.is_none();
    Some(route)
}
