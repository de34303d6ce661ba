//! The order in which upstream tells ports: that of a hash of how Go prints them. Upstream: endpointslice/util NewPortMapKey,
//! pkg/api/v1/endpoints portsByHash.

use apimachinery::Value;

/// Puts the ports of an EndpointSlice in order.
pub(crate) fn sort_slice_ports(ports: &mut [Value]) {
    ports.sort_by_cached_key(|port| hash(&print_slice_port(port)));
}

/// Puts the ports of Endpoints in order.
pub(crate) fn sort_endpoints_ports(ports: &mut [Value]) {
    ports.sort_by_cached_key(|port| hash(&print_endpoints_port(port)));
}

fn print_slice_port(port: &Value) -> String {
    let text = |field: &str| port.str_at(&[field]).unwrap_or("<nil>");
    let (name, protocol, app) = (text("name"), text("protocol"), text("appProtocol"));
    let number = port.i64_at(&["port"]).unwrap_or_default();
    format!(
        "(v1.EndpointPort){{Name:(*string){name} Protocol:(*v1.Protocol){protocol} Port:(*int32){number} AppProtocol:(*string){app}}}"
    )
}

fn print_endpoints_port(port: &Value) -> String {
    let text = |field: &str| port.str_at(&[field]).unwrap_or_default();
    let (name, protocol) = (text("name"), text("protocol"));
    let number = port.i64_at(&["port"]).unwrap_or_default();
    let app = port.str_at(&["appProtocol"]).unwrap_or("<nil>");
    format!(
        "(v1.EndpointPort){{Name:(string){name} Port:(int32){number} Protocol:(v1.Protocol){protocol} AppProtocol:(*string){app}}}"
    )
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

    /// What go-spew and hash/fnv make of the same ports.
    #[test]
    fn ports_are_printed_and_hashed_as_go_does() {
        let check = |print: fn(&Value) -> String, json: &str, expect: u128| {
            let port = Value::parse(json.as_bytes()).unwrap();
            assert_eq!(hash(&print(&port)), expect, "{}", print(&port));
        };
        check(
            print_slice_port,
            r#"{"name":"http","protocol":"TCP","port":80}"#,
            0xb6c4_d325_122a_5ba6_f795_b0bb_ffce_bb6f,
        );
        check(
            print_slice_port,
            r#"{"name":"","protocol":"TCP","port":8081,"appProtocol":"example.com/x"}"#,
            0xfe0c_eb43_305b_1944_5cf0_5ff6_2047_278f,
        );
        check(
            print_endpoints_port,
            r#"{"name":"http","protocol":"TCP","port":80}"#,
            0x754b_003f_50f1_33a5_39c6_0d18_cfb3_0a55,
        );
        check(
            print_endpoints_port,
            r#"{"protocol":"UDP","port":81,"appProtocol":"a"}"#,
            0x40b4_5eb8_3bbb_88cd_758b_77c5_943a_b732,
        );
    }

    #[test]
    fn the_hash_is_fnv() {
        assert_eq!(hash(""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(hash("a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(hash("foobar"), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
    }
}
