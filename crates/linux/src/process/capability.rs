//! Linux capabilities by name, and giving them up.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

/// Names without `CAP_`, by number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// A set of capabilities, one bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities(pub u64);

/// No capability has this name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown capability {0:?}")]
pub struct UnknownCapability(pub String);

impl Capabilities {
    /// The capability called `name`, with or without `CAP_`, in any case.
    pub fn named(name: &str) -> Result<Capabilities, UnknownCapability> {
        let upper = name.to_ascii_uppercase();
        let short = upper.strip_prefix("CAP_").unwrap_or(&upper);
        match NAMES.iter().position(|known| *known == short) {
            Some(number) => Ok(Capabilities(1 << number)),
            None => Err(UnknownCapability(name.to_owned())),
        }
    }

    /// What this process may give to others: its bounding set within its permitted one.
    pub fn available() -> io::Result<Capabilities> {
        let permitted = rustix::thread::capabilities(None)?.permitted.bits();
        let mut available = 0;
        for number in 0..64 {
            let bit = CapabilitySet::from_bits_retain(1 << number);
            match rustix::thread::capability_is_in_bounding_set(bit) {
                Ok(true) => available |= (1 << number) & permitted,
                Ok(false) => {}
                Err(rustix::io::Errno::INVAL) => break,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Capabilities(available))
    }

    /// Both sets' capabilities.
    pub fn with(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 | other.0)
    }

    /// This set without the other's.
    pub fn without(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 & !other.0)
    }

    /// What is in both.
    pub fn within(self, other: Capabilities) -> Capabilities {
        Capabilities(self.0 & other.0)
    }

    /// The names of the set's capabilities, with `CAP_`.
    pub fn names(self) -> Vec<String> {
        let known = NAMES.iter().enumerate().filter(|(number, _)| self.0 >> number & 1 == 1);
        known.map(|(_, name)| format!("CAP_{name}")).collect()
    }

    /// Gives up every other capability for good: bounding, permitted and effective become this set (as far as this thread
    /// has it), inheritable and ambient empty.
    pub fn keep_only(self) -> io::Result<()> {
        for number in 0..64 {
            let bit = CapabilitySet::from_bits_retain(1 << number);
            match rustix::thread::capability_is_in_bounding_set(bit) {
                Ok(true) if self.0 >> number & 1 == 0 => rustix::thread::remove_capability_from_bounding_set(bit)?,
                Ok(_) => {}
                Err(rustix::io::Errno::INVAL) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let _ = rustix::thread::clear_ambient_capability_set();
        let permitted = rustix::thread::capabilities(None)?.permitted.bits();
        let keep = CapabilitySet::from_bits_retain(self.0 & permitted);
        let sets = CapabilitySets { effective: keep, permitted: keep, inheritable: CapabilitySet::empty() };
        Ok(rustix::thread::set_capabilities(None, sets)?)
    }

    /// Makes this set, as far as this thread is permitted it, inheritable and ambient: programs it executes keep it whoever their
    /// user is. Does nothing for an empty set.
    pub fn make_ambient(self) -> io::Result<()> {
        if self.0 == 0 {
            return Ok(());
        }
        let sets = rustix::thread::capabilities(None)?;
        let ambient = CapabilitySet::from_bits_retain(self.0) & sets.permitted;
        rustix::thread::set_capabilities(None, CapabilitySets { inheritable: ambient, ..sets })?;
        for number in (0..64).filter(|number| ambient.bits() >> number & 1 == 1) {
            rustix::thread::configure_capability_in_ambient_set(CapabilitySet::from_bits_retain(1 << number), true)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_the_kernels() {
        let check = |name: &str, expect: Option<u64>| {
            assert_eq!(Capabilities::named(name).ok().map(|set| set.0), expect, "{name}");
        };
        check("CHOWN", Some(1 << 0));
        check("cap_net_admin", Some(1 << 12));
        check("CAP_SYS_ADMIN", Some(1 << 21));
        check("CHECKPOINT_RESTORE", Some(1 << 40));
        check("CAP_NOTHING", None);
        assert_eq!(Capabilities(1 << 5 | 1 << 13).names(), ["CAP_KILL", "CAP_NET_RAW"]);
    }

    #[test]
    fn sets_combine() {
        let (kill, raw) = (Capabilities::named("KILL").unwrap(), Capabilities::named("NET_RAW").unwrap());
        assert_eq!(kill.with(raw).without(kill), raw);
        assert_eq!(kill.with(raw).within(kill), kill);
    }
}
