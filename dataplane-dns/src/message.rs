//! DNS messages: what a query asks, what answers it, what fails it, and whether a response belongs to it. Pure. Bytes
//! come from applications and from the network: nothing here may panic on any, and what is passed on is never rewritten.

use std::net::IpAddr;

use hickory_proto::op::{Header, Message, MessageType, Metadata, OpCode, Query};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{DNSClass, RData, Record, RecordType};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use crate::names::Found;

#[cfg(test)]
mod tests;

/// The longest datagram that is sent: larger ones are fragmented on their way, and lost.
const LONGEST_DATAGRAM: u16 = 1232;
/// What every client of datagrams can take (RFC 1035).
const SHORTEST_DATAGRAM: u16 = 512;
/// Bytes of a header.
const HEADER: usize = 12;
/// Bits of the third byte of a header: this is a response; it was cut short.
const RESPONSE: u8 = 0x80;
/// Bits of the third byte that a failure keeps from its query: what kind of query, and whether recursion is desired.
const KEPT: u8 = 0x79;
/// The fourth byte of a failure: recursion is available, SERVFAIL.
const FAILED: u8 = 0x82;

/// What a query asks, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// In lower case, without its last dot.
    pub name: String,
    /// What is asked for, where it may be answered here.
    pub wanted: Wanted,
    /// The type as people name it.
    pub kind: String,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// IPv4 addresses.
    V4,
    /// IPv6 addresses.
    V6,
    /// What is not answered here.
    Other,
    /// A whole zone, or what changed in it: the response has many messages (RFC 5936, RFC 1995).
    Transfer,
}

/// What is not a query: nobody can answer it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a DNS query")]
pub struct Malformed;

/// How an answer travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// As one datagram, which may have to be cut.
    Datagram,
    /// Over TCP.
    Stream,
}

/// What a query asks. None: something that is passed on unread, such as an update.
pub fn read(bytes: &[u8]) -> Result<Option<Question>, Malformed> {
    let mut decoder = BinDecoder::new(bytes);
    let header = Header::read(&mut decoder).map_err(|_| Malformed)?;
    if header.metadata.message_type != MessageType::Query {
        return Err(Malformed);
    }
    if header.metadata.op_code != OpCode::Query || header.counts.queries != 1 {
        return Ok(None);
    }
    let query = Query::read(&mut decoder).map_err(|_| Malformed)?;
    let mut name = query.name().to_ascii().to_ascii_lowercase();
    if name.ends_with('.') {
        name.pop();
    }
    let wanted = match (query.query_class(), query.query_type()) {
        (DNSClass::IN, RecordType::A) => Wanted::V4,
        (DNSClass::IN, RecordType::AAAA) => Wanted::V6,
        (_, RecordType::AXFR | RecordType::IXFR) => Wanted::Transfer,
        _ => Wanted::Other,
    };
    Ok(Some(Question {
        name,
        wanted,
        kind: query.query_type().to_string(),
    }))
}

/// The answer to a query for addresses, in an order that changes with the query. None: it asks for something that
/// only others can give, such as a signature.
#[must_use]
pub fn answer(query: &[u8], wanted: Wanted, found: &Found, transport: Transport) -> Option<Vec<u8>> {
    let query = Message::from_vec(query).ok()?;
    let asked = query.queries.first()?;
    let plain = query.signature.is_none() && query.edns.as_ref().is_none_or(|edns| edns.version() == 0);
    if !plain {
        return None;
    }
    let record = |address: &IpAddr| {
        let data = match (wanted, address) {
            (Wanted::V4, IpAddr::V4(address)) => RData::A(A(*address)),
            (Wanted::V6, IpAddr::V6(address)) => RData::AAAA(AAAA(*address)),
            _ => return None,
        };
        Some(Record::from_rdata(asked.name().clone(), found.lifetime, data))
    };
    let mut records: Vec<Record> = found.addresses.iter().filter_map(record).collect();
    if !records.is_empty() {
        let first = usize::from(query.metadata.id) % records.len();
        records.rotate_left(first);
    }
    let mut response = Message::response(query.metadata.id, OpCode::Query);
    response.metadata = Metadata::response_from_request(&query.metadata);
    response.metadata.authoritative = true;
    response.metadata.recursion_available = true;
    response.add_query(asked.clone());
    response.insert_answers(records);
    let mut limit = usize::from(u16::MAX);
    if let Some(edns) = &query.edns {
        let mut own = hickory_proto::op::Edns::new();
        own.set_max_payload(LONGEST_DATAGRAM);
        own.set_dnssec_ok(edns.flags().dnssec_ok);
        response.set_edns(own);
    }
    if transport == Transport::Datagram {
        let taken = query.edns.as_ref().map_or(0, |edns| edns.max_payload());
        limit = taken.clamp(SHORTEST_DATAGRAM, LONGEST_DATAGRAM).into();
    }
    fitting(response, limit)
}

/// The message in at most so many bytes: what does not fit is left out, and that is said.
fn fitting(mut message: Message, limit: usize) -> Option<Vec<u8>> {
    let whole = message.to_vec().ok()?;
    if whole.len() <= limit {
        return Some(whole);
    }
    let mut records = std::mem::take(&mut message.answers);
    message.metadata.truncation = true;
    let empty = message.to_vec().ok()?.len();
    // A record repeats the name by pointing to it, the first at least: later ones may be larger, never smaller.
    message.answers = records.iter().take(1).cloned().collect();
    let each = message.to_vec().ok()?.len().checked_sub(empty)?.max(1);
    records.truncate(limit.saturating_sub(empty) / each);
    loop {
        message.answers.clone_from(&records);
        let cut = message.to_vec().ok()?;
        if cut.len() <= limit {
            return Some(cut);
        }
        records.pop()?;
    }
}

/// The response to a query that nobody answered (SERVFAIL). None: it is not a query.
#[must_use]
pub fn failure(query: &[u8]) -> Option<Vec<u8>> {
    let mut decoder = BinDecoder::new(query);
    let header = Header::read(&mut decoder).ok()?;
    let question = header.counts.queries == 1 && Query::read(&mut decoder).is_ok();
    let end = if question { decoder.index() } else { HEADER };
    let mut response = query.get(..end)?.to_vec();
    let head = response.first_chunk_mut::<HEADER>()?;
    let [_, _, flags, code, counts @ ..] = head;
    *flags = (*flags & KEPT) | RESPONSE;
    *code = FAILED;
    *counts = [0, u8::from(question), 0, 0, 0, 0, 0, 0];
    Some(response)
}

/// Whether bytes from a resolver respond to a query: the same number, and the same question where one is repeated.
#[must_use]
pub fn responds(response: &[u8], query: &[u8]) -> bool {
    let (mut theirs, mut ours) = (BinDecoder::new(response), BinDecoder::new(query));
    let (Ok(their), Ok(our)) = (Header::read(&mut theirs), Header::read(&mut ours)) else {
        return false;
    };
    if their.metadata.message_type != MessageType::Response || their.metadata.id != our.metadata.id {
        return false;
    }
    if their.counts.queries == 0 || our.counts.queries != 1 {
        return true;
    }
    match (Query::read(&mut theirs), Query::read(&mut ours)) {
        (Ok(their), Ok(our)) => {
            their.query_type() == our.query_type() && their.name().eq_ignore_root_case(our.name())
        }
        _ => false,
    }
}
