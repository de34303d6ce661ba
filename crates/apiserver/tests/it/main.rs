//! The server as its clients see it: through `Local`, and over real TLS.

mod access;
mod clients;
mod connect;
mod fixture;
mod kinds;
mod lists;
mod parity;
mod strategies;
mod wire;
mod writes;
