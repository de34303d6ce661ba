//! Hearing that somebody else took something out of a table.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

use super::socket::{Error, Socket, failed};
use super::{DELCHAIN, DELRULE, DELSET, DELSETELEM, DELTABLE, SUBSYSTEM};
use crate::netfilter::{self, find_string};
use crate::netns::NetNs;

/// `NFNLGRP_NFTABLES`: every change of every table of a namespace.
const GROUP: i32 = 7;

/// Tells when anybody but one socket takes something out of a table of either family.
pub struct Losses {
    socket: netfilter::Socket,
    ready: AsyncFd<OwnedFd>,
    table: String,
}

impl Losses {
    /// Listens in `ns` for losses of `table` that are not `ours`. Must be called within a tokio runtime.
    pub fn open_in(ns: &NetNs, table: &str, ours: &Socket) -> Result<Losses, Error> {
        let socket = ns.run(netfilter::Socket::open)?.map_err(failed("open a netfilter socket"))?;
        let listen = || {
            // Our own changes, as large as a full load, don't even reach the socket's buffer.
            socket.refuse_from(ours.port()?)?;
            socket.join(GROUP)?;
            crate::ready::register(socket.duplicate()?)
        };
        let ready = listen().map_err(failed("listen for changes of rules"))?;
        Ok(Losses { socket, ready, table: table.to_owned() })
    }

    /// Waits for the next loss. When there was more to hear than could be kept, it may have been one.
    pub async fn next(&self) -> Result<(), Error> {
        let failed = || failed("hear of changes of rules");
        loop {
            let mut readable = self.ready.readable().await.map_err(failed())?;
            let mut lost = false;
            let read = self.socket.receive(|kind, _, _, body| {
                lost |= self.is_loss(kind, body);
                Ok(true)
            });
            match read {
                Ok(_) => readable.clear_ready(),
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => lost = true,
                Err(error) => return Err(failed()(error)),
            }
            if lost {
                return Ok(());
            }
        }
    }

    fn is_loss(&self, kind: u16, body: &[u8]) -> bool {
        let deletions = [DELTABLE, DELCHAIN, DELRULE, DELSET, DELSETELEM];
        deletions.iter().any(|deletion| kind == SUBSYSTEM << 8 | deletion)
            // What follows the netfilter header names the table first.
            && body.get(4..).and_then(|attributes| find_string(attributes, 1)).as_deref() == Some(self.table.as_str())
    }
}

impl Socket {
    /// What the kernel knows the socket by.
    fn port(&self) -> io::Result<u32> {
        self.0.port()
    }
}
