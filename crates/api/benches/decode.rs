//! What a write costs before it is stored: lexing, the strict check, defaults and encoding of a 6 kB Pod. Budget: 60 µs.

use std::hint::black_box;

use api::protobuf;
use apimachinery::{Object, Value};
use env::Env;

const POD: &str = include_str!("pod.json");

fn main() {
    let env = Env::system();
    let pods = api::resource("", "v1", "pods").expect("pods are built in");
    let start = env.monotonic();
    let ty = pods.ty();
    println!("tables read in {:.0} us", start.elapsed().as_secs_f64() * 1e6);
    let compact = Value::parse(POD.as_bytes()).expect("the fixture is JSON").to_json();
    let decoded = ty.decode(&compact).expect("the fixture is a Pod");
    assert!(decoded.problems.is_empty(), "{:?}", decoded.problems);
    let message = protobuf::encode(&decoded.value).expect("Pods have a message");
    println!("{} bytes of JSON, {} of protobuf", compact.len(), message.len());
    let run = |name: &str, work: &dyn Fn()| {
        let mut best = f64::MAX;
        for _ in 0..30 {
            let start = env.monotonic();
            for _ in 0..200 {
                work();
            }
            best = best.min(start.elapsed().as_secs_f64() * 1e6 / 200.0);
        }
        println!("{name:45} {best:8.2} us");
    };
    run("decode and check", &|| drop(black_box(ty.decode(black_box(&compact)))));
    run("decode, default, encode as Object", &|| {
        let mut value = ty.decode(black_box(&compact)).expect("decoded before").value;
        ty.default_value(&mut value);
        black_box(Object::with_fields(&value, 1, pods.field_values(&value))).expect("it has metadata");
    });
    run("selectable fields", &|| drop(black_box(pods.field_values(black_box(&decoded.value)))));
    run("encode as Object", &|| drop(black_box(Object::new(black_box(&decoded.value), 1))));
    run("canonical form of a Value", &|| drop(black_box(ty.canonical(decoded.value.clone()))));
    run("clone of a Value", &|| drop(black_box(decoded.value.clone())));
    run("defaults", &|| {
        let mut value = decoded.value.clone();
        ty.default_value(&mut value);
        black_box(value);
    });
    run("protobuf to Value", &|| drop(black_box(protobuf::decode(black_box(&message), None))));
    run("Value to protobuf", &|| drop(black_box(protobuf::encode(black_box(&decoded.value)))));
    run("Value::parse, for comparison", &|| drop(black_box(Value::parse(black_box(&compact)))));
    let start = env.monotonic();
    let size = api::openapi::v3("", "v1", "v1.35.0").expect("the core group").len();
    println!("OpenAPI of v1: {size} bytes in {:.1} ms", start.elapsed().as_secs_f64() * 1e3);
}
