//! Turns `tables/*.txt` into static arrays: the nodes and fields of one `Schema`, and the protobuf numbers. And collects
//! the descriptions of those types, compressed, as they are needed seldom.

mod arena;
mod descriptions;
mod table;

use std::io::Write;
use std::path::PathBuf;

use flate2::Compression;
use flate2::write::DeflateEncoder;

/// What is compiled: what `cargo xtask schema` writes, and what is written by hand.
const TABLES: [&str; 3] = ["types", "aggregation", "extension"];

fn main() {
    println!("cargo::rerun-if-changed=tables");
    println!("cargo::rerun-if-changed=build");
    let folder = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let texts = TABLES.map(|name| std::fs::read_to_string(format!("tables/{name}.txt")).expect("part of the crate"));
    let table = table::parse(&texts.concat());
    let source = arena::build(&table).emit();
    std::fs::write(folder.join("tables.rs"), source).expect("OUT_DIR is writable");

    let names = table.declarations.keys().map(|name| table.full_name(name)).collect();
    let mut descriptions = descriptions::collect(&names).unwrap_or_else(|error| {
        println!("cargo::warning=explain will have no descriptions: {error}");
        String::new()
    });
    // Of kinds that no package describes.
    descriptions += &std::fs::read_to_string("tables/descriptions.txt").expect("part of the crate");
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(descriptions.as_bytes()).expect("writing to memory");
    let compressed = encoder.finish().expect("writing to memory");
    std::fs::write(folder.join("descriptions.deflate"), compressed).expect("OUT_DIR is writable");
}
