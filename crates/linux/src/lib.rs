//! The kernel behind a safe API.
