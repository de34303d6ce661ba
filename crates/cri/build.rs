//! Compiles the interfaces' descriptions into `OUT_DIR`; no protoc needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = ["proto/api.proto", "proto/dra.proto", "proto/registration.proto"];
    for file in files {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(files, ["proto"])?;
    tonic_prost_build::configure().generate_default_stubs(true).compile_fds(descriptors)?;
    Ok(())
}
