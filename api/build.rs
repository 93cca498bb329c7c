//! Compiles the messages of `proto/` without a system protobuf compiler. Messages only: gRPC stubs are
//! generated where they are used.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "envoy/discovery.proto",
        "istio/workload.proto",
        "istio/authorization.proto",
        "istio/certificate.proto",
        "istio/zds.proto",
        "trefoil/mesh.proto",
        "trefoil/http.proto",
        "trefoil/descriptors.proto",
        "trefoil/worker.proto",
    ];
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(files, ["proto"])?;
    prost_build::Config::new()
        .bytes(["."])
        .include_file("proto.rs")
        .enable_type_names()
        .compile_fds(descriptors)?;
    Ok(())
}
