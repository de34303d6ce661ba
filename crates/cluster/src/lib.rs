//! Commands for the life of a cluster.
