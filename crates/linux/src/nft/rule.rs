//! The expressions of a rule, in the order in which the kernel evaluates them.

use std::time::Duration;

use ipnet::IpNet;

use super::batch::Family;
use super::masked;
use super::set::{Verdict, write_value, write_verdict};
use crate::netfilter::Messages;

/// One of the sixteen registers of four bytes. Larger things fill several from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reg(u8);

/// Register `n`, 0 to 15.
pub const fn reg(n: u8) -> Reg {
    assert!(n < 16);
    Reg(n)
}

impl Reg {
    /// The register `n` further on.
    pub const fn plus(self, n: u8) -> Reg {
        reg(self.0 + n)
    }

    fn number(self) -> u32 {
        8 + self.0 as u32
    }
}

const VERDICT_REGISTER: u32 = 0;
const CMP_EQ: u32 = 0;
const CMP_NE: u32 = 1;
const META_MARK: u32 = 3;
const META_IIF: u32 = 4;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CT_STATE_NEW: u32 = 8;
const CT_STATUS_DNAT: u32 = 0x20;
/// Where local addresses of the routing table are told apart.
const RTN_LOCAL: u32 = 2;
/// The loopback link's index in every namespace.
const LOOPBACK: u32 = 1;

/// A rule under construction. Conditions that don't hold end it; what follows is not evaluated.
pub struct Rule<'a> {
    out: &'a mut Messages,
    family: Family,
}

impl Rule<'_> {
    pub(crate) fn new(out: &mut Messages, family: Family) -> Rule<'_> {
        Rule { out, family }
    }

    /// The packet's source address.
    pub fn source_address(&mut self, to: Reg) -> &mut Self {
        match self.family {
            Family::Ip => self.payload(to, 1, 12, 4),
            Family::Ip6 => self.payload(to, 1, 8, 16),
        }
    }

    /// The packet's destination address.
    pub fn destination_address(&mut self, to: Reg) -> &mut Self {
        match self.family {
            Family::Ip => self.payload(to, 1, 16, 4),
            Family::Ip6 => self.payload(to, 1, 24, 16),
        }
    }

    /// The packet's destination port.
    pub fn destination_port(&mut self, to: Reg) -> &mut Self {
        self.payload(to, 2, 2, 2)
    }

    /// The packet's transport protocol.
    pub fn protocol(&mut self, to: Reg) -> &mut Self {
        self.meta(to, META_L4PROTO)
    }

    /// Destination address (or, if `any`, zeros in its place), protocol and port, one after the other.
    pub fn destination(&mut self, to: Reg, any: bool) -> &mut Self {
        let width = self.family.registers();
        match any {
            true => self.immediate(to, &vec![0; width as usize * 4]),
            false => self.destination_address(to),
        };
        self.protocol(to.plus(width)).destination_port(to.plus(width + 1))
    }

    /// Goes on if the address in `at` is (or, if `not`, isn't) within the range. Overwrites the register.
    pub fn in_range(&mut self, at: Reg, range: &IpNet, not: bool) -> &mut Self {
        let (address, mask) = masked(range);
        let zeros = vec![0; mask.len()];
        self.bitwise(at, &mask, &zeros).compare(at, not, &address)
    }

    /// Goes on if the destination is an address of this machine.
    pub fn destination_is_local(&mut self, scratch: Reg) -> &mut Self {
        const DESTINATION: u32 = 2;
        self.fib_type(scratch, DESTINATION)
    }

    /// Goes on if the source is an address of this machine.
    pub fn source_is_local(&mut self, scratch: Reg) -> &mut Self {
        const SOURCE: u32 = 1;
        self.fib_type(scratch, SOURCE)
    }

    /// Goes on if the packet came by the loopback link (or, if `not`, by another).
    pub fn from_loopback(&mut self, scratch: Reg, not: bool) -> &mut Self {
        self.meta(scratch, META_IIF).compare(scratch, not, &LOOPBACK.to_ne_bytes())
    }

    /// Goes on if the packet begins a connection.
    pub fn connection_is_new(&mut self, scratch: Reg) -> &mut Self {
        self.connection_bit(scratch, CT_STATE, CT_STATE_NEW)
    }

    /// Goes on if the connection's destination was translated.
    pub fn destination_was_translated(&mut self, scratch: Reg) -> &mut Self {
        self.connection_bit(scratch, CT_STATUS, CT_STATUS_DNAT)
    }

    /// Sets the bits of `mask` in the packet's mark to those of `value`.
    pub fn set_mark(&mut self, scratch: Reg, mask: u32, value: u32) -> &mut Self {
        self.meta(scratch, META_MARK).bitwise(scratch, &(!mask).to_ne_bytes(), &(value & mask).to_ne_bytes());
        self.expression("meta", |out| {
            out.u32(2, META_MARK);
            out.u32(3, scratch.number());
        })
    }

    /// Goes on if the bits of `mask` in the packet's mark are those of `value`.
    pub fn has_mark(&mut self, scratch: Reg, mask: u32, value: u32) -> &mut Self {
        self.meta(scratch, META_MARK).bitwise(scratch, &mask.to_ne_bytes(), &[0; 4]).compare(
            scratch,
            false,
            &(value & mask).to_ne_bytes(),
        )
    }

    /// A constant.
    pub fn immediate(&mut self, to: Reg, value: &[u8]) -> &mut Self {
        self.expression("immediate", |out| {
            out.u32(1, to.number());
            write_value(out, 2, value);
        })
    }

    /// Goes on if the register holds `value` (or, if `not`, anything else).
    pub fn compare(&mut self, at: Reg, not: bool, value: &[u8]) -> &mut Self {
        self.expression("cmp", |out| {
            out.u32(1, at.number());
            out.u32(2, if not { CMP_NE } else { CMP_EQ });
            write_value(out, 3, value);
        })
    }

    /// Goes on if the set holds the key.
    pub fn lookup(&mut self, set: &str, key: Reg) -> &mut Self {
        self.expression("lookup", |out| {
            out.string(1, set);
            out.u32(2, key.number());
        })
    }

    /// Goes on with the map's value for the key; ends if there is none.
    pub fn map(&mut self, map: &str, key: Reg, value: Reg) -> &mut Self {
        self.lookup_into(map, key, value.number())
    }

    /// The verdict for the key decides; goes on if there is none.
    pub fn verdict_map(&mut self, map: &str, key: Reg) -> &mut Self {
        self.lookup_into(map, key, VERDICT_REGISTER)
    }

    /// A random number from `offset` on, below `offset + count`.
    pub fn random(&mut self, to: Reg, count: u32, offset: u32) -> &mut Self {
        const RANDOM: u32 = 1;
        self.expression("numgen", |out| {
            out.u32(1, to.number());
            out.u32(2, count);
            out.u32(3, RANDOM);
            out.u32(4, offset);
        })
    }

    /// Translates the destination to the address at `address` and the port right behind it.
    pub fn translate_destination(&mut self, address: Reg) -> &mut Self {
        const DNAT: u32 = 1;
        let (family, port) = (self.family, address.plus(self.family.registers()));
        self.expression("nat", |out| {
            out.u32(1, DNAT);
            out.u32(2, family.number() as u32);
            out.u32(3, address.number());
            out.u32(5, port.number());
        })
    }

    /// Translates the source to an address of the link that the packet leaves by, at a random port.
    pub fn masquerade(&mut self) -> &mut Self {
        const PORTS_FULLY_RANDOM: u32 = 0x10;
        self.expression("masq", |out| out.u32(1, PORTS_FULLY_RANDOM))
    }

    /// Adds key and value to the map for `life`; if the key is there, only its life begins anew.
    pub fn map_update(&mut self, map: &str, key: Reg, value: Reg, life: Duration) -> &mut Self {
        const UPDATE: u32 = 1;
        self.dynset(map, UPDATE, key, value, Some(life))
    }

    /// Removes the key from the map, if it is there.
    pub fn map_remove(&mut self, map: &str, key: Reg, value: Reg) -> &mut Self {
        const DELETE: u32 = 2;
        self.dynset(map, DELETE, key, value, None)
    }

    /// Refuses the packet: its sender learns that the port is unreachable.
    pub fn reject(&mut self) -> &mut Self {
        const ICMP_UNREACHABLE: u32 = 0;
        let port_unreachable = match self.family {
            Family::Ip => 3,
            Family::Ip6 => 4,
        };
        self.expression("reject", |out| {
            out.u32(1, ICMP_UNREACHABLE);
            out.attribute(2, &[port_unreachable]);
        })
    }

    /// Drops the packet.
    pub fn drop_packet(&mut self) -> &mut Self {
        self.verdict(&Verdict::Drop)
    }

    /// Into a chain, and back at its end.
    pub fn jump(&mut self, chain: &str) -> &mut Self {
        self.verdict(&Verdict::Jump(chain.to_owned()))
    }

    /// Into a chain, for good.
    pub fn goto(&mut self, chain: &str) -> &mut Self {
        self.verdict(&Verdict::Goto(chain.to_owned()))
    }

    /// Back to the calling chain.
    pub fn go_back(&mut self) -> &mut Self {
        self.verdict(&Verdict::Return)
    }

    fn verdict(&mut self, verdict: &Verdict) -> &mut Self {
        self.expression("immediate", |out| {
            out.u32(1, VERDICT_REGISTER);
            write_verdict(out, 2, verdict);
        })
    }

    fn payload(&mut self, to: Reg, base: u32, offset: u32, length: u32) -> &mut Self {
        self.expression("payload", |out| {
            out.u32(1, to.number());
            out.u32(2, base);
            out.u32(3, offset);
            out.u32(4, length);
        })
    }

    fn meta(&mut self, to: Reg, key: u32) -> &mut Self {
        self.expression("meta", |out| {
            out.u32(1, to.number());
            out.u32(2, key);
        })
    }

    fn fib_type(&mut self, scratch: Reg, side: u32) -> &mut Self {
        const RESULT_ADDRESS_TYPE: u32 = 3;
        self.expression("fib", |out| {
            out.u32(1, scratch.number());
            out.u32(2, RESULT_ADDRESS_TYPE);
            out.u32(3, side);
        })
        .compare(scratch, false, &RTN_LOCAL.to_ne_bytes())
    }

    fn connection_bit(&mut self, scratch: Reg, key: u32, bit: u32) -> &mut Self {
        self.expression("ct", |out| {
            out.u32(1, scratch.number());
            out.u32(2, key);
        })
        .bitwise(scratch, &bit.to_ne_bytes(), &[0; 4])
        .compare(scratch, true, &[0; 4])
    }

    fn bitwise(&mut self, at: Reg, mask: &[u8], xor: &[u8]) -> &mut Self {
        self.expression("bitwise", |out| {
            out.u32(1, at.number());
            out.u32(2, at.number());
            out.u32(3, mask.len() as u32);
            write_value(out, 4, mask);
            write_value(out, 5, xor);
        })
    }

    fn lookup_into(&mut self, set: &str, key: Reg, to: u32) -> &mut Self {
        self.expression("lookup", |out| {
            out.string(1, set);
            out.u32(2, key.number());
            out.u32(3, to);
        })
    }

    fn dynset(&mut self, map: &str, operation: u32, key: Reg, value: Reg, life: Option<Duration>) -> &mut Self {
        self.expression("dynset", |out| {
            out.string(1, map);
            out.u32(3, operation);
            out.u32(4, key.number());
            out.u32(5, value.number());
            if let Some(life) = life {
                out.u64(6, life.as_millis() as u64);
            }
        })
    }

    fn expression(&mut self, name: &str, body: impl FnOnce(&mut Messages)) -> &mut Self {
        self.out.nest(1, |out| {
            out.string(1, name);
            out.nest(2, body);
        });
        self
    }
}
