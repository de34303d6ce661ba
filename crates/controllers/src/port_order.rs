//! The order in which upstream tells ports: that of a hash of how Go prints them. Upstream: endpointslice/util NewPortMapKey,
//! pkg/api/v1/endpoints portsByHash.

use apimachinery::Value;

/// Puts the ports of an EndpointSlice in order.
pub(crate) fn sort_slice_ports(ports: &mut [Value]) {
    ports.sort_by_cached_key(|port| {
        let text = |field: &str, kind: &str| match port.str_at(&[field]) {
            Some(text) => format!("(*{kind}){text}"),
            None => format!("(*{kind})<nil>"),
        };
        let (name, protocol) = (text("name", "string"), text("protocol", "v1.Protocol"));
        let (number, app) = (port.i64_at(&["port"]).unwrap_or_default(), text("appProtocol", "string"));
        hash(&format!("(v1.EndpointPort){{Name:{name} Protocol:{protocol} Port:(*int32){number} AppProtocol:{app}}}"))
    });
}

/// Puts the ports of Endpoints in order.
pub(crate) fn sort_endpoints_ports(ports: &mut [Value]) {
    ports.sort_by_cached_key(|port| {
        let text = |field: &str| port.str_at(&[field]).unwrap_or_default();
        let (name, protocol) = (text("name"), text("protocol"));
        let number = port.i64_at(&["port"]).unwrap_or_default();
        let app = port.str_at(&["appProtocol"]).unwrap_or("<nil>");
        hash(&format!(
            "(v1.EndpointPort){{Name:(string){name} Port:(int32){number} Protocol:(v1.Protocol){protocol} AppProtocol:(*string){app}}}"
        ))
    });
}

/// FNV-1a of 128 bits.
fn hash(text: &str) -> u128 {
    const PRIME: u128 = (1 << 88) + 0x13b;
    text.bytes()
        .fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, |sum, byte| (sum ^ u128::from(byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_fnv() {
        assert_eq!(hash(""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(hash("a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(hash("foobar"), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
    }
}
