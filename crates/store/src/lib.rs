//! Revisioned bytes with etcd's semantics.
