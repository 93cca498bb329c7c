//! An HTTP server that may ask others before it answers.

use std::convert::Infallible;
use std::net::Ipv6Addr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::ask::{http, redis};
use crate::catalog::{Client, Method};

/// A server, and whom it asks before it answers.
pub(crate) struct Front {
    pub(crate) name: String,
    pub(crate) upstream: Option<String>,
    pub(crate) cache: Option<String>,
    pub(crate) catalog: Option<Client>,
}

/// Serves for as long as its pod lives.
pub(crate) async fn serve(port: u16, front: Arc<Front>) -> anyhow::Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        let front = front.clone();
        tokio::spawn(async move {
            let service = service_fn(move |_: Request<hyper::body::Incoming>| {
                let front = front.clone();
                async move { Ok::<_, Infallible>(front.answer().await) }
            });
            // A connection that breaks is its client's to notice.
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

impl Front {
    async fn answer(&self) -> Response<Full<Bytes>> {
        match self.asked().await {
            Ok(text) => Response::new(Full::from(text)),
            Err(error) => {
                let mut response = Response::new(Full::from(format!("{}: {error:#}", self.name)));
                *response.status_mut() = hyper::StatusCode::BAD_GATEWAY;
                response
            }
        }
    }

    async fn asked(&self) -> anyhow::Result<String> {
        let mut text = self.name.clone();
        if let Some(cache) = &self.cache {
            text.push_str(&format!(" (answer {})", redis(cache, "INCR answers").await?));
        }
        if let Some(upstream) = &self.upstream {
            text.push_str(&format!(", having asked {}", http(upstream).await?));
        }
        if let Some(catalog) = &self.catalog {
            let answer = catalog.clone().call(Method::Find).await;
            anyhow::ensure!(answer.served(), "{}: {}", answer.status(), answer.said);
            text.push_str(&format!(", having asked catalog {}", answer.said));
        }
        Ok(text)
    }
}
