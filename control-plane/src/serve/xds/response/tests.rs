use std::sync::Arc;

use prost::Message;
use prost::bytes::BytesMut;
use trefoil_api::proto::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use trefoil_control_plane_index::snapshot::{Encoded, ResourceKind};

use super::Response;

/// In whatever chunks it is taken, it is the same message.
#[test]
fn chunks_are_one_message() {
    let kind = ResourceKind::Address;
    let resource = |length: usize| {
        let name = format!("n{length}");
        Arc::new(Encoded::new(
            kind,
            &name,
            vec!["/10.0.0.1".into()],
            Vec::new(),
            vec![7; length],
        ))
    };
    for lengths in [&[][..], &[0], &[1, 300, 70_000, 5]] {
        let response = Response {
            kind,
            nonce: "17".into(),
            resources: lengths.iter().map(|length| resource(*length)).collect(),
            removed: vec!["gone".into(), "too".into()],
        };
        for enough in [1, 100, 1000, 1 << 20] {
            let (mut all, mut part) = (Vec::new(), 0);
            while part < response.parts() {
                let mut chunk = BytesMut::new();
                let next = response.put_from(part, enough, &mut chunk);
                assert!(next > part, "it goes on");
                part = next;
                all.extend_from_slice(&chunk);
            }
            assert_eq!(all.len(), response.encoded_len());
            let read = DeltaDiscoveryResponse::decode(all.as_slice()).expect("a message");
            let names: Vec<String> = lengths.iter().map(|length| format!("n{length}")).collect();
            assert_eq!(
                read.resources
                    .iter()
                    .map(|one| one.name.clone())
                    .collect::<Vec<_>>(),
                names
            );
            assert_eq!(read.removed_resources, ["gone", "too"]);
            assert_eq!(
                (read.type_url.as_str(), read.nonce.as_str()),
                (kind.type_url(), "17")
            );
        }
    }
}
