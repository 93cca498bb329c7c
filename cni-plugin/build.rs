//! Generates the client of the node agents' stream; its messages come from `trefoil-api`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../api/proto");
    let descriptors = protox::compile(["trefoil/mesh.proto"], ["../api/proto"])?;
    tonic_prost_build::configure()
        .build_server(true)
        .build_client(true)
        .extern_path(".trefoil", "::trefoil_api::proto::trefoil")
        .compile_fds(descriptors)?;
    Ok(())
}
