//! Cluster DNS from informers.
