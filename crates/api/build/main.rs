//! Turns `tables/types.txt` into static arrays: the nodes and fields of one `Schema`, and the protobuf numbers.

mod arena;
mod table;

use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=tables/types.txt");
    println!("cargo::rerun-if-changed=build");
    let folder = PathBuf::from(std::env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    let text = std::fs::read_to_string("tables/types.txt").expect("the table is part of the crate");
    let table = table::parse(&text);
    let source = arena::build(&table).emit();
    std::fs::write(folder.join("tables.rs"), source).expect("OUT_DIR is writable");
}
