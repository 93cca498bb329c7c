use prost::Message;
use trefoil_api::proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, Resource,
};

use super::{Request, Response};

/// Wherever what comes is cut, the same is read of it as a library reads.
#[test]
fn a_response_is_read_as_it_comes() {
    let resource = |name: &str, version: u64, length: usize| Resource {
        name: name.into(),
        version: format!("{version:016x}"),
        resource: Some(prost_types::Any {
            type_url: "type".into(),
            value: vec![0xff; length],
        }),
        aliases: vec!["/10.0.0.1".into()],
        ..Resource::default()
    };
    let response = DeltaDiscoveryResponse {
        type_url: "type".into(),
        nonce: "17".into(),
        resources: vec![resource("a", 1, 0), resource("b", u64::MAX, 300)],
        removed_resources: vec!["gone".into()],
        ..DeltaDiscoveryResponse::default()
    };
    let bytes = response.encode_to_vec();
    for step in 1..=bytes.len() {
        let (mut read, mut buffer) = (Response::default(), Vec::new());
        for part in bytes.chunks(step) {
            buffer.extend_from_slice(part);
            let mut rest = buffer.as_slice();
            read.read(&mut rest).expect("a response");
            buffer = rest.to_vec();
        }
        assert!(buffer.is_empty(), "{} bytes are left at {step}", buffer.len());
        let seen: Vec<_> = read
            .resources
            .iter()
            .map(|one| (&*one.name, one.version))
            .collect();
        assert_eq!(seen, [("a", 1), ("b", u64::MAX)]);
        assert_eq!(read.removed, ["gone"]);
        assert_eq!((read.type_url.as_str(), read.nonce.as_str()), ("type", "17"));
        let lengths: Vec<usize> = response.resources.iter().map(Message::encoded_len).collect();
        assert_eq!(
            read.resources.iter().map(|one| one.bytes).collect::<Vec<_>>(),
            lengths
        );
    }
}

#[test]
fn a_request_says_what_is_held() {
    let mut request = Request::subscribe("node", "type", &["shop/web".into()]);
    request.hold("a", 0xfe);
    let read = DeltaDiscoveryRequest::decode(request.encode_to_vec().as_slice()).expect("a request");
    assert_eq!(read.node.map(|node| node.id).as_deref(), Some("node"));
    assert_eq!(read.type_url, "type");
    assert_eq!(read.resource_names_subscribe, ["shop/web"]);
    let held = [("a".to_owned(), "00000000000000fe".to_owned())].into();
    assert_eq!(read.initial_resource_versions, held);
}
