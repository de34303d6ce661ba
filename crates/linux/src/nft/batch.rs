//! A transaction: messages that take effect together or not at all.

use super::rule::Rule;
use super::set::{Element, Set, Target, datatype, length, write_element};
use super::*;
use crate::netfilter::{APPEND, CREATE, Messages};

const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// The address family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    Ip,
    /// IPv6.
    Ip6,
}

impl Family {
    pub(crate) fn number(self) -> u8 {
        match self {
            Family::Ip => 2,
            Family::Ip6 => 10,
        }
    }

    /// The field of an address.
    pub fn address(self) -> Field {
        match self {
            Family::Ip => Field::Ipv4,
            Family::Ip6 => Field::Ipv6,
        }
    }

    /// How many registers an address fills.
    pub fn registers(self) -> u8 {
        (self.address().length() / 4) as u8
    }

    /// The family of an address.
    pub fn of(address: std::net::IpAddr) -> Family {
        if address.is_ipv4() { Family::Ip } else { Family::Ip6 }
    }
}

/// What a base chain may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Judge packets.
    Filter,
    /// Translate addresses; sees the first packet of each connection.
    Nat,
}

/// Where in a packet's way a base chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Before routing, of packets that arrive.
    Prerouting = 0,
    /// To this machine.
    Input = 1,
    /// Through this machine.
    Forward = 2,
    /// From this machine.
    Output = 3,
    /// After routing, of packets that leave.
    Postrouting = 4,
}

/// Changes to one table. Nothing happens before [`Socket::commit`].
#[derive(Debug)]
pub struct Batch {
    pub(crate) family: Family,
    pub(crate) table: String,
    pub(crate) messages: Messages,
    /// What each message does, for error reports; the first is sequence number 2.
    pub(crate) steps: Vec<String>,
}

/// Elements of one message: well below an attribute's 64 KiB.
const ELEMENTS_LIMIT: usize = 60_000;

impl Batch {
    /// An empty transaction on `table`.
    pub fn new(family: Family, table: &str) -> Batch {
        let mut messages = Messages::new();
        messages.push(BATCH_BEGIN, 0, 0, SUBSYSTEM, |_| {});
        Batch { family, table: table.to_owned(), messages, steps: Vec::new() }
    }

    /// The table's family.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Makes the table, unless it exists.
    pub fn table(&mut self) {
        self.push(NEWTABLE, CREATE, "add table".into(), 1, |out| out.u32(2, 0));
    }

    /// Deletes the table, which must exist.
    pub fn delete_table(&mut self) {
        self.push(DELTABLE, 0, "delete table".into(), 1, |_| {});
    }

    /// Empties the table, or makes it.
    pub fn replace_table(&mut self) {
        // There must be one to delete; "destroy", which doesn't mind, came with Linux 6.3.
        self.table();
        self.delete_table();
        self.table();
    }

    /// Makes a chain that rules and verdicts lead to, unless it exists.
    pub fn chain(&mut self, chain: &str) {
        self.push(NEWCHAIN, CREATE, format!("add chain {chain}"), 1, |out| out.string(3, chain));
    }

    /// Makes a chain that packets enter at `hook`, in the order of priorities. What reaches its end passes.
    pub fn base_chain(&mut self, chain: &str, kind: ChainKind, hook: Hook, priority: i32) {
        const POLICY_ACCEPT: u32 = 1;
        self.push(NEWCHAIN, CREATE, format!("add chain {chain}"), 1, |out| {
            out.string(3, chain);
            out.nest(4, |out| {
                out.u32(1, hook as u32);
                out.u32(2, priority as u32);
            });
            out.u32(5, POLICY_ACCEPT);
            let kind = match kind {
                ChainKind::Filter => "filter",
                ChainKind::Nat => "nat",
            };
            out.string(7, kind);
        });
    }

    /// Deletes the chain and its rules. Nothing may lead to it any more.
    pub fn delete_chain(&mut self, chain: &str) {
        self.push(DELRULE, 0, format!("flush chain {chain}"), 1, |out| out.string(2, chain));
        self.push(DELCHAIN, 0, format!("delete chain {chain}"), 1, |out| out.string(3, chain));
    }

    /// Appends the rule that `write` describes to the chain.
    pub fn rule(&mut self, chain: &str, write: impl FnOnce(&mut Rule)) {
        let family = self.family;
        self.push(NEWRULE, CREATE | APPEND, format!("add rule to {chain}"), 1, |out| {
            out.string(2, chain);
            out.nest(4, |out| write(&mut Rule::new(out, family)));
        });
    }

    /// Makes the set or map.
    pub fn set(&mut self, set: &Set) {
        const INTERVAL: u32 = 4;
        const MAP: u32 = 8;
        const TIMEOUT: u32 = 0x10;
        const EVAL: u32 = 0x20;
        const CONCAT: u32 = 0x80;
        const TYPE_VERDICT: u32 = 0xffff_ff00;
        let mut flags = 0;
        if set.dynamic {
            flags |= TIMEOUT | EVAL;
        }
        if set.intervals {
            flags |= INTERVAL | CONCAT;
        }
        if set.target != Target::Nothing {
            flags |= MAP;
        }
        // The kernel demands a number for sets of the same transaction, though nothing here refers to it.
        let id = self.steps.len() as u32 + 1;
        self.push(NEWSET, CREATE, format!("add set {}", set.name), 1, |out| {
            out.string(2, set.name);
            out.u32(3, flags);
            out.u32(4, datatype(&set.key));
            out.u32(5, length(&set.key));
            match &set.target {
                Target::Nothing => {}
                Target::Value(value) => {
                    out.u32(6, datatype(value));
                    out.u32(7, length(value));
                }
                Target::Verdict => {
                    out.u32(6, TYPE_VERDICT);
                    out.u32(7, 16);
                }
            }
            out.u32(10, id);
            if set.intervals {
                out.nest(9, |out| {
                    out.nest(2, |out| set.key.iter().for_each(|field| out.nest(1, |out| out.u32(1, field.length()))));
                });
            }
        });
    }

    /// Deletes the set, which nothing may use any more.
    pub fn delete_set(&mut self, set: &str) {
        self.push(DELSET, 0, format!("delete set {set}"), 1, |out| out.string(2, set));
    }

    /// Adds elements. One that is there already must be the same.
    pub fn add_elements(&mut self, set: &str, elements: impl IntoIterator<Item = Element>) {
        self.elements(NEWSETELEM, CREATE, set, elements);
    }

    /// Deletes elements by their keys; each must exist.
    pub fn delete_elements(&mut self, set: &str, elements: impl IntoIterator<Item = Element>) {
        self.elements(DELSETELEM, 0, set, elements);
    }

    fn elements(&mut self, kind: u16, flags: u16, set: &str, elements: impl IntoIterator<Item = Element>) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            let verb = if kind == NEWSETELEM { "add elements to" } else { "delete elements of" };
            self.push(kind, flags, format!("{verb} {set}"), 1, |out| {
                out.string(2, set);
                let start = out.bytes.len();
                out.nest(3, |out| {
                    while out.bytes.len() - start < ELEMENTS_LIMIT
                        && let Some(element) = elements.next()
                    {
                        write_element(out, &element, kind == DELSETELEM);
                    }
                });
            });
        }
    }

    fn push(&mut self, kind: u16, flags: u16, step: String, name: u16, body: impl FnOnce(&mut Messages)) {
        let table = &self.table;
        self.messages.push(SUBSYSTEM << 8 | kind, flags, self.family.number(), 0, |out| {
            out.string(name, table);
            body(out);
        });
        self.steps.push(step);
    }

    /// Closes the transaction; returns the sequence number that the kernel will acknowledge.
    pub(crate) fn finish(&mut self) -> u32 {
        self.messages.acknowledge_last();
        self.messages.push(BATCH_END, 0, 0, SUBSYSTEM, |_| {}) - 1
    }
}
