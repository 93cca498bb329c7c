//! What the server's end makes of a request: who its client is, whichever spelling its path has, what both ends count,
//! and how long it may take to find out that there is none.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::mesh::PodPlan;
use crate::mesh::eventually;
use crate::mesh::standard::{NAMESPACES, Standard};
use crate::programs::call::Target;
use crate::programs::session::Protocol;
use crate::programs::{CERTIFICATE, port};
use crate::report::Report;
use crate::suites::http::{SOON, policy, until_printed};

/// What both ends may take together to find out that a client waits for the server to speak, and what a busy machine
/// adds to it.
const PATIENCE: Duration = Duration::from_millis(100);
const ALLOWANCE: Duration = Duration::from_millis(400);

/// Spellings of one path, and what refuses each: policy, or whoever reads the path.
const SPELLINGS: [(&str, &str); 6] = [
    ("/admin/x", "403"),
    ("/%61dmin/x", "403"),
    ("//admin//x", "403"),
    ("/shop/../admin/./x", "403"),
    ("/admin%2Fx", "400"),
    ("/admin\\x", "400"),
];

/// Answers without a length, and breaks off.
const BREAKING_OFF: &str = "
import socket, struct, time
listener = socket.create_server(('', 8080))
while True:
    client, _ = listener.accept()
    client.recv(4096)
    client.sendall(b'HTTP/1.0 200 OK\\r\\n\\r\\nhalf an answer')
    # Until it has arrived: a reset takes away what has not.
    time.sleep(0.3)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    client.close()
";

/// Tells how the answer to a request of HTTP/1.0 ends.
const ASKING: &str = "
import socket, sys
server = socket.create_connection((sys.argv[1], 8080), timeout=5)
server.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n')
answer = b''
try:
    while read := server.recv(4096):
        answer += read
    ended = 'in order'
except ConnectionResetError:
    ended = 'by a reset'
print(answer.split(b'\\r\\n\\r\\n')[-1].decode(), 'and it ended', ended)
";

pub(super) async fn run(standard: &Standard, report: &mut Report) -> anyhow::Result<()> {
    for client in NAMESPACES {
        let result = identity(standard, client).await;
        report.check(
            format!("{client}: the application is told who the client is"),
            result,
        );
    }
    report.check("one path, however it is spelled", spellings(standard).await);
    report.check("both ends count a request alike", counted(standard).await);
    report.check("a server that speaks first", server_first(standard).await);
    report.check(
        "an answer without a length that breaks off does not look whole",
        broken_off(standard).await,
    );
    Ok(())
}

/// To clients of HTTP/1.0 the end of the connection is the end of the answer, so what is cut must be reset.
async fn broken_off(standard: &Standard) -> anyhow::Result<String> {
    let plan = PodPlan {
        namespace: "sidecar".into(),
        name: "breaking-off".into(),
        node: "n2".into(),
        account: "breaking-off".into(),
        ports: vec![8080],
        services: vec!["breaking-off:80:8080".into()],
        ..PodPlan::default()
    };
    let server = standard
        .mesh
        .run(&plan, &["/usr/bin/python3", "-c", BREAKING_OFF])
        .await?;
    let address = server.at(8080).ip().to_string();
    let command = ["/usr/bin/python3", "-c", ASKING, &address];
    for client in NAMESPACES {
        until_printed(standard, client, &command, |printed| {
            printed.trim() == "half an answer and it ended by a reset"
        })
        .await?;
    }
    Ok("half of it, then a reset, to clients of all three kinds".into())
}

/// Where the test server of the sidecars' namespace on the other node serves HTTP.
fn url(standard: &Standard, path: &str) -> anyhow::Result<String> {
    let address = standard.server("sidecar", "n2")?.at(port::HTTP);
    Ok(format!("http://{address}{path}"))
}

/// What the client says of itself is not believed.
async fn identity(standard: &Standard, client: &str) -> anyhow::Result<String> {
    let forged = "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/sidecar/sa/admin";
    let url = url(standard, "/")?;
    let command = ["curl", "-sS", "-i", "-m", "5", "-H", forged, &url];
    let wanted = format!(
        "{CERTIFICATE}: By=spiffe://cluster.local/ns/sidecar/sa/server;URI=spiffe://cluster.local/ns/{client}/sa/client"
    );
    let meshed = client != "none";
    until_printed(standard, client, &command, |printed| {
        let said = printed.lines().find(|line| line.starts_with(CERTIFICATE));
        printed.contains("200 OK") && said.map(str::trim) == meshed.then_some(wanted.as_str())
    })
    .await?;
    Ok(if meshed {
        wanted
    } else {
        "nobody, who has proved nothing".into()
    })
}

async fn spellings(standard: &Standard) -> anyhow::Result<String> {
    let spec = "{action: Deny, rules: [{to: [{paths: [/admin/*]}]}]}";
    policy(&standard.mesh, "sidecar", Some(spec)).await?;
    for (spelling, refusal) in SPELLINGS {
        let url = url(standard, spelling)?;
        // Of an ambient client no plane on the way rewrites anything.
        let command = ["curl", "-sS", "-i", "-m", "5", "--path-as-is", &url];
        until_printed(standard, "ambient", &command, |printed| {
            printed.starts_with(&format!("HTTP/1.1 {refusal} "))
        })
        .await?;
    }
    let open = url(standard, "/administration")?;
    let command = ["curl", "-sS", "-i", "-m", "5", &open];
    until_printed(standard, "ambient", &command, |printed| {
        printed.contains("200 OK")
    })
    .await?;
    policy(&standard.mesh, "sidecar", None).await?;
    Ok(format!(
        "{} spellings refused, another path served",
        SPELLINGS.len()
    ))
}

/// The same labels at both ends, but for the reporter.
async fn counted(standard: &Standard) -> anyhow::Result<String> {
    const LABELS: [(&str, &str); 6] = [
        ("source_principal", "spiffe://cluster.local/ns/sidecar/sa/client"),
        (
            "destination_principal",
            "spiffe://cluster.local/ns/sidecar/sa/server",
        ),
        ("destination_workload", "server-n2"),
        ("connection_security_policy", "mutual_tls"),
        ("request_protocol", "http"),
        ("response_code", "200"),
    ];
    let (client, server) = (standard.client("sidecar")?, standard.server("sidecar", "n2")?);
    let of = async |reporter, pod| {
        let labels = [LABELS.as_slice(), &[("reporter", reporter)]].concat();
        standard.mesh.counted(pod, "istio_requests_total", &labels).await
    };
    let before = (of("source", client).await?, of("destination", server).await?);
    let url = url(standard, "/counted")?;
    let command = ["curl", "-sS", "-i", "-m", "5", &url, &url, &url];
    until_printed(standard, "sidecar", &command, |printed| {
        printed.contains("200 OK")
    })
    .await?;
    eventually(SOON, async || {
        let now = (of("source", client).await?, of("destination", server).await?);
        let more = (now.0 - before.0, now.1 - before.1);
        ensure!(more == (3.0, 3.0), "{more:?} more of 3");
        Ok("3 of 3 at either end".into())
    })
    .await
}

/// Where nothing is declared, whoever waits for the server to speak is waited for in turn: at both ends.
async fn server_first(standard: &Standard) -> anyhow::Result<String> {
    let address = standard.server("sidecar", "n2")?.at(port::GREETING);
    let target = Target {
        protocol: Protocol::Greeting,
        address,
    };
    let mut fastest = Duration::MAX;
    for _ in 0..5 {
        let begun = Instant::now();
        let calls = standard.call("sidecar", &[target], 1).await?;
        ensure!(calls[0].served() == 1, "{:?}", calls[0].outcomes);
        fastest = fastest.min(begun.elapsed());
    }
    ensure!(fastest < PATIENCE + ALLOWANCE, "{fastest:?}");
    let waited = format!("port sidecar/server-n2:{}", port::GREETING);
    let status = standard.mesh.said(&["status"]).await?;
    ensure!(status.contains(&waited), "status does not say it: {status}");
    Ok(format!(
        "greeted after {} ms, with the test program's start",
        fastest.as_millis()
    ))
}
