//! The CONNECT request: what a client asks for, and what a server understands of it.

use std::fmt;
use std::net::SocketAddr;

use http::header::{HeaderMap, HeaderValue};
use http::{Method, Request, Uri, request};
use rand::Rng;
use trefoil_api::Identity;
use trefoil_api::names::header;

use crate::sockets::canonical;
use trefoil_dataplane_state::state::{Locality, Workload};

#[cfg(test)]
mod tests;

const REGION: &str = "cloud.region";
const ZONE: &str = "cloud.availability_zone";

/// What a client asks a server's plane for.
#[derive(Clone, Debug)]
pub struct Opening<'a> {
    /// The application.
    pub destination: SocketAddr,
    /// xDS uid of the workload that is meant, where it is the tunnel's other end: a reused address is noticed
    /// by it.
    pub destination_uid: Option<&'a str>,
    /// The client's end of the captured connection.
    pub source: SocketAddr,
    /// The service that was dialled.
    pub service: Option<&'a str>,
    /// Who the client is, for telemetry and for where it is: [`baggage`].
    pub baggage: Option<HeaderValue>,
    /// Whom this end speaks for; none: for itself.
    pub claim: Option<Claim>,
}

/// What one end says of whom it speaks for (header `trefoil-peer`). Worth nothing until it is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// For this client.
    Client(Identity),
    /// For a client that has proved nothing.
    Nobody,
    /// It is not readable.
    Unreadable,
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// Where to.
    pub destination: Destination,
    /// xDS uid of the workload that is meant, where the client names it.
    pub uid: Option<String>,
    /// Hostname of the service that the client dialled, where it says so; for telemetry only.
    pub service: Option<String>,
    /// The client's end of the connection, where the other end says so. It says nothing alone.
    pub source: Option<SocketAddr>,
    /// Where the client is, where it says so; empty otherwise.
    pub locality: Locality,
    /// Whom the other end claims to speak for.
    pub claim: Option<Claim>,
}

/// Where a client wants to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// An address of a workload, and a port of its application.
    Address(SocketAddr),
    /// A service by name, and a port of it.
    Service(String, u16),
}

/// Why a request is answered with 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRequest {
    /// Only tunnels are served.
    #[error("the method is not CONNECT")]
    Method,
    /// RFC 9113, section 8.5: host and port.
    #[error("the authority is not HOST:PORT")]
    Authority,
    /// A header of ours is not text.
    #[error("a header is not readable")]
    Header,
}

impl Opening<'_> {
    /// The request (RFC 9113, section 8.5).
    pub fn request(&self) -> Result<Request<()>, http::Error> {
        let authority = self.destination.to_string();
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(Uri::builder().authority(authority).build()?)
            .body(())?;
        let headers = request.headers_mut();
        if let Some(baggage) = &self.baggage {
            headers.insert("baggage", baggage.clone());
        }
        headers.insert("forwarded", HeaderValue::try_from(self.forwarded())?);
        headers.insert(
            "traceparent",
            HeaderValue::try_from(traceparent(&mut rand::rng()))?,
        );
        if let Some(uid) = self.destination_uid {
            headers.insert(header::DESTINATION_UID, HeaderValue::try_from(uid)?);
        }
        if let Some(claim) = &self.claim {
            headers.insert(header::PEER, HeaderValue::try_from(claim.to_string())?);
        }
        Ok(request)
    }

    /// RFC 7239.
    fn forwarded(&self) -> String {
        match self.service {
            Some(service) => format!("for=\"{}\";host={service}", self.source),
            None => format!("for=\"{}\"", self.source),
        }
    }
}

/// W3C Trace Context, version 00, not sampled: fresh ids for each connection.
fn traceparent(random: &mut impl Rng) -> String {
    format!(
        "00-{:032x}-{:016x}-00",
        random.random::<u128>(),
        random.random::<u64>()
    )
}

/// Who a workload is, for the telemetry of the other end; W3C Baggage.
#[must_use]
pub fn baggage(workload: &Workload) -> HeaderValue {
    let Locality { region, zone, .. } = &workload.locality;
    let kind = match workload.workload_kind {
        "" => "pod",
        kind => kind,
    };
    let by_kind = format!("k8s.{kind}.name");
    let members = [
        ("k8s.cluster.name", workload.cluster.as_str()),
        ("k8s.namespace.name", &workload.namespace),
        (&by_kind, &workload.workload_name),
        ("service.name", &workload.canonical_name),
        ("service.version", &workload.canonical_revision),
        (REGION, region),
        (ZONE, zone),
    ];
    let text: Vec<String> = members
        .into_iter()
        .filter(|(_, value)| !value.is_empty())
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    // Names of Kubernetes are always valid here; telemetry is not worth a refusal where they are not.
    HeaderValue::try_from(text.join(",")).unwrap_or(HeaderValue::from_static(""))
}

impl Asked {
    /// Understands a request, or says what to answer.
    pub fn from_parts(parts: &request::Parts) -> Result<Self, BadRequest> {
        if parts.method != Method::CONNECT {
            return Err(BadRequest::Method);
        }
        let authority = parts.uri.authority().ok_or(BadRequest::Authority)?;
        let uid = match parts.headers.get(header::DESTINATION_UID) {
            Some(value) => Some(value.to_str().map_err(|_| BadRequest::Header)?.to_owned()),
            None => None,
        };
        Ok(Self {
            destination: destination(authority.as_str())?,
            uid,
            service: service(&parts.headers),
            source: source(&parts.headers),
            locality: locality(&parts.headers),
            claim: claim(&parts.headers),
        })
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(identity) => identity.fmt(f),
            // What is not readable is no client.
            Self::Nobody | Self::Unreadable => f.write_str(header::NOBODY),
        }
    }
}

/// One header, which is one identity or [`header::NOBODY`].
fn claim(headers: &HeaderMap) -> Option<Claim> {
    let mut values = headers.get_all(header::PEER).iter();
    let (first, second) = (values.next()?, values.next());
    let read = match first.to_str() {
        Ok(header::NOBODY) => Ok(Claim::Nobody),
        Ok(text) => text.parse().map(Claim::Client).map_err(|_| ()),
        Err(_) => Err(()),
    };
    match (read, second) {
        (Ok(claim), None) => Some(claim),
        _ => Some(Claim::Unreadable),
    }
}

fn destination(authority: &str) -> Result<Destination, BadRequest> {
    if let Ok(address) = authority.parse::<SocketAddr>() {
        return match address.port() {
            0 => Err(BadRequest::Authority),
            _ => Ok(Destination::Address(canonical(address))),
        };
    }
    let (host, port) = authority.rsplit_once(':').ok_or(BadRequest::Authority)?;
    let name = !host.is_empty()
        && host
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'.' | b'_'));
    // Digits only: "+80" parses as a number too.
    let digits = port.bytes().all(|c| c.is_ascii_digit());
    match port.parse::<u16>() {
        Ok(port) if name && digits && port != 0 => Ok(Destination::Service(host.to_ascii_lowercase(), port)),
        _ => Err(BadRequest::Authority),
    }
}

/// `host=` of the first `forwarded` header; what cannot be read is not there, since it is telemetry only.
fn service(headers: &HeaderMap) -> Option<String> {
    forwarded(headers, "host=").map(str::to_owned)
}

/// `for=` of the first `forwarded` header.
fn source(headers: &HeaderMap) -> Option<SocketAddr> {
    forwarded(headers, "for=")?.parse().ok().map(canonical)
}

fn forwarded<'h>(headers: &'h HeaderMap, key: &str) -> Option<&'h str> {
    let value = headers.get("forwarded")?.to_str().ok()?;
    let found = value.split(';').find_map(|pair| pair.trim().strip_prefix(key))?;
    Some(found.trim_matches('"'))
}

/// What [`baggage`] says of where the client is; only ever a preference among endpoints.
fn locality(headers: &HeaderMap) -> Locality {
    let text = headers.get("baggage").and_then(|value| value.to_str().ok());
    let value = |key: &str| {
        let mut members = text.unwrap_or_default().split(',');
        let found = members.find_map(|member| member.trim().strip_prefix(key)?.strip_prefix('='));
        found.unwrap_or_default().to_owned()
    };
    Locality {
        region: value(REGION),
        zone: value(ZONE),
        subzone: String::new(),
    }
}
