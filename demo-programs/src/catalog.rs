//! The gRPC API of the demonstration: a server of one version, and calls, none of which is repeated.

use std::net::{Ipv6Addr, SocketAddr};

use anyhow::Context;
use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};

use stub::catalog_client::CatalogClient;
use stub::catalog_server::{Catalog, CatalogServer};
use stub::{Article, Offer};

use crate::LIMIT;

/// What is generated from `proto/catalog.proto`.
mod stub {
    #![allow(missing_docs, unreachable_pub, clippy::all, clippy::too_many_lines)]
    tonic::include_proto!("shop");
}

/// Its methods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// What an article costs.
    Find,
    /// Changes it.
    Reprice,
}

impl Method {
    /// As it is written on the wire and in policies.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Find => "/shop.Catalog/Find",
            Self::Reprice => "/shop.Catalog/Reprice",
        }
    }

    /// As it is asked for on the command line.
    #[must_use]
    pub fn argument(self) -> &'static str {
        match self {
            Self::Find => "find",
            Self::Reprice => "reprice",
        }
    }
}

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// Its gRPC status.
    pub code: i32,
    /// The version that answered, or why none did.
    pub said: String,
}

impl Answer {
    /// The name of its status, as the specification of gRPC has it.
    #[must_use]
    pub fn status(&self) -> String {
        match Code::from(self.code) {
            Code::Ok => "OK".into(),
            Code::PermissionDenied => "PERMISSION_DENIED".into(),
            other => format!("{other:?}"),
        }
    }

    /// Whether a server of the API answered.
    #[must_use]
    pub fn served(&self) -> bool {
        self.code == Code::Ok as i32
    }

    /// Whether it was refused for who asked.
    #[must_use]
    pub fn denied(&self) -> bool {
        self.code == Code::PermissionDenied as i32
    }
}

/// A version of the catalog, for as long as its pod lives.
pub(crate) async fn serve(version: String, port: u16) -> anyhow::Result<()> {
    let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let catalog = CatalogServer::new(Shelf { version });
    Ok(Server::builder().add_service(catalog).serve(address).await?)
}

struct Shelf {
    version: String,
}

impl Shelf {
    fn offer(&self, article: Option<Article>, cents: u32) -> Result<Response<Offer>, Status> {
        let article = article.ok_or_else(|| Status::invalid_argument("no article"))?;
        Ok(Response::new(Offer {
            article: Some(article),
            cents,
            version: self.version.clone(),
        }))
    }
}

#[tonic::async_trait]
impl Catalog for Shelf {
    async fn find(&self, request: Request<Article>) -> Result<Response<Offer>, Status> {
        self.offer(Some(request.into_inner()), 1250)
    }

    async fn reprice(&self, request: Request<Offer>) -> Result<Response<Offer>, Status> {
        let wanted = request.into_inner();
        self.offer(wanted.article, wanted.cents)
    }
}

/// A client that connects when it first calls, and stays connected.
#[derive(Clone, Debug)]
pub(crate) struct Client(CatalogClient<Channel>);

impl Client {
    /// Of the API at HOST:PORT.
    pub(crate) fn new(target: &str) -> anyhow::Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{target}"))
            .with_context(|| format!("{target:?} is no HOST:PORT"))?;
        let channel = endpoint.connect_timeout(LIMIT).timeout(LIMIT).connect_lazy();
        Ok(Self(CatalogClient::new(channel)))
    }

    /// One call.
    pub(crate) async fn call(&mut self, method: Method) -> Answer {
        let article = Article {
            name: "clover".into(),
        };
        let answered = match method {
            Method::Find => self.0.find(article).await,
            Method::Reprice => {
                let wanted = Offer {
                    article: Some(article),
                    cents: 990,
                    version: String::new(),
                };
                self.0.reprice(wanted).await
            }
        };
        match answered {
            Ok(offer) => Answer {
                code: Code::Ok as i32,
                said: offer.into_inner().version,
            },
            Err(status) => Answer {
                code: status.code() as i32,
                said: status.message().into(),
            },
        }
    }
}
