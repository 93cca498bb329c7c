//! Generates the gRPC stubs that this crate uses; the messages are `trefoil_api`'s.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../api/proto");
    let files = ["envoy/discovery.proto", "istio/certificate.proto"];
    let descriptors = protox::compile(files, ["../api/proto"])?;
    // The servers are for tests: a control plane in memory.
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(true)
        .extern_path(".istio", "::trefoil_api::proto::istio")
        .extern_path(".envoy", "::trefoil_api::proto::envoy")
        .compile_fds(descriptors)?;
    Ok(())
}
