use http::HeaderValue;

use super::*;

#[test]
fn it_is_written_without_what_is_for_one_hop_or_the_meshs_own() {
    let headers = HeaderMap::from_iter([
        (
            http::header::LINK,
            HeaderValue::from_static("</a.css>; rel=preload"),
        ),
        (http::header::LINK, HeaderValue::from_static("</b.js>")),
        (http::header::CONNECTION, HeaderValue::from_static("close, x-hop")),
        ("x-hop".parse().unwrap(), HeaderValue::from_static("1")),
        (
            "x-forwarded-client-cert".parse().unwrap(),
            HeaderValue::from_static("URI=a"),
        ),
    ]);
    let head = written(&passed_on(StatusCode::EARLY_HINTS, &headers).unwrap());
    let expected = "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>\r\n\r\n";
    assert_eq!(String::from_utf8(head).unwrap(), expected);
}

#[test]
fn what_is_between_neighbours_stays_there() {
    for between in [StatusCode::CONTINUE, StatusCode::SWITCHING_PROTOCOLS] {
        assert!(passed_on(between, &HeaderMap::new()).is_none());
    }
    let odd = passed_on(StatusCode::from_u16(199).unwrap(), &HeaderMap::new()).unwrap();
    assert_eq!(written(&odd), b"HTTP/1.1 199 \r\n\r\n");
}
