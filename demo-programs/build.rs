//! Compiles the gRPC API of the demonstration's programs, without a system protobuf compiler.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    tonic_prost_build::configure().compile_fds(protox::compile(["catalog.proto"], ["proto"])?)?;
    Ok(())
}
