//! The process that stands between a pod's containers and the daemon.
