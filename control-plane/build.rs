//! Compiles the gRPC stubs of the services that are served here: servers for the binary, clients for its
//! tests. Messages come from `trefoil-api`, except the discovery response, which is encoded here from
//! resources that were encoded once for all clients.

const FILES: [&str; 3] = [
    "envoy/discovery.proto",
    "istio/certificate.proto",
    "trefoil/mesh.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../api/proto");
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    let response = ".envoy.service.discovery.v3.DeltaDiscoveryResponse";
    for (folder, server) in [("servers", true), ("clients", false)] {
        let folder = out.join(folder);
        std::fs::create_dir_all(&folder)?;
        let mut builder = tonic_prost_build::configure()
            .build_server(server)
            .build_client(!server)
            .out_dir(&folder)
            .include_file("stubs.rs");
        if server {
            builder = builder.extern_path(response, "crate::serve::xds::Response");
        }
        builder
            .extern_path(".istio", "::trefoil_api::proto::istio")
            .extern_path(".envoy", "::trefoil_api::proto::envoy")
            .extern_path(".trefoil", "::trefoil_api::proto::trefoil")
            .compile_fds(protox::compile(FILES, ["../api/proto"])?)?;
    }
    Ok(())
}
