use proptest::prelude::*;

use super::*;

fn parts(authority: &str) -> Option<request::Parts> {
    let uri = Uri::builder().authority(authority).build().ok()?;
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(uri)
        .body(())
        .ok()?;
    Some(request.into_parts().0)
}

#[test]
fn what_is_asked_is_understood() {
    for (source, destination) in [("10.0.0.1:5", "10.0.0.2:80"), ("[fd00::1]:5", "[fd00::2]:80")] {
        let opening = Opening {
            destination: destination.parse().unwrap(),
            destination_uid: Some("Kubernetes//Pod/shop/web"),
            source: source.parse().unwrap(),
            service: Some("web.shop.svc.cluster.local"),
            baggage: Some(HeaderValue::from_static(
                "cloud.region=r1, cloud.availability_zone=r1z2",
            )),
            claim: Some(Claim::Nobody),
        };
        let request = opening.request().unwrap();
        assert_eq!(request.headers()["traceparent"].len(), 55);
        let (parts, ()) = request.into_parts();
        let asked = Asked::from_parts(&parts).unwrap();
        assert_eq!(asked.destination, Destination::Address(opening.destination));
        assert_eq!(asked.uid.as_deref(), Some("Kubernetes//Pod/shop/web"));
        assert_eq!(asked.service.as_deref(), Some("web.shop.svc.cluster.local"));
        assert_eq!(asked.source, Some(opening.source));
        assert_eq!(
            (asked.locality.region.as_str(), asked.locality.zone.as_str()),
            ("r1", "r1z2")
        );
        assert_eq!(asked.claim, Some(Claim::Nobody));
    }
}

#[test]
fn a_claim_is_one_identity_or_nobody() {
    let web = "spiffe://cluster.local/ns/shop/sa/web";
    let client = Some(Claim::Client(web.parse().unwrap()));
    let cases: [(&[&str], Option<Claim>); 8] = [
        (&[], None),
        (&[web], client),
        (&["none"], Some(Claim::Nobody)),
        (&[""], Some(Claim::Unreadable)),
        (&["None"], Some(Claim::Unreadable)),
        (
            &["spiffe://cluster.local/ns/shop/sa/web,none"],
            Some(Claim::Unreadable),
        ),
        (&[web, web], Some(Claim::Unreadable)),
        (&["none", "none"], Some(Claim::Unreadable)),
    ];
    for (values, expected) in cases {
        let mut parts = parts("10.0.0.1:80").unwrap();
        for value in values {
            parts.headers.append(header::PEER, value.parse().unwrap());
        }
        assert_eq!(Asked::from_parts(&parts).unwrap().claim, expected, "{values:?}");
    }
}

#[test]
fn only_connect_is_served() {
    let (parts, ()) = Request::get("http://10.0.0.1:80/").body(()).unwrap().into_parts();
    assert_eq!(Asked::from_parts(&parts), Err(BadRequest::Method));
}

#[test]
fn authorities_that_are_no_destination() {
    for bad in [
        "10.0.0.1",
        "10.0.0.1:0",
        "web",
        ":80",
        "web:0",
        "web:65536",
        "web:+80",
        "a@web:80",
        "[fd00::1]",
    ] {
        assert_eq!(destination(bad), Err(BadRequest::Authority), "{bad}");
    }
    let mapped = destination("[::ffff:10.0.0.1]:80").unwrap();
    assert_eq!(mapped, Destination::Address("10.0.0.1:80".parse().unwrap()));
}

proptest! {
    #[test]
    fn any_address_survives(address: std::net::IpAddr, port in 1u16..) {
        let asked = SocketAddr::new(address, port);
        let understood = destination(&asked.to_string()).unwrap();
        prop_assert_eq!(understood, Destination::Address(canonical(asked)));
    }

    #[test]
    fn any_text_is_a_destination_or_refused(text in ".{0,40}") {
        if let Some(parts) = parts(&text) {
            match Asked::from_parts(&parts) {
                Ok(Asked { destination: Destination::Address(address), .. }) => prop_assert_ne!(address.port(), 0),
                Ok(Asked { destination: Destination::Service(host, port), .. }) => {
                    prop_assert_ne!(port, 0);
                    prop_assert!(!host.is_empty() && !host.contains([':', '@', '/', ' ']));
                }
                Err(error) => prop_assert_eq!(error, BadRequest::Authority),
            }
        }
    }

    #[test]
    fn any_header_is_read_or_refused(
        uid in proptest::collection::vec(any::<u8>(), 0..40),
        forwarded in proptest::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut parts = parts("10.0.0.1:80").unwrap();
        if let Ok(value) = HeaderValue::from_bytes(&uid) {
            parts.headers.insert(header::DESTINATION_UID, value);
        }
        if let Ok(value) = HeaderValue::from_bytes(&forwarded) {
            parts.headers.insert("forwarded", value);
        }
        let asked = Asked::from_parts(&parts);
        prop_assert!(matches!(asked, Ok(_) | Err(BadRequest::Header)));
    }
}
