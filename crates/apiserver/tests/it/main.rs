//! The server as its clients see it: through `Local`, and over real TLS.

mod access;
mod connect;
mod fixture;
mod kinds;
mod lists;
mod wire;
mod writes;
