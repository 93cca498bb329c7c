use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

fn connect(protocol: Option<&'static str>) -> Request<()> {
    let mut request = Request::builder()
        .method(Method::CONNECT)
        .uri("http://a/ws")
        .body(())
        .unwrap();
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(Protocol::from_static(protocol));
    }
    request
}

#[test]
fn it_is_read_as_the_upgrade_that_it_stands_for() {
    let mut random = StdRng::seed_from_u64(1);
    let mut request = connect(Some("websocket"));
    read(&mut request, &mut random).unwrap();
    assert_eq!(request.method(), Method::GET);
    assert_eq!(crate::head::upgrade(request.headers()).unwrap(), "websocket");
    assert_eq!(request.headers()["sec-websocket-key"].len(), 24);
    let mut other = connect(Some("websocket"));
    read(&mut other, &mut random).unwrap();
    assert_ne!(
        other.headers()["sec-websocket-key"],
        request.headers()["sec-websocket-key"]
    );
}

#[test]
fn no_other_protocol_is_served_and_a_plain_connect_stays_one() {
    let mut random = StdRng::seed_from_u64(1);
    let refused = read(&mut connect(Some("connect-udp")), &mut random);
    assert_eq!(refused, Err(HeadRefused::Protocol));
    let mut plain = connect(None);
    read(&mut plain, &mut random).unwrap();
    assert_eq!(plain.method(), Method::CONNECT);
}

/// The example of RFC 6455, section 1.3.
#[test]
fn an_answer_is_of_one_who_understood_the_key() {
    let headers = |name: header::HeaderName, value: &'static str| {
        HeaderMap::from_iter([(name, HeaderValue::from_static(value))])
    };
    let asked = headers(header::SEC_WEBSOCKET_KEY, "dGhlIHNhbXBsZSBub25jZQ==");
    let right = headers(header::SEC_WEBSOCKET_ACCEPT, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let wrong = headers(header::SEC_WEBSOCKET_ACCEPT, "s3pPLMBiTxaQ9kYGzzhZRbK+xOO=");
    assert!(understood(&asked, &right));
    assert!(!understood(&asked, &wrong));
    assert!(!understood(&asked, &HeaderMap::new()));
    assert!(!understood(&HeaderMap::new(), &right));
}
