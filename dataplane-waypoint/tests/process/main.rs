//! The waypoint as a process: what it says of itself, a request that is under way when it is told to end, and what a
//! second signal does.

mod control_plane;
mod known;

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Uri};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio_rustls::TlsConnector;
use trefoil_dataplane_process::admin::ask;
use trefoil_dataplane_state::certificates::{Certificates, Settings};

use control_plane::{ADDRESS, Authority, alone};
use known::{APPLICATION, POD, SERVICE, identity, remember};

const BINARY: &str = env!("CARGO_BIN_EXE_trefoil-waypoint");
/// How long anything awaited here may take. Less than the waypoint would wait for a request by itself.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long the waypoint would wait, in seconds.
const DEADLINE: &str = "60";

async fn within<T>(what: &str, awaited: impl Future<Output = T>) -> T {
    let in_time = tokio::time::timeout(PATIENCE, awaited).await;
    in_time.unwrap_or_else(|_| panic!("in vain: {what}"))
}

/// A waypoint that serves, a client's tunnel to it, and the application behind it.
struct Running {
    process: Child,
    socket: PathBuf,
    authority: std::sync::Arc<Authority>,
    application: TcpListener,
    _folder: tempfile::TempDir,
}

impl Running {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let state = folder.path().join("state");
        remember(&state).await;
        let authority = Authority::new();
        authority.serve(identity("door"), folder.path());
        let application = TcpListener::bind(APPLICATION).await.expect("a port");
        let socket = folder.path().join("admin.sock");
        let process = Command::new(BINARY)
            .args(["run", "--pod", POD, "--namespace", "shop", "--pod-uid", "u1"])
            .args(["--service-account", "door", "--node", "n1", "--gateway", "door"])
            .args(["--control-plane", &format!("https://{ADDRESS}")])
            .args(["--drain-deadline", DEADLINE, "--log-level", "error"])
            .args([Path::new("--token"), &folder.path().join("token")])
            .args([Path::new("--root-cert"), &folder.path().join("root.pem")])
            .args([Path::new("--admin-socket"), &socket])
            .args([Path::new("--state-dir"), &state])
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("a process");
        let running = Self {
            process,
            socket,
            authority,
            application,
            _folder: folder,
        };
        running.until("/healthz/ready", |status, _| status == 200).await;
        running
    }

    /// Asks the admin interface until it answers so.
    async fn until(&self, path: &str, right: impl Fn(u16, &str) -> bool) -> String {
        let mut last = String::from("nothing");
        let asked = async {
            loop {
                if let Ok(answer) = ask(&self.socket, "GET", path, "").await {
                    last = String::from_utf8_lossy(&answer.body).into_owned();
                    if right(answer.status, &last) {
                        return last.clone();
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, asked).await {
            Ok(body) => body,
            Err(_) => panic!("{path} still says: {last}"),
        }
    }

    async fn status(&self) -> Value {
        let status = self.until("/status", |status, _| status == 200).await;
        serde_json::from_str(&status).expect("JSON")
    }

    /// Tells it to end, and waits until it has heard.
    async fn terminate(&self) {
        self.signal();
        self.until("/healthz/ready", |_, awaited| awaited.contains("draining"))
            .await;
        assert_eq!(self.status().await["draining"], true);
    }

    fn signal(&self) {
        let process = self.process.id().expect("it runs").cast_signed();
        kill_process(Pid::from_raw(process).expect("a process"), Signal::TERM).expect("signalled");
    }

    /// A request that the application has taken, and has not answered.
    async fn request(&self) -> (Tunnelled, TcpStream) {
        let mut tunnelled = Tunnelled::open(&self.authority).await;
        tunnelled
            .send("GET /slow HTTP/1.1\r\nhost: cart.shop\r\n\r\n")
            .await;
        let (mut application, _) = within("a connection", self.application.accept())
            .await
            .expect("a connection");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(
                within("the request", application.read_u8())
                    .await
                    .expect("a head"),
            );
        }
        let head = String::from_utf8(head).expect("text");
        assert!(head.starts_with("GET /slow HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&identity("web").to_string()), "{head}");
        (tunnelled, application)
    }

    async fn ended(mut self) -> ExitStatus {
        within("its end", self.process.wait()).await.expect("a child")
    }
}

/// A stream of a tunnel to the waypoint, of the client `web`.
struct Tunnelled {
    send: h2::SendStream<Bytes>,
    receive: h2::RecvStream,
}

impl Tunnelled {
    async fn open(authority: &std::sync::Arc<Authority>) -> Self {
        let certificates = Certificates::new(authority.clone(), Settings::default());
        let config = certificates
            .client_config(&identity("web"), &[identity("door")])
            .await
            .expect("a certificate");
        let stream = TcpStream::connect("127.0.0.3:15008").await.expect("it listens");
        let name = rustls_pki_types::ServerName::IpAddress(stream.peer_addr().expect("a peer").ip().into());
        let tls = TlsConnector::from(config)
            .connect(name, stream)
            .await
            .expect("the waypoint itself");
        let (send, connection) = h2::client::handshake(tls).await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut send: h2::client::SendRequest<Bytes> = send.ready().await.expect("a stream");
        let uri = Uri::builder().authority(SERVICE).build().expect("a target");
        let request = Request::builder().method(Method::CONNECT).uri(uri);
        let request = request.body(()).expect("a request");
        let (response, send) = send.send_request(request, false).expect("sent");
        let response = within("an answer to CONNECT", response).await.expect("an answer");
        assert_eq!(response.status(), 200);
        Self {
            send,
            receive: response.into_body(),
        }
    }

    async fn send(&mut self, text: &str) {
        self.send
            .send_data(Bytes::copy_from_slice(text.as_bytes()), false)
            .expect("sent");
    }

    /// All that comes until the stream ends, and whether that was in order.
    async fn rest(mut self) -> (String, bool) {
        let mut text = String::new();
        loop {
            match within("the stream's end", self.receive.data()).await {
                Some(Ok(data)) => {
                    let _ = self.receive.flow_control().release_capacity(data.len());
                    text.push_str(&String::from_utf8_lossy(&data));
                }
                Some(Err(_)) => return (text, false),
                None => return (text, true),
            }
        }
    }
}

#[test]
fn it_says_what_it_is_and_ends_when_told() {
    alone(|| async {
        let running = Running::new().await;
        let status = running.status().await;
        assert_eq!(status["plane"], "waypoint");
        assert_eq!(status["gateway"], "door");
        assert_eq!(status["identity"], "spiffe://cluster.local/ns/shop/sa/door");
        assert_eq!(status["ready"], true);
        assert_eq!(
            status["reachedBy"],
            serde_json::json!(["shop/door.shop.svc.cluster.local"])
        );
        let asked = Command::new(BINARY)
            .args(["admin", "config", "--admin-socket"])
            .arg(&running.socket)
            .output()
            .await
            .expect("a process");
        assert!(asked.status.success());
        let config: Value = serde_json::from_slice(&asked.stdout).expect("JSON");
        assert_eq!(config["options"]["gateway"], "door");
        running.signal();
        assert!(running.ended().await.success());
    });
}

#[test]
fn a_request_under_way_is_answered_before_it_ends() {
    alone(|| async {
        let mut running = Running::new().await;
        let (tunnelled, mut application) = running.request().await;
        running.terminate().await;
        let ended = running.process.try_wait().expect("a child");
        assert_eq!(ended, None, "it has a request to answer");
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nslowly";
        application.write_all(answer.as_bytes()).await.expect("taken");
        let (answered, in_order) = tunnelled.rest().await;
        assert!(
            answered.starts_with("HTTP/1.1 200 OK\r\n") && answered.ends_with("\r\n\r\nslowly"),
            "{answered}"
        );
        assert!(in_order, "reset after its answer");
        assert!(running.ended().await.success());
    });
}

#[test]
fn a_second_signal_ends_it_at_once() {
    alone(|| async {
        let running = Running::new().await;
        let (tunnelled, _application) = running.request().await;
        running.terminate().await;
        running.signal();
        // Long before its deadline, and without an answer of the application, which gives none.
        running.ended().await;
        let (answered, _) = tunnelled.rest().await;
        assert!(!answered.contains("200 OK"), "{answered}");
    });
}
