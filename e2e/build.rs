//! The client of the certificate service, which the tests ask for certificates that nobody should get.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["istio/certificate.proto"], ["../api/proto"])?;
    tonic_prost_build::configure()
        .build_client(true)
        .build_server(false)
        .extern_path(".istio", "::trefoil_api::proto::istio")
        .compile_fds(files)?;
    println!("cargo:rerun-if-changed=../api/proto");
    Ok(())
}
