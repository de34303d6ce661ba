//! nftables over netlink: build a [`Batch`] for one table, commit it as one transaction, read tables back.
//!
//! Attribute numbers and layouts are the kernel's (`linux/netfilter/nf_tables.h`). It knows nothing of Services; names of
//! tables come from [`Scope`](crate::Scope).
//!
//! ```no_run
//! use linux::nft::{Batch, Element, Family, Field, Set, Socket, reg};
//!
//! let mut batch = Batch::new(Family::Ip, "example");
//! batch.replace_table();
//! batch.set(&Set::new("blocked", &[Field::Ipv4]));
//! batch.chain("check");
//! batch.rule("check", |rule| {
//!     rule.source_address(reg(0)).lookup("blocked", reg(0)).drop_packet();
//! });
//! batch.add_elements("blocked", [Element::key([192, 0, 2, 1])]);
//! Socket::open()?.commit(batch)?;
//! # Ok::<(), linux::nft::Error>(())
//! ```

mod batch;
mod losses;
mod rule;
mod set;
mod socket;
mod text;

pub use batch::{Batch, ChainKind, Family, Hook};
pub use losses::Losses;
pub use rule::{Reg, Rule, reg};
pub use set::{Data, Element, Field, Set, Value, Verdict};
pub use socket::{Contents, Error, Failure, Socket};

/// A network range as (address, mask), which [`Rule::in_range`] compares with.
pub(crate) fn masked(net: &ipnet::IpNet) -> (Vec<u8>, Vec<u8>) {
    match net {
        ipnet::IpNet::V4(net) => (net.network().octets().to_vec(), net.netmask().octets().to_vec()),
        ipnet::IpNet::V6(net) => (net.network().octets().to_vec(), net.netmask().octets().to_vec()),
    }
}

// Messages: `NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_*`.
const SUBSYSTEM: u16 = 10;
const NEWTABLE: u16 = 0;
const GETTABLE: u16 = 1;
const DELTABLE: u16 = 2;
const NEWCHAIN: u16 = 3;
const GETCHAIN: u16 = 4;
const DELCHAIN: u16 = 5;
const NEWRULE: u16 = 6;
const GETRULE: u16 = 7;
const DELRULE: u16 = 8;
const NEWSET: u16 = 9;
const GETSET: u16 = 10;
const DELSET: u16 = 11;
const NEWSETELEM: u16 = 12;
const GETSETELEM: u16 = 13;
const DELSETELEM: u16 = 14;
