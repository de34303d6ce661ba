//! Committing transactions, and reading tables back.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::batch::{Batch, Family};
use super::set::{Element, read_element};
use super::{
    GETCHAIN, GETRULE, GETSET, GETSETELEM, GETTABLE, NEWCHAIN, NEWRULE, NEWSET, NEWSETELEM, NEWTABLE, SUBSYSTEM, text,
};
use crate::netfilter::{self, DUMP, Messages, attributes, find, find_string};
use crate::netns::{self, NetNs};

/// nftables refused, or cannot be reached.
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
    /// The transaction changed nothing, because of these messages.
    #[error("table {table}: {}", failures.iter().map(Failure::to_string).collect::<Vec<_>>().join(", "))]
    Refused {
        /// The batch's table.
        table: String,
        /// At least one.
        failures: Vec<Failure>,
    },
    /// The kernel neither acknowledged nor refused.
    #[error("table {table}: the kernel did not answer")]
    NoAnswer {
        /// The batch's table.
        table: String,
    },
}

/// One message of a transaction that the kernel refused.
#[derive(Debug)]
pub struct Failure {
    /// What the message was to do.
    pub step: String,
    /// The kernel's error number.
    pub errno: i32,
    /// The kernel's own words, if any.
    pub detail: Option<String>,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{}: {}", self.step, io::Error::from_raw_os_error(self.errno))?;
        match &self.detail {
            Some(detail) => write!(out, " ({detail})"),
            None => Ok(()),
        }
    }
}

impl Error {
    /// The first error number of a refusal.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Error::Refused { failures, .. } => failures.first().map(|failure| failure.errno),
            Error::Socket { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}

/// All that is in a table. Two tables that treat packets alike are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Chains and their rules, in a readable form.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Sets and maps with their elements.
    pub sets: BTreeMap<String, BTreeSet<Element>>,
}

/// A connection to one namespace's nftables. Calls take as long as the kernel needs, microseconds to a second.
pub struct Socket(pub(super) netfilter::Socket);

impl Socket {
    /// Connects to the calling thread's namespace.
    pub fn open() -> Result<Socket, Error> {
        netfilter::Socket::open().map(Socket).map_err(failed("open a netfilter socket"))
    }

    /// Connects to `ns`.
    pub fn open_in(ns: &NetNs) -> Result<Socket, Error> {
        ns.run(Socket::open)?
    }

    /// Does all of the batch, or nothing.
    pub fn commit(&self, mut batch: Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let last = batch.finish();
        match self.0.request(&batch.messages, last).map_err(failed("send a transaction"))? {
            None => Err(Error::NoAnswer { table: batch.table }),
            Some(refusals) if refusals.is_empty() => Ok(()),
            Some(refusals) => {
                let step = |sequence: u32| (sequence as usize).checked_sub(2).and_then(|at| batch.steps.get(at));
                let failures = refusals.into_iter().map(|refusal| Failure {
                    step: step(refusal.sequence).cloned().unwrap_or_else(|| "transaction".to_owned()),
                    errno: refusal.errno,
                    detail: refusal.detail,
                });
                Err(Error::Refused { failures: failures.collect(), table: batch.table })
            }
        }
    }

    /// Deletes the table; false if there was none.
    pub fn delete_table(&self, family: Family, table: &str) -> Result<bool, Error> {
        let mut batch = Batch::new(family, table);
        batch.delete_table();
        match self.commit(batch) {
            Ok(()) => Ok(true),
            // No such table, or a kernel without this family.
            Err(error) if matches!(error.errno(), Some(libc::ENOENT | libc::EAFNOSUPPORT)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The names of all tables of a family.
    pub fn tables(&self, family: Family) -> Result<Vec<String>, Error> {
        self.list(family, GETTABLE, NEWTABLE, |_| {}, |bytes, out| out.extend(find_string(bytes, 1)))
    }

    /// The elements of a set or map. Those of one that doesn't exist: none.
    pub fn elements(&self, family: Family, table: &str, set: &str) -> Result<Vec<Element>, Error> {
        let asked = |out: &mut Messages| {
            out.string(1, table);
            out.string(2, set);
        };
        let result = self.list(family, GETSETELEM, NEWSETELEM, asked, |bytes, out| {
            let list = find(bytes, 3).unwrap_or(&[]);
            out.extend(attributes(list).filter_map(|(_, element)| read_element(element)));
        });
        match result {
            Err(error) if error.errno() == Some(libc::ENOENT) => Ok(Vec::new()),
            result => result,
        }
    }

    /// The names of the table's sets and maps; none, if there is no such table.
    pub fn sets(&self, family: Family, table: &str) -> Result<Vec<String>, Error> {
        let each = |bytes: &[u8], out: &mut Vec<String>| {
            if find_string(bytes, 1).as_deref() == Some(table) {
                out.extend(find_string(bytes, 2));
            }
        };
        self.list(family, GETSET, NEWSET, |_| {}, each)
    }

    /// Everything in the table; nothing, if there is none. What is left of timed elements' lives is left out.
    pub fn contents(&self, family: Family, table: &str) -> Result<Contents, Error> {
        let ours = |bytes: &[u8]| find_string(bytes, 1).as_deref() == Some(table);
        let mut contents = Contents::default();
        let chains = self.list(
            family,
            GETCHAIN,
            NEWCHAIN,
            |_| {},
            |bytes, out| {
                if ours(bytes) {
                    out.push((find_string(bytes, 3).unwrap_or_default(), text::base(bytes)));
                }
            },
        )?;
        for (name, base) in chains {
            contents.chains.entry(name).or_default().extend(base);
        }
        let rules = self.list(
            family,
            GETRULE,
            NEWRULE,
            |out| out.string(1, table),
            |bytes, out| {
                if ours(bytes) {
                    out.push((find_string(bytes, 2).unwrap_or_default(), text::rule(find(bytes, 4).unwrap_or(&[]))));
                }
            },
        )?;
        for (chain, rule) in rules {
            contents.chains.entry(chain).or_default().push(rule);
        }
        for set in self.sets(family, table)? {
            let elements = self.elements(family, table, &set)?.into_iter();
            let elements = elements.map(|element| Element { expiry: None, ..element }).collect();
            contents.sets.insert(set, elements);
        }
        Ok(contents)
    }

    /// One consistent dump.
    fn list<T>(
        &self,
        family: Family,
        request: u16,
        answer: u16,
        asked: impl Fn(&mut Messages),
        mut each: impl FnMut(&[u8], &mut Vec<T>),
    ) -> Result<Vec<T>, Error> {
        const ATTEMPTS: usize = 100;
        let mut messages = Messages::new();
        messages.push(SUBSYSTEM << 8 | request, DUMP, family.number(), 0, asked);
        let mut attempt = 0;
        loop {
            attempt += 1;
            let mut found = Vec::new();
            let result = self.0.dump(&messages, |kind, body| {
                if kind == SUBSYSTEM << 8 | answer {
                    each(body, &mut found);
                }
            });
            match result {
                Ok(()) => return Ok(found),
                Err(error) if error.kind() == io::ErrorKind::Interrupted && attempt < ATTEMPTS => {}
                Err(source) => return Err(Error::Socket { action: "list tables", source }),
            }
        }
    }
}

pub(super) fn failed(action: &'static str) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Socket { action, source }
}
