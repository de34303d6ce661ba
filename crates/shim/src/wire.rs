//! Packets with file descriptors over unix sockets.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};

/// The most descriptors one packet carries.
const MAX_DESCRIPTORS: usize = 4;

/// A listening socket at `path`, which may be longer than a socket's address: the folder is named by a descriptor.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    listen_as(SocketType::SEQPACKET, path)
}

/// A listening socket at `path` to which a terminal's other side is sent, see [`receive_terminal`].
pub(crate) fn listen_for_terminal(path: &Path) -> io::Result<OwnedFd> {
    listen_as(SocketType::STREAM, path)
}

/// The descriptor that was sent to a socket of [`listen_for_terminal`]; does not wait for one.
pub(crate) fn receive_terminal(listener: impl AsFd) -> io::Result<OwnedFd> {
    let socket = accept(listener)?;
    let mut text = [0u8; 64];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(&mut text)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let mut rights = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(rights) => Some(rights),
        _ => None,
    });
    rights.next().and_then(|mut rights| rights.next()).ok_or_else(|| io::Error::other("no terminal was sent"))
}

fn listen_as(kind: SocketType, path: &Path) -> io::Result<OwnedFd> {
    let socket = socket(kind)?;
    with_short_path(path, |address| Ok(rustix::net::bind(&socket, address)?))?;
    rustix::net::listen(&socket, 16)?;
    Ok(socket)
}

/// A connection to the socket at `path`.
pub fn connect(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket(SocketType::SEQPACKET)?;
    with_short_path(path, |address| Ok(rustix::net::connect(&socket, address)?))?;
    Ok(socket)
}

/// The next connection of a listening socket.
pub fn accept(listener: impl AsFd) -> io::Result<OwnedFd> {
    Ok(rustix::net::accept_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)?)
}

fn socket(kind: SocketType) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?)
}

fn with_short_path<T>(path: &Path, use_it: impl FnOnce(&SocketAddrUnix) -> io::Result<T>) -> io::Result<T> {
    let invalid = || io::Error::new(io::ErrorKind::InvalidInput, "a socket needs a folder and a name");
    let (folder, name) = (path.parent().ok_or_else(invalid)?, path.file_name().ok_or_else(invalid)?);
    let folder = File::open(folder)?;
    let short = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name);
    use_it(&SocketAddrUnix::new(&short)?)
}

/// Sends one packet.
pub fn send(socket: impl AsFd, packet: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many descriptors"));
    }
    rustix::net::sendmsg(socket, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// The next packet and its descriptors; `None` when the other side is gone.
pub fn receive(socket: impl AsFd) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let socket = socket.as_fd();
    let mut nothing = [0u8; 0];
    let (_, size) = rustix::net::recv(socket, &mut nothing[..], RecvFlags::PEEK | RecvFlags::TRUNC)?;
    if size == 0 {
        return Ok(None);
    }
    let mut packet = vec![0; size];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_DESCRIPTORS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received =
        rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut packet)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
    packet.truncate(received.bytes);
    let mut descriptors = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            descriptors.extend(rights);
        }
    }
    Ok(Some((packet, descriptors)))
}

/// A pipe whose ends close when a program is executed; reading end first.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?)
}

/// Makes reads and writes return at once.
pub fn set_nonblocking(descriptor: impl AsFd) -> io::Result<()> {
    let flags = rustix::fs::fcntl_getfl(&descriptor)?;
    Ok(rustix::fs::fcntl_setfl(&descriptor, flags | rustix::fs::OFlags::NONBLOCK)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn packets_and_descriptors_arrive_whole() {
        let folder = std::env::temp_dir().join(format!("shim-wire-{}", std::process::id())).join("long".repeat(40));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("shim.sock");
        let listener = listen(&path).unwrap();
        let ours = connect(&path).unwrap();
        let theirs = accept(&listener).unwrap();
        let (read, write) = pipe().unwrap();
        let big = vec![b'x'; 100_000];
        send(&ours, &big, &[write.as_fd()]).unwrap();
        send(&ours, b"second", &[]).unwrap();
        drop(write);
        let (packet, descriptors) = receive(&theirs).unwrap().unwrap();
        assert_eq!(packet, big);
        let mut file = File::from(descriptors.into_iter().next().unwrap());
        file.write_all(b"through").unwrap();
        drop(file);
        let mut text = String::new();
        File::from(read).read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert_eq!(receive(&theirs).unwrap().unwrap().0, b"second");
        assert_eq!(receive(&theirs).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(ours);
        assert!(receive(&theirs).unwrap().is_none());
        std::fs::remove_dir_all(folder.parent().unwrap()).unwrap();
    }
}
