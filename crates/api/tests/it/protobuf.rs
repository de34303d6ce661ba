use api::protobuf::{self, MAGIC, ProtobufError};

use crate::populate::{assert_same, every_kind, populated};

#[test]
fn every_kind_goes_round_as_protobuf() {
    for (api_version, kind, ty) in every_kind() {
        let value = populated(ty, &api_version, &kind);
        let bytes = match protobuf::encode_as(ty, &value) {
            Err(ProtobufError::NoMessage(name)) if name.contains(".Table") => continue,
            bytes => bytes.unwrap_or_else(|error| panic!("{api_version} {kind}: {error}")),
        };
        let message = protobuf::decode(&bytes, Some((&api_version, &kind))).unwrap();
        assert_same(&message.value, &value, &format!("{api_version} {kind}"));
    }
}

#[test]
fn envelopes_name_their_kind() {
    let value = apimachinery::Value::parse(br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a"}}"#).unwrap();
    let bytes = protobuf::encode(&value).unwrap();
    let message = protobuf::decode(&bytes, None).unwrap();
    assert_eq!((message.api_version.as_str(), message.kind.as_str()), ("v1", "Pod"));
    assert_eq!(message.value.str_at(&["metadata", "name"]), Some("a"));
    // Options are the same in every group, known or not.
    let options =
        apimachinery::Value::parse(br#"{"apiVersion":"example.com/v1","kind":"DeleteOptions","dryRun":["All"]}"#);
    let bytes = protobuf::encode(&options.unwrap()).unwrap();
    assert_eq!(protobuf::decode(&bytes, None).unwrap().value.items_at(&["dryRun"]).len(), 1);
}

/// An envelope around a v1 Pod's message.
fn pod(raw: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&[0x0a, 9, 0x0a, 2, b'v', b'1', 0x12, 3, b'P', b'o', b'd', 0x12]);
    let mut len = raw.len();
    while len >= 0x80 {
        bytes.push(len as u8 | 0x80);
        len >>= 7;
    }
    bytes.push(len as u8);
    bytes.extend_from_slice(raw);
    bytes
}

fn check_error(bytes: &[u8], expect: ProtobufError) {
    assert_eq!(protobuf::decode(bytes, None).unwrap_err(), expect);
}

#[test]
fn malformed_messages_are_refused() {
    assert!(protobuf::decode(&pod(b""), None).is_ok());
    check_error(b"", ProtobufError::NoMagic);
    check_error(b"{}", ProtobufError::NoMagic);
    check_error(&pod(b"")[..10], ProtobufError::Truncated);
    check_error(&MAGIC, ProtobufError::UnknownKind { api_version: String::new(), kind: String::new() });
    check_error(&pod(&[0x0a, 5, 1]), ProtobufError::Truncated);
    check_error(&pod(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]), ProtobufError::Varint);
    check_error(&pod(&[0x0b]), ProtobufError::WireType(0x0b));
    check_error(&pod(&[0x00]), ProtobufError::WireType(0));
    check_error(&pod(&[0x0a, 3, 0x0a, 1, 0xff]), ProtobufError::Utf8);
    let wrong = ProtobufError::FieldType { ty: "io.k8s.api.core.v1.Pod".to_owned(), field: "metadata".to_owned() };
    check_error(&pod(&[0x08, 1]), wrong);
    // Unknown numbers are skipped, whatever their wire type.
    assert!(protobuf::decode(&pod(&[0xf8, 0x07, 1, 0xfd, 0x07, 1, 2, 3, 4, 0xfa, 0x07, 1, 0]), None).is_ok());
    // Containers of two bytes each: refused before they fill the memory.
    let containers = [0x12, 0].repeat(251_000);
    let mut spec = vec![0x12];
    let mut len = containers.len();
    while len >= 0x80 {
        spec.push(len as u8 | 0x80);
        len >>= 7;
    }
    spec.push(len as u8);
    spec.extend_from_slice(&containers);
    check_error(&pod(&spec), ProtobufError::TooMany);
}

#[test]
fn broken_bytes_never_panic() {
    let (api_version, kind, ty) = every_kind().into_iter().find(|(_, kind, _)| kind == "Pod").unwrap();
    let bytes = protobuf::encode_as(ty, &populated(ty, &api_version, &kind)).unwrap();
    let mut seed = 1u32;
    for _ in 0..300 {
        let mut broken = bytes.clone();
        for _ in 0..4 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let at = (seed >> 8) as usize % broken.len();
            broken[at] ^= 1 << (seed % 8);
        }
        let _ = protobuf::decode(&broken, None);
        let _ = protobuf::decode(&broken[..broken.len() / 2], None);
    }
}
