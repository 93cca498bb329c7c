//! Early hints, from Node's servers to curl through a waypoint, whichever version of HTTP either speaks.

use std::path::Path;

use anyhow::{Context, ensure};

use super::{pod, until_printed};
use crate::mesh::standard::Standard;
use crate::report::Report;

/// The same answer in HTTP/1.1 and in HTTP/2.
const SERVERS: &str = "
const answer = (request, response) => {
    response.writeEarlyHints({ link: '</a.css>; rel=preload; as=style' });
    response.end('hinted in ' + request.httpVersion);
};
require('http').createServer(answer).listen(8001);
require('http2').createServer(answer).listen(8002);
";

/// Services of the same pod, which say what its ports speak.
const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: hints1, namespace: NAMESPACE}
spec: {selector: {app: hints}, ports: [{port: 80, targetPort: 8001, appProtocol: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: hints2, namespace: NAMESPACE}
spec: {selector: {app: hints}, ports: [{port: 80, targetPort: 8002, appProtocol: kubernetes.io/h2c}]}
";

/// Node's servers, in a namespace.
pub(super) async fn serve(standard: &Standard, namespace: &str, peers: &Path) -> anyhow::Result<()> {
    let node = peers.join("node");
    let command = [node.to_str().context("a path")?, "-e", SERVERS];
    pod(standard, namespace, "hints", (80, 8001), &command).await?;
    standard
        .mesh
        .apply(&SERVICES.replace("NAMESPACE", namespace))
        .await
}

pub(super) async fn run(standard: &Standard, report: &mut Report, client: &str, server: &str) {
    let hinted = hinted(standard, client, server).await;
    report.check(format!("{client} → {server}: early hints"), hinted);
}

async fn hinted(standard: &Standard, client: &str, server: &str) -> anyhow::Result<String> {
    for (option, spoken) in [("--http1.1", "1.1"), ("--http2-prior-knowledge", "2")] {
        for (service, served) in [("hints1", "1.1"), ("hints2", "2.0")] {
            let url = format!("http://{service}.{server}/");
            let command = ["curl", "-sSf", "-m", "10", "-D", "-", option, &url];
            let end = format!("hinted in {served}");
            let printed =
                until_printed(standard, client, &command, |printed| printed.ends_with(&end)).await?;
            let mut heads = printed.split("\r\n\r\n");
            let (hints, answer) = (heads.next().unwrap_or_default(), heads.next().unwrap_or_default());
            ensure!(
                hints.starts_with(&format!("HTTP/{spoken} 103"))
                    && hints.contains("link: </a.css>; rel=preload; as=style")
                    && answer.starts_with(&format!("HTTP/{spoken} 200")),
                "{option} {url}: {printed:?}"
            );
        }
    }
    Ok("before the answer, in each version from each".into())
}
