//! The `admin` subcommand: what an exec reaches in an image without a shell.

use std::io::Write;

use anyhow::{Context, bail};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::flags::Admin;

/// Asks, prints what is answered, and fails where the answer is an error.
pub(crate) async fn ask(admin: &Admin) -> anyhow::Result<()> {
    let path = format!("/{}", admin.path.trim_start_matches('/'));
    let stream = UnixStream::connect(&admin.admin_socket)
        .await
        .with_context(|| format!("no control plane at {}", admin.admin_socket.display()))?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = http::Request::builder()
        .method(admin.method.clone())
        .uri(&path)
        .header(http::header::HOST, "admin")
        .body(Full::new(bytes::Bytes::from(admin.body.clone())))?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let mut out = std::io::stdout().lock();
    out.write_all(&body)?;
    if !body.ends_with(b"\n") {
        out.write_all(b"\n")?;
    }
    if !status.is_success() {
        bail!("{} {path}: {status}", admin.method);
    }
    Ok(())
}
