//! SPDY/3.1 as Kubernetes' streams speak it: many byte streams with headers over one upgraded connection.
//!
//! [`frame`] turns bytes into frames and back and does no I/O; [`Connection`] drives it over a connection, either side. As in
//! moby/spdystream, which every client uses, windows are neither announced nor heeded: a side that doesn't read holds up
//! the whole connection, here after [`QUEUED`] bytes. Settings and window updates are passed over.

mod connection;
mod dictionary;
pub mod frame;
mod state;
mod stream;
mod upgrade;

pub use connection::Connection;
pub use state::Headers;
pub use stream::{Offer, Reader, Stream, Writer};
pub use upgrade::{Handshake, NAME, PROTOCOL_VERSION, Upgrade, is_upgrade, upgrade};

/// So many bytes may wait for their readers on one connection.
const QUEUED: usize = 512 * 1024;
/// So many bytes may wait for the connection before writers are held up.
const UNSENT: usize = 256 * 1024;
/// A writer's bytes travel in frames of this size at the most.
const CHUNK: usize = 32 * 1024;
/// So many streams may be open at a time.
const STREAMS: usize = 1024;

#[cfg(test)]
mod tests;
