use serde_json::json;

use super::{PATTERNS, SECRET_FIELD, application, text, value};

/// What no archive may contain. Each is planted below.
const SECRET: &str = "hunter2-Xy7";

#[test]
fn every_pattern_can_be_read() {
    assert_eq!(PATTERNS.len(), 8);
    assert!(SECRET_FIELD.is_some());
}

#[test]
fn secrets_are_taken_out_of_texts() {
    let token = format!("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.{SECRET}");
    for line in [
        format!("-----BEGIN PRIVATE KEY-----\n{SECRET}\n-----END PRIVATE KEY-----"),
        format!("\"-----BEGIN EC PRIVATE KEY-----\\n{SECRET}\\n-----END EC PRIVATE KEY-----\\n\""),
        format!("cut: -----BEGIN RSA PRIVATE KEY-----\n{SECRET}"),
        format!("token {token} was refused"),
        format!("authorization: Bearer {SECRET}"),
        format!("Authorization: Basic {SECRET}=="),
        format!("GET /login?password={SECRET}&x=1"),
        format!("--db-password={SECRET}"),
        format!("DB_PASSWORD={SECRET}"),
        format!("GET /x?api_key={SECRET}"),
        format!("GET /x?access_token={SECRET} 200"),
        format!("{{\"client_secret\":\"{SECRET}\"}}"),
        format!("{{\\\"password\\\":\\\"{SECRET}\\\"}}"),
        format!("postgres://user:{SECRET}@db/x"),
        format!("Set-Cookie: session={SECRET}; Path=/"),
        format!("cookie: {SECRET}"),
        format!("cookie: theme=dark; session={SECRET}"),
        format!("Authorization: token {SECRET}"),
        format!("password=\"a, b;{SECRET}\""),
    ] {
        let clean = text(&line);
        assert!(!clean.contains(SECRET), "{line} → {clean}");
        assert!(clean.contains("REDACTED"), "{line} → {clean}");
    }
}

#[test]
fn a_key_that_begins_before_the_text_is_taken_out() {
    let end = "MIIa+b/\nXy7=\n-----END PRIVATE KEY-----\nready";
    assert_eq!(text(end), "REDACTED\nready");
}

#[test]
fn what_a_maintainer_needs_stays() {
    for line in [
        "connection complete src=10.0.0.1:4000 dst=10.0.0.2:80 identity=spiffe://cluster.local/ns/a/sa/b flags=-",
        "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
        "token not accepted: it has expired",
        "the certificate's key is not known",
        "https://10.96.0.1:443/api/v1/pods?watch=true&resourceVersion=5",
        "mount /var/run/secrets/trefoil/token",
        "secretName: shop",
    ] {
        assert_eq!(text(line), line);
    }
}

#[test]
fn secrets_are_taken_out_of_objects() {
    let last = format!("{{\"data\":\"{SECRET}\"}}");
    let mut object = json!({
        "metadata": {
            "name": "x", "managedFields": [{ "manager": SECRET }],
            "annotations": {
                "kubectl.kubernetes.io/last-applied-configuration": last,
                "example.com/note": SECRET, "note": SECRET,
                "trefoil.dev/redirection": "node",
            },
        },
        "spec": {
            "containers": [{
                "env": [{ "name": "PLAIN", "value": SECRET }, { "name": "REF", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }],
                "args": [format!("--token={SECRET}"), "--log=info"],
            }],
            "rules": [
                { "filters": [{ "requestHeaderModifier": { "set": [{ "name": "x-custom", "value": SECRET }] } }] },
                { "when": [{ "key": "request.headers[x-custom]", "values": [SECRET], "notValues": [SECRET] }] },
            ],
            "password": SECRET, "apiKey": SECRET, "db_token": SECRET,
        },
    });
    value(&mut object);
    let said = object.to_string();
    assert!(!said.contains(SECRET), "{said}");
    for kept in [
        "PLAIN",
        "x-custom",
        "--log=info",
        "secretKeyRef",
        "\"trefoil.dev/redirection\":\"node\"",
    ] {
        assert!(said.contains(kept), "{kept}: {said}");
    }
}

#[test]
fn of_an_applications_pod_only_its_shape_is_kept() {
    let mut pod = json!({ "metadata": { "name": "p" }, "spec": {
        "nodeName": "n1", "volumes": [{ "hostPath": SECRET }],
        "containers": [{ "name": "c", "image": "i", "command": [SECRET], "args": [SECRET], "env": [{ "name": SECRET }],
            "ports": [{ "containerPort": 80 }], "livenessProbe": { "exec": { "command": [SECRET] } } }],
    }});
    application(&mut pod);
    let said = pod.to_string();
    assert!(!said.contains(SECRET), "{said}");
    assert!(
        said.contains("n1") && said.contains("\"image\":\"i\"") && said.contains("80"),
        "{said}"
    );
}
