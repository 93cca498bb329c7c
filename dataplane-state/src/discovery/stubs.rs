//! The generated gRPC stubs.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]

pub mod discovery {
    tonic::include_proto!("envoy.service.discovery.v3");
}

pub mod certificate {
    tonic::include_proto!("istio.v1.auth");
}
