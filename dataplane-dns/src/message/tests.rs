use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name, RData, RecordType};
use proptest::prelude::*;

use super::{Malformed, Transport, Wanted, answer, failure, read, responds};
use crate::names::Found;

fn query(name: &str, kind: RecordType, payload: Option<u16>) -> Vec<u8> {
    let mut message = Message::query();
    message.metadata.id = 7;
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    if let Some(payload) = payload {
        let mut edns = Edns::new();
        edns.set_max_payload(payload);
        message.set_edns(edns);
    }
    message.to_vec().unwrap()
}

fn found(count: u8) -> Found {
    Found {
        addresses: (0..count).map(|last| IpAddr::from([10, 0, 0, last])).collect(),
        lifetime: 5,
    }
}

fn answered(query: &[u8], count: u8, transport: Transport) -> (Message, usize) {
    let bytes = answer(query, Wanted::V4, &found(count), transport).unwrap();
    assert!(responds(&bytes, query));
    (Message::from_vec(&bytes).unwrap(), bytes.len())
}

#[test]
fn names_are_read_in_lower_case_and_answered_as_they_were_asked() {
    let query = query("Web.Shop.svc.cluster.local.", RecordType::A, None);
    let question = read(&query).unwrap().unwrap();
    assert_eq!(question.name, "web.shop.svc.cluster.local");
    assert_eq!((question.wanted, question.kind.as_str()), (Wanted::V4, "A"));
    let (message, _) = answered(&query, 1, Transport::Datagram);
    assert_eq!(message.metadata.message_type, MessageType::Response);
    assert_eq!(message.metadata.response_code, ResponseCode::NoError);
    assert!(message.metadata.recursion_available && message.metadata.recursion_desired);
    assert_eq!(
        message.queries[0].name().to_ascii(),
        "Web.Shop.svc.cluster.local."
    );
    assert_eq!(message.answers[0].ttl, 5);
    assert_eq!(
        message.answers[0].data,
        RData::A(Ipv4Addr::new(10, 0, 0, 0).into())
    );
    assert!(message.edns.is_none());
}

#[test]
fn a_family_that_a_name_lacks_is_an_empty_answer_not_a_denial() {
    let query = query("web.shop.svc.cluster.local.", RecordType::AAAA, None);
    let bytes = answer(&query, Wanted::V6, &found(1), Transport::Datagram).unwrap();
    let message = Message::from_vec(&bytes).unwrap();
    assert_eq!(message.metadata.response_code, ResponseCode::NoError);
    assert!(message.answers.is_empty());
}

#[test]
fn an_answer_fits_what_the_client_takes_and_says_so_if_it_was_cut() {
    let (name, kind) = ("carts.shop.svc.cluster.local.", RecordType::A);
    for (payload, limit) in [(None, 512), (Some(900), 900), (Some(4096), 1232), (Some(0), 512)] {
        let (message, length) = answered(&query(name, kind, payload), 200, Transport::Datagram);
        assert!(length <= limit && length > limit - 16, "{payload:?}: {length}");
        assert!(message.metadata.truncation && message.answers.len() < 200);
        assert_eq!(message.edns.is_some(), payload.is_some());
    }
    let (message, _) = answered(&query(name, kind, None), 200, Transport::Stream);
    assert!(!message.metadata.truncation);
    assert_eq!(message.answers.len(), 200);
}

#[test]
fn what_only_others_can_answer_is_passed_on() {
    let text = query("web.shop.svc.cluster.local.", RecordType::TXT, None);
    assert_eq!(read(&text).unwrap().unwrap().wanted, Wanted::Other);
    let update = Message::new(9, MessageType::Query, OpCode::Update)
        .to_vec()
        .unwrap();
    assert_eq!(read(&update), Ok(None));
    let mut versioned = Message::from_vec(&query("a.", RecordType::A, Some(512))).unwrap();
    versioned.edns.as_mut().unwrap().set_version(1);
    let versioned = versioned.to_vec().unwrap();
    assert_eq!(
        answer(&versioned, Wanted::V4, &found(1), Transport::Datagram),
        None
    );
}

#[test]
fn what_is_no_query_is_malformed() {
    let whole = query("web.shop.svc.cluster.local.", RecordType::A, None);
    for length in 0..whole.len() {
        assert_eq!(read(&whole[..length]), Err(Malformed), "{length}");
    }
    let mut response = whole.clone();
    response[2] |= 0x80;
    assert_eq!(read(&response), Err(Malformed));
    // A name that points to itself.
    let mut looping = whole;
    looping[12..14].copy_from_slice(&[0xc0, 12]);
    assert_eq!(read(&looping), Err(Malformed));
}

#[test]
fn a_failure_repeats_the_question() {
    let query = query("www.example.com.", RecordType::A, Some(4096));
    let bytes = failure(&query).unwrap();
    assert!(responds(&bytes, &query));
    let message = Message::from_vec(&bytes).unwrap();
    assert_eq!(message.metadata.response_code, ResponseCode::ServFail);
    assert_eq!((message.queries.len(), message.answers.len()), (1, 0));
    assert_eq!(failure(&query[..11]), None);
}

#[test]
fn only_the_response_to_a_query_is_taken_for_it() {
    let asked = query("www.example.com.", RecordType::A, None);
    let response = failure(&asked).unwrap();
    assert!(responds(&response, &asked));
    assert!(!responds(&asked, &asked), "a query is no response");
    for other in [
        ("www.example.net.", RecordType::A),
        ("www.example.com.", RecordType::AAAA),
    ] {
        assert!(!responds(
            &failure(&query(other.0, other.1, None)).unwrap(),
            &asked
        ));
    }
    let mut numbered = response;
    numbered[1] ^= 1;
    assert!(!responds(&numbered, &asked));
}

fn everything(bytes: &[u8], other: &[u8]) {
    let question = read(bytes);
    for transport in [Transport::Datagram, Transport::Stream] {
        if let Some(response) = answer(bytes, Wanted::V4, &found(40), transport) {
            assert!(Message::from_vec(&response).is_ok());
        }
    }
    if let Some(response) = failure(bytes)
        && let Ok(Some(_)) = question
    {
        assert!(responds(&response, bytes));
    }
    let _ = responds(bytes, other);
    let _ = responds(other, bytes);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_cause_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        everything(&bytes, &query("www.example.com.", RecordType::A, Some(1232)));
    }

    #[test]
    fn no_damage_to_a_query_causes_a_panic(
        damage in prop::collection::vec((0usize..80, any::<u8>()), 0..6),
        length in 0usize..80,
    ) {
        let whole = query("web.shop.svc.cluster.local.", RecordType::A, Some(1232));
        let mut bytes = whole.clone();
        for (at, byte) in damage {
            let at = at % bytes.len();
            bytes[at] = byte;
        }
        bytes.truncate(length.max(1));
        everything(&bytes, &whole);
    }
}
