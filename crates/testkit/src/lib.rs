//! Clusters and registries for tests.
