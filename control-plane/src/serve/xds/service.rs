//! The discovery service as gRPC has it. What is usually generated is written out, because the answer is a body of our
//! own.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::{HeaderValue, header};
use tonic::body::Body;
use tonic::codec::Codec;
use tonic::codegen::Service;
use tonic::server::NamedService;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;
use trefoil_api::proto::envoy::service::discovery::v3::DeltaDiscoveryRequest;

use super::Discovery;
use super::body::Responses;

/// The method that is served.
const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
/// The largest request: a client that comes again names all that it holds.
const REQUEST_BYTES: usize = 64 << 20;

impl NamedService for Discovery {
    const NAME: &'static str = "envoy.service.discovery.v3.AggregatedDiscoveryService";
}

type Answer = Result<http::Response<Body>, Infallible>;

impl Service<http::Request<Body>> for Discovery {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let service = self.clone();
        Box::pin(async move {
            if request.uri().path() != DELTA {
                return Ok(Status::unimplemented("only delta discovery is served").into_http());
            }
            let request = Request::from_http(request.map(requests));
            Ok(match service.open(request).await {
                Ok(responses) => answer(responses),
                Err(status) => status.into_http(),
            })
        })
    }
}

fn requests(body: Body) -> Streaming<DeltaDiscoveryRequest> {
    let decoder = ProstCodec::<(), DeltaDiscoveryRequest>::default().decoder();
    Streaming::new_request(decoder, body, None, Some(REQUEST_BYTES))
}

fn answer(responses: Responses) -> http::Response<Body> {
    let mut answer = http::Response::new(Body::new(responses));
    let kind = HeaderValue::from_static("application/grpc");
    answer.headers_mut().insert(header::CONTENT_TYPE, kind);
    answer
}
