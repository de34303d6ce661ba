//! The kubelet against an API server and a runtime in memory, on a paused clock.

mod fake_cri;
mod world;

mod devices;
mod images;
mod init;
mod lifecycle;
mod node;
mod probes;
mod provisioner;
mod resize;
mod restarts;
mod serving;
mod volumes;
