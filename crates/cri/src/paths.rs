//! What containers are not to see or change of `/proc` and `/sys`, unless they ask for it. The kubelet says so with each container;
//! a runtime falls back to it where a client says nothing. Upstream: `pkg/securitycontext` and containerd's `oci` defaults.

/// Hidden from containers.
pub const MASKED: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Seen, but not written to.
pub const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
