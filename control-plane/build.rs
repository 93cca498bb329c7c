//! Compiles the gRPC stubs of the services that are served here: servers for the binary, clients for its
//! tests. Messages come from `trefoil-api`. Discovery's server is written out (`serve/xds/service.rs`), because its
//! responses are put together from resources that were encoded once for all clients.

const SERVED: [&str; 2] = ["istio/certificate.proto", "trefoil/mesh.proto"];
const CALLED: [&str; 3] = [
    "envoy/discovery.proto",
    "istio/certificate.proto",
    "trefoil/mesh.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=../api/proto");
    let out = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    for (folder, server, files) in [("servers", true, &SERVED[..]), ("clients", false, &CALLED[..])] {
        let folder = out.join(folder);
        std::fs::create_dir_all(&folder)?;
        tonic_prost_build::configure()
            .build_server(server)
            .build_client(!server)
            .out_dir(&folder)
            .include_file("stubs.rs")
            .extern_path(".istio", "::trefoil_api::proto::istio")
            .extern_path(".envoy", "::trefoil_api::proto::envoy")
            .extern_path(".trefoil", "::trefoil_api::proto::trefoil")
            .compile_fds(protox::compile(files, ["../api/proto"])?)?;
    }
    Ok(())
}
