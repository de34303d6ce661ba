//! Kubernetes' object model without any I/O.
