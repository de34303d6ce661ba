//! The server as its clients see it: through `Local`, and over real TLS.

mod access;
mod admission;
mod aggregation;
mod clients;
mod connect;
mod crds;
mod evictions;
mod fixture;
mod kinds;
mod lists;
mod parity;
mod policies;
mod quotas;
mod strategies;
mod wire;
mod writes;
