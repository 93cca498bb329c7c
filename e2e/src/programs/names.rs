//! DNS from both ends: a resolver that says so little that one can tell who answered, and a client that asks as stub
//! resolvers do, and tells what it was told.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::Args;
use hickory_proto::op::{Edns, Message, Metadata, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

/// What the resolver answers for every name: no address of the mesh's.
pub const SAID_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 53);
/// The same in IPv6.
pub const SAID_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53);
/// Names that begin so do not exist, nor do those of the cluster's domain that are no services'.
const MISSING: &str = "missing";
/// Queries for names that begin so are not answered.
const SILENT: &str = "silent";
/// Answers to names that begin so are too large for a datagram.
const LARGE: &str = "large";
/// How many records such an answer has.
pub const MANY: usize = 60;

/// What a client asks.
#[derive(Debug, Args)]
pub struct Ask {
    /// Whom.
    #[arg(long)]
    server: IpAddr,
    /// Over TCP, all names on one connection.
    #[arg(long)]
    tcp: bool,
    /// For IPv6 addresses.
    #[arg(long)]
    v6: bool,
    /// Says that larger datagrams are taken (EDNS).
    #[arg(long)]
    edns: bool,
    /// Milliseconds until it asks again, from the same socket.
    #[arg(long, default_value_t = 1000)]
    again: u64,
    /// How often it asks.
    #[arg(long, default_value_t = 1)]
    attempts: usize,
    /// The names.
    #[arg(required = true)]
    names: Vec<String>,
}

/// What it was told of a name.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Told {
    /// The name.
    pub name: String,
    /// Why nothing was told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// The response's code, as people name it.
    pub code: String,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// The shortest time for which a record may be remembered, in seconds.
    pub lifetime: Option<u32>,
    /// The answer was cut.
    pub cut: bool,
    /// Milliseconds that it took.
    pub milliseconds: u128,
}

/// Asks.
pub async fn ask(ask: &Ask) -> anyhow::Result<Vec<Told>> {
    let to = SocketAddr::new(ask.server, 53);
    let mut stream = None;
    if ask.tcp {
        stream = Some(
            TcpStream::connect(to)
                .await
                .context("connecting to the resolver")?,
        );
    }
    let mut all = Vec::new();
    for (number, name) in (1..).zip(&ask.names) {
        let query = query(ask, number, name)?;
        let begun = Instant::now();
        let response = match &mut stream {
            Some(stream) => over_tcp(stream, &query).await,
            None => over_udp(ask, to, &query).await,
        };
        all.push(told(name, begun.elapsed(), response, number));
    }
    Ok(all)
}

fn query(ask: &Ask, number: u16, name: &str) -> anyhow::Result<Vec<u8>> {
    let kind = if ask.v6 { RecordType::AAAA } else { RecordType::A };
    let mut message = Message::query();
    message.metadata.id = number;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name)?, kind));
    if ask.edns {
        let mut edns = Edns::new();
        edns.set_max_payload(4096);
        message.set_edns(edns);
    }
    Ok(message.to_vec()?)
}

async fn over_udp(ask: &Ask, to: SocketAddr, query: &[u8]) -> anyhow::Result<Vec<u8>> {
    let any = if to.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(to).await?;
    let mut last = anyhow::anyhow!("not asked");
    for _ in 0..ask.attempts {
        let mut response = Vec::with_capacity(usize::from(u16::MAX));
        let once = async {
            socket.send(query).await?;
            socket.recv_buf(&mut response).await
        };
        match tokio::time::timeout(Duration::from_millis(ask.again), once).await {
            Ok(Ok(_)) => return Ok(response),
            Ok(Err(error)) => last = error.into(),
            Err(_) => last = anyhow::anyhow!("no response in time"),
        }
    }
    Err(last)
}

async fn over_tcp(stream: &mut TcpStream, query: &[u8]) -> anyhow::Result<Vec<u8>> {
    let exchange = async {
        write(stream, query).await?;
        read(stream).await?.context("the connection was closed")
    };
    tokio::time::timeout(Duration::from_secs(8), exchange)
        .await
        .context("no response in time")?
}

fn told(name: &str, took: Duration, response: anyhow::Result<Vec<u8>>, number: u16) -> Told {
    let read = response.and_then(|bytes| {
        let message = Message::from_vec(&bytes)?;
        ensure!(message.metadata.id == number, "a response to something else");
        Ok(message)
    });
    let mut told = Told {
        name: name.into(),
        failure: None,
        code: String::new(),
        addresses: Vec::new(),
        lifetime: None,
        cut: false,
        milliseconds: took.as_millis(),
    };
    match read {
        Ok(message) => {
            told.code = format!("{:?}", message.metadata.response_code);
            told.cut = message.metadata.truncation;
            told.lifetime = message.answers.iter().map(|record| record.ttl).min();
            let addresses = message.answers.iter().filter_map(|record| match &record.data {
                RData::A(A(address)) => Some(IpAddr::V4(*address)),
                RData::AAAA(AAAA(address)) => Some(IpAddr::V6(*address)),
                _ => None,
            });
            told.addresses = addresses.collect();
        }
        Err(error) => told.failure = Some(format!("{error:#}")),
    }
    told
}

/// Answers on port 53, for as long as it runs.
pub async fn resolve() -> anyhow::Result<()> {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 53));
    let (datagrams, streams) = (UdpSocket::bind(any).await?, TcpListener::bind(any).await?);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = streams.accept().await {
            tokio::spawn(async move {
                while let Ok(Some(query)) = read(&mut stream).await {
                    if let Some(response) = respond(&query, true)
                        && write(&mut stream, &response).await.is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    let mut buffer = vec![0; 4096];
    loop {
        let Ok((length, from)) = datagrams.recv_from(&mut buffer).await else {
            continue;
        };
        if let Some(response) = respond(&buffer[..length], false) {
            datagrams.send_to(&response, from).await.ok();
        }
    }
}

fn respond(query: &[u8], whole: bool) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let asked = query.queries.first()?;
    let name = asked.name().to_ascii();
    if name.starts_with(SILENT) {
        return None;
    }
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.metadata = Metadata::response_from_request(&query.metadata);
    response.metadata.recursion_available = true;
    response.add_query(asked.clone());
    if name.starts_with(MISSING) || denied(&name) {
        response.metadata.response_code = ResponseCode::NXDomain;
        return response.to_vec().ok();
    }
    if name.starts_with(LARGE) && !whole {
        response.metadata.truncation = true;
        return response.to_vec().ok();
    }
    let count = if name.starts_with(LARGE) { MANY } else { 1 };
    for number in 0..count {
        let data = match asked.query_type() {
            RecordType::A => RData::A(A(Ipv4Addr::from(
                u32::from(SAID_V4) + u32::try_from(number).ok()?,
            ))),
            RecordType::AAAA => RData::AAAA(AAAA(SAID_V6)),
            _ => continue,
        };
        response.add_answer(Record::from_rdata(asked.name().clone(), 60, data));
    }
    response.to_vec().ok()
}

/// Names of the cluster's domain that are none of services, such as those that a search domain is part of.
fn denied(name: &str) -> bool {
    let Some(rest) = name
        .to_ascii_lowercase()
        .strip_suffix("cluster.local.")
        .map(str::to_owned)
    else {
        return false;
    };
    let service = rest.strip_suffix(".svc.");
    service.is_none_or(|service| service.split('.').count() != 2)
}

async fn write(stream: &mut TcpStream, message: &[u8]) -> anyhow::Result<()> {
    stream.write_u16(u16::try_from(message.len())?).await?;
    Ok(stream.write_all(message).await?)
}

async fn read(stream: &mut TcpStream) -> anyhow::Result<Option<Vec<u8>>> {
    let Ok(length) = stream.read_u16().await else {
        return Ok(None);
    };
    let mut message = vec![0; length.into()];
    stream.read_exact(&mut message).await?;
    Ok(Some(message))
}
