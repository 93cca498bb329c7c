//! Copies of requests, whose answers nobody gets. They are bounded in number and in what they hold, are decided about
//! like any request, and never hold up or fail the request that they copy.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use rand::Rng;
use tokio::time::timeout;

use crate::answer::Refusal;
use crate::body::{Body, Source};
use crate::filters::Mirror;
use crate::request::{Asked, Connection, told};
use crate::routing::Rule;

/// How long a copy may take.
const LONGEST: Duration = Duration::from_secs(15);

/// Sends the copies that `rule` asks for of a request, of which nothing was read yet.
pub(crate) fn copies(connection: &Arc<Connection>, asked: &Asked, rule: &Arc<Rule>, source: &Source) {
    for mirror in &rule.filters.mirrors {
        if rand::rng().random_range(0..mirror.of) >= mirror.share {
            continue;
        }
        let Ok(place) = connection.engine.mirrors.clone().try_acquire_owned() else {
            tracing::debug!(route = rule.name, "no room for the copy of a request");
            return;
        };
        let copy = match Copy::of(connection, asked, mirror, source) {
            Ok(copy) => copy,
            Err(error) => {
                tracing::debug!(route = rule.name, %error, "a request was not copied");
                continue;
            }
        };
        let (connection, route) = (connection.clone(), rule.name.clone());
        tokio::spawn(async move {
            let _place = place;
            match timeout(LONGEST, copy.send(&connection)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(route, %error, "the copy of a request failed"),
                Err(_) => tracing::debug!(route, "the copy of a request took too long"),
            }
        });
    }
}

struct Copy {
    sending: crate::request::Sending,
    body: Body,
}

impl Copy {
    fn of(connection: &Connection, asked: &Asked, mirror: &Mirror, source: &Source) -> Result<Self, Refusal> {
        let service = mirror.service.clone().ok_or(Refusal::Unknown)?;
        let server = connection.endpoint(service, mirror.port)?;
        let sending = connection.sending(asked, Arc::new(server), None)?;
        Ok(Self {
            sending,
            body: source.mirror(),
        })
    }

    async fn send(self, connection: &Connection) -> Result<(), String> {
        let sent = self.sending.send(connection, self.body).await;
        let (response, lease) = sent.map_err(|error| told(&error))?;
        let mut body = response.into_body();
        while let Some(frame) = body.frame().await {
            frame.map_err(|error| told(&error))?;
        }
        lease.give_back();
        Ok(())
    }
}
