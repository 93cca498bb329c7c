//! The way to the control plane: TLS verified by a root file and a name, a token in every call. Both files
//! are read again each time, because both rotate.

use std::path::PathBuf;
use std::time::Duration;

use tonic::metadata::{Ascii, MetadataValue};
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

/// Where the control plane is and how it is verified.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    /// `https://HOST:PORT`.
    pub url: String,
    /// The name in its certificate, whatever the address.
    pub name: String,
    /// PEM file of the roots that vouch for it.
    pub root: PathBuf,
    /// File of our bearer token.
    pub token: PathBuf,
}

/// Why the control plane cannot be called.
#[derive(Debug, thiserror::Error)]
pub enum ControlPlaneError {
    /// The root or token file.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: std::io::Error,
    },
    /// The token file does not hold a token.
    #[error("{path}: not a token")]
    Token {
        /// Which.
        path: PathBuf,
    },
    /// The URL or the connection.
    #[error("{url}: {problem}")]
    Connection {
        /// Which.
        url: String,
        /// What is wrong with it, with its causes.
        problem: String,
    },
}

impl ControlPlane {
    /// A connection, made now.
    pub async fn connect(&self) -> Result<Channel, ControlPlaneError> {
        self.endpoint()
            .await?
            .connect()
            .await
            .map_err(|error| self.connection(&error))
    }

    /// The value of the `authorization` header.
    pub async fn authorization(&self) -> Result<MetadataValue<Ascii>, ControlPlaneError> {
        let token = read(&self.token).await?;
        let not_a_token = || ControlPlaneError::Token {
            path: self.token.clone(),
        };
        let token = std::str::from_utf8(&token).map_err(|_| not_a_token())?;
        let mut value: MetadataValue<Ascii> = format!("Bearer {}", token.trim())
            .parse()
            .map_err(|_| not_a_token())?;
        value.set_sensitive(true);
        Ok(value)
    }

    async fn endpoint(&self) -> Result<Endpoint, ControlPlaneError> {
        let roots = read(&self.root).await?;
        let tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(roots))
            .domain_name(&self.name);
        let endpoint = Endpoint::from_shared(self.url.clone())
            .and_then(|endpoint| endpoint.tls_config(tls))
            .map_err(|error| self.connection(&error))?;
        Ok(endpoint
            .connect_timeout(Duration::from_secs(5))
            .tcp_keepalive(Some(Duration::from_secs(60)))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(10))
            .keep_alive_while_idle(true)
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20))
    }

    fn connection(&self, error: &tonic::transport::Error) -> ControlPlaneError {
        ControlPlaneError::Connection {
            url: self.url.clone(),
            problem: causes(error),
        }
    }
}

/// An error with all its causes: the outermost alone says no more than that something went wrong.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

async fn read(path: &PathBuf) -> Result<Vec<u8>, ControlPlaneError> {
    tokio::fs::read(path)
        .await
        .map_err(|source| ControlPlaneError::File {
            path: path.clone(),
            source,
        })
}
