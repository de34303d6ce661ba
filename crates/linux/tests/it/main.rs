//! The kernel itself answers these tests: each makes its own namespaces.

mod net;
