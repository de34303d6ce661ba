//! Everything the table promises, for every kind in it.

mod openapi;
mod parity;
mod populate;
mod protobuf;
mod round_trip;
