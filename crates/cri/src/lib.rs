//! CRI messages and client.
