//! Netfilter's netlink dialect, which nftables and connection tracking share: messages, attributes, and a socket.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

pub(crate) const REQUEST: u16 = 1;
pub(crate) const ACK: u16 = 4;
pub(crate) const DUMP: u16 = 0x300;
pub(crate) const CREATE: u16 = 0x400;
pub(crate) const APPEND: u16 = 0x800;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// A dump was overtaken by a change and is inconsistent.
const DUMP_INTERRUPTED: u16 = 0x10;
const NESTED: u16 = 0x8000;
/// Message header (16 bytes) and netfilter header (4 bytes).
const HEADER: usize = 20;
const ACK_TLVS: u16 = 0x200;
const CAPPED: u16 = 0x100;
const ATTRIBUTE_MESSAGE: u16 = 1;

/// Netlink messages under construction, one after the other.
#[derive(Clone, Debug)]
pub(crate) struct Messages {
    pub(crate) bytes: Vec<u8>,
    start: usize,
    sequence: u32,
}

impl Messages {
    pub(crate) fn new() -> Messages {
        Messages { bytes: Vec::with_capacity(4096), start: 0, sequence: 0 }
    }

    /// Appends one message, whose attributes `body` writes; returns its sequence number (1, 2, ...).
    pub(crate) fn push(
        &mut self,
        kind: u16,
        flags: u16,
        family: u8,
        resource: u16,
        body: impl FnOnce(&mut Self),
    ) -> u32 {
        self.start = self.bytes.len();
        self.sequence += 1;
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        body(self);
        let length = (self.bytes.len() - self.start) as u32;
        self.bytes[self.start..self.start + 4].copy_from_slice(&length.to_ne_bytes());
        self.sequence
    }

    /// Asks for an acknowledgement of the newest message.
    pub(crate) fn acknowledge_last(&mut self) {
        let flags = &mut self.bytes[self.start + 6..self.start + 8];
        let value = u16::from_ne_bytes([flags[0], flags[1]]) | ACK;
        flags.copy_from_slice(&value.to_ne_bytes());
    }

    pub(crate) fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.bytes.extend_from_slice(&((value.len() + 4) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.align();
    }

    pub(crate) fn string(&mut self, kind: u16, value: &str) {
        self.bytes.extend_from_slice(&((value.len() + 5) as u16).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        self.align();
    }

    pub(crate) fn u32(&mut self, kind: u16, value: u32) {
        self.attribute(kind, &value.to_be_bytes());
    }

    pub(crate) fn u64(&mut self, kind: u16, value: u64) {
        self.attribute(kind, &value.to_be_bytes());
    }

    pub(crate) fn nest(&mut self, kind: u16, body: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        body(self);
        let length = u16::try_from(self.bytes.len() - start).expect("callers split what exceeds an attribute");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn align(&mut self) {
        while !self.bytes.len().is_multiple_of(4) {
            self.bytes.push(0);
        }
    }
}

/// The attributes in `bytes`: kind (without flags) and value. Stops at the first malformed one.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

/// The value of the first attribute of this kind.
pub(crate) fn find(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

pub(crate) fn find_u32(bytes: &[u8], kind: u16) -> Option<u32> {
    Some(u32::from_be_bytes(find(bytes, kind)?.try_into().ok()?))
}

pub(crate) fn find_u64(bytes: &[u8], kind: u16) -> Option<u64> {
    Some(u64::from_be_bytes(find(bytes, kind)?.try_into().ok()?))
}

pub(crate) fn find_string(bytes: &[u8], kind: u16) -> Option<String> {
    let value = find(bytes, kind)?;
    Some(String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned())
}

/// The kernel's refusal of one message.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) sequence: u32,
    pub(crate) errno: i32,
    /// The kernel's explanation, if it gave one.
    pub(crate) detail: Option<String>,
}

/// A socket of the namespace it was opened in. The kernel answers within `send`, so nothing here waits.
pub(crate) struct Socket(OwnedFd);

impl Socket {
    pub(crate) fn open() -> io::Result<Socket> {
        let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: no memory is passed; a non-negative result is a descriptor nobody else owns.
        let socket = unsafe {
            let fd = libc::socket(libc::AF_NETLINK, flags, libc::NETLINK_NETFILTER);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Socket(OwnedFd::from_raw_fd(fd))
        };
        socket.set_option(libc::SOL_NETLINK, libc::NETLINK_CAP_ACK, 1)?;
        socket.set_option(libc::SOL_NETLINK, libc::NETLINK_EXT_ACK, 1)?;
        socket.set_option(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 4 << 20)?;
        Ok(socket)
    }

    /// Sends and collects what the kernel refused. `Ok(None)`: no acknowledgement came, so nothing is known.
    pub(crate) fn request(&self, messages: &Messages, last: u32) -> io::Result<Option<Vec<Refusal>>> {
        self.send(&messages.bytes)?;
        let (mut refusals, mut acknowledged) = (Vec::new(), false);
        self.receive(|kind, flags, sequence, body| {
            if kind == NLMSG_ERROR
                && let Some(code) = body.get(..4)
            {
                let errno = -i32::from_ne_bytes([code[0], code[1], code[2], code[3]]);
                acknowledged |= sequence == last && errno == 0;
                if errno != 0 {
                    refusals.push(Refusal { sequence, errno, detail: explanation(flags, body) });
                }
            }
            Ok(true)
        })?;
        Ok((acknowledged || !refusals.is_empty()).then_some(refusals))
    }

    /// Sends a dump request and hands every answer's attributes to `each`. Starts again when a change came between.
    pub(crate) fn dump(&self, request: &Messages, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.send(&request.bytes)?;
        let (mut done, mut interrupted) = (false, false);
        while !done {
            let any = self.receive(|kind, flags, _, body| {
                interrupted |= flags & DUMP_INTERRUPTED != 0;
                match kind {
                    NLMSG_DONE => done = true,
                    NLMSG_ERROR => {
                        let code =
                            body.get(..4).map_or(0, |code| i32::from_ne_bytes([code[0], code[1], code[2], code[3]]));
                        done = true;
                        if code != 0 {
                            return Err(io::Error::from_raw_os_error(-code));
                        }
                    }
                    // What follows the netfilter header.
                    kind => each(kind, body.get(4..).unwrap_or(&[])),
                }
                Ok(!done)
            })?;
            if !any && !done {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the kernel's dump stopped early"));
            }
        }
        match interrupted {
            true => Err(io::ErrorKind::Interrupted.into()),
            false => Ok(()),
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        // A transaction is one datagram, and may be larger than the system's limit on socket buffers.
        let size = i32::try_from(bytes.len() + (64 << 10)).map_err(|_| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
        self.set_option(libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, size)?;
        // SAFETY: the buffer is valid for its length, and the address for its size; all zero is a valid `sockaddr_nl`.
        let sent = unsafe {
            let mut address: libc::sockaddr_nl = std::mem::zeroed();
            address.nl_family = libc::AF_NETLINK as u16;
            let address_length = size_of::<libc::sockaddr_nl>() as u32;
            libc::sendto(self.fd(), bytes.as_ptr().cast(), bytes.len(), 0, (&raw const address).cast(), address_length)
        };
        if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Hands the messages that have arrived to `each` (kind, flags, sequence, body) until there are no more or it returns
    /// false; says whether there were any.
    pub(crate) fn receive(&self, mut each: impl FnMut(u16, u16, u32, &[u8]) -> io::Result<bool>) -> io::Result<bool> {
        let mut buffer = vec![0u8; 64 << 10];
        let mut any = false;
        loop {
            // SAFETY: the buffer is valid for writes of its length.
            let received = unsafe { libc::recv(self.fd(), buffer.as_mut_ptr().cast(), buffer.len(), 0) };
            if received < 0 {
                match io::Error::last_os_error() {
                    error if error.kind() == io::ErrorKind::WouldBlock => return Ok(any),
                    error if error.kind() == io::ErrorKind::Interrupted => continue,
                    error => return Err(error),
                }
            }
            any = true;
            let mut rest = &buffer[..received as usize];
            while let Some(header) = rest.get(..16) {
                let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
                let half = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
                let length = word(0) as usize;
                let Some(body) = rest.get(16..length) else { break };
                if !each(half(4), half(6), word(8), body)? {
                    return Ok(true);
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
            }
        }
    }

    /// The number that the kernel knows the socket by; it gets one if it has none.
    pub(crate) fn port(&self) -> io::Result<u32> {
        // SAFETY: the address is valid for its size, and for writes of it; all zero is a valid `sockaddr_nl`.
        unsafe {
            let mut address: libc::sockaddr_nl = std::mem::zeroed();
            address.nl_family = libc::AF_NETLINK as u16;
            let mut length = size_of::<libc::sockaddr_nl>() as u32;
            let known = |address: &mut libc::sockaddr_nl, length: &mut u32| {
                libc::getsockname(self.fd(), (&raw mut *address).cast(), length)
            };
            if known(&mut address, &mut length) < 0 {
                return Err(io::Error::last_os_error());
            }
            if address.nl_pid == 0
                && (libc::bind(self.fd(), (&raw const address).cast(), length) < 0
                    || known(&mut address, &mut length) < 0)
            {
                return Err(io::Error::last_os_error());
            }
            Ok(address.nl_pid)
        }
    }

    /// Hears of what the group is told.
    pub(crate) fn join(&self, group: i32) -> io::Result<()> {
        self.port()?;
        self.set_option(libc::SOL_NETLINK, libc::NETLINK_ADD_MEMBERSHIP, group)
    }

    /// Hears nothing of what the socket of this number did.
    pub(crate) fn refuse_from(&self, port: u32) -> io::Result<()> {
        let step = |code: u32, jt: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf: 0, k };
        // The filter reads as the network does, the header is written as the machine does.
        let is = u32::from_be_bytes(port.to_ne_bytes());
        let mut steps = [
            // The header's port number: that of whoever asked for the change.
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 12),
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, is),
            step(libc::BPF_RET | libc::BPF_K, 0, u32::MAX),
            step(libc::BPF_RET | libc::BPF_K, 0, 0),
        ];
        let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
        // SAFETY: the program and its steps are valid for their sizes, and the kernel keeps a copy.
        let result = unsafe {
            let length = size_of::<libc::sock_fprog>() as u32;
            libc::setsockopt(self.fd(), libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, (&raw const program).cast(), length)
        };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// The same socket by another descriptor.
    pub(crate) fn duplicate(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    fn set_option(&self, level: i32, option: i32, value: i32) -> io::Result<()> {
        // SAFETY: `value` is valid for its size.
        let result =
            unsafe { libc::setsockopt(self.fd(), level, option, (&raw const value).cast(), size_of::<i32>() as u32) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    fn fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// The text in an error message's trailing attributes.
fn explanation(flags: u16, body: &[u8]) -> Option<String> {
    // The error code, then the refused message's header (and its payload, unless capped).
    let payload = if flags & CAPPED != 0 { 16 } else { u32::from_ne_bytes(body.get(4..8)?.try_into().ok()?) as usize };
    if flags & ACK_TLVS == 0 {
        return None;
    }
    find_string(body.get(4 + payload.next_multiple_of(4)..)?, ATTRIBUTE_MESSAGE)
}

/// Splits a message that was built here (or received) into kind, and attributes.
pub(crate) fn split(bytes: &[u8]) -> impl Iterator<Item = (u16, u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(rest.get(4..6)?.try_into().ok()?);
        let flags = u16::from_ne_bytes(rest.get(6..8)?.try_into().ok()?);
        let body = rest.get(HEADER..length)?;
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, flags, body))
    })
}
