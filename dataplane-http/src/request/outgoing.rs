//! What an application is sent: the request as the rule changes it, in the HTTP that its port speaks.

use std::time::Duration;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Uri};
use trefoil_dataplane_state::state::Protocol;

use super::Asked;
use crate::body::Body;
use crate::grpc;
use crate::head::with_path;
use crate::routing::Backend;
use crate::seam::Server;
use crate::upstream::Version;

pub(super) struct Outgoing {
    method: Method,
    uri: Uri,
    host: HeaderValue,
    headers: HeaderMap,
    upgrade: Option<HeaderValue>,
}

impl Outgoing {
    /// The request that was `asked`, as its rule and the chosen backend change it.
    pub(super) fn of(asked: &Asked, backend: Option<&Backend>) -> Self {
        let mut headers = asked.parts.headers.clone();
        let mut uri = asked.parts.uri.clone();
        let mut host = asked.head.authority.clone();
        if let Some(rule) = &asked.rule {
            rule.filters
                .request
                .iter()
                .for_each(|change| change.apply(&mut headers));
            if let Some(rewrite) = &rule.filters.rewrite {
                if let Some(path) = &rewrite.path {
                    uri = with_path(&path.apply(uri.path(), asked.prefix.as_deref()), uri.query());
                }
                if let Some(name) = &rewrite.host {
                    host = name.clone();
                }
            }
        }
        let changes = backend.iter().flat_map(|backend| &backend.request);
        changes.for_each(|change| change.apply(&mut headers));
        Self {
            method: asked.parts.method.clone(),
            uri,
            host,
            headers,
            upgrade: asked.upgrade.clone(),
        }
    }

    /// A call has `left` from here on.
    pub(super) fn has(&mut self, left: Duration) {
        self.headers.insert(grpc::TIMEOUT, grpc::timeout_value(left));
    }

    /// To be sent with `body`.
    pub(super) fn request(mut self, version: Version, body: Body) -> Request<Body> {
        let mut request = Request::new(body);
        match version {
            Version::One => {
                self.headers.insert(header::HOST, self.host);
                if let Some(upgrade) = self.upgrade {
                    self.headers.insert(header::UPGRADE, upgrade);
                    let connection = HeaderValue::from_static("upgrade");
                    self.headers.insert(header::CONNECTION, connection);
                }
                // Fields of one hop are named by the hop.
                if self.headers.contains_key(header::TE) {
                    let te = HeaderValue::from_static("te");
                    self.headers.append(header::CONNECTION, te);
                }
            }
            Version::Two => {
                *request.version_mut() = http::Version::HTTP_2;
                self.uri = absolute(&self.host, self.uri);
            }
        }
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.headers_mut() = self.headers;
        request
    }
}

/// With the scheme and the host, which HTTP/2 takes from there.
fn absolute(host: &HeaderValue, uri: Uri) -> Uri {
    let mut parts = uri.clone().into_parts();
    parts.scheme = Some(http::uri::Scheme::HTTP);
    parts.authority = host.to_str().ok().and_then(|host| host.parse().ok());
    Uri::from_parts(parts).unwrap_or(uri)
}

/// HTTP/2 where the port declares it, or where the client speaks it to a port that declares nothing; gRPC always. An
/// upgrade is one of HTTP/1.1.
pub(super) fn version(asked: &Asked, server: &Server) -> Version {
    if asked.upgrade.is_some() {
        return Version::One;
    }
    if asked.grpc {
        return Version::Two;
    }
    match protocol(server) {
        Protocol::Http2 | Protocol::Grpc => Version::Two,
        Protocol::Http11 => Version::One,
        Protocol::Unknown | Protocol::Tcp | Protocol::Tls => match asked.parts.version {
            http::Version::HTTP_2 => Version::Two,
            _ => Version::One,
        },
    }
}

/// What the endpoint's port speaks, as declared.
fn protocol(server: &Server) -> Protocol {
    let services = &server.endpoint.workload.services;
    let of_service = server
        .service
        .as_ref()
        .and_then(|service| services.get(&service.key()));
    let ports = match of_service {
        Some(ports) => ports.iter().collect::<Vec<_>>(),
        None => services.values().flatten().collect(),
    };
    let port = server.endpoint.address.port();
    let of_port = ports
        .into_iter()
        .filter(|mapping| mapping.target_port == Some(port));
    let declared = of_port.map(|mapping| mapping.protocol);
    declared
        .into_iter()
        .find(|protocol| *protocol != Protocol::Unknown)
        .unwrap_or(Protocol::Unknown)
}
