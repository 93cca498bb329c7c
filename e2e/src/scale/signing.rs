//! Certificates for workloads, asked for by the proxies of their nodes, as many at a time as there are proxies.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use rcgen::{CertificateParams, KeyPair};
use trefoil_api::Identity;
use trefoil_api::proto::istio::v1::auth::IstioCertificateRequest;

use super::changes::Ground;
use super::client::Client;
use super::objects::PodAt;
use crate::authority::impersonation;
use crate::authority::stub::istio_certificate_service_client::IstioCertificateServiceClient;

/// Proxies that ask.
const ASKING: usize = 64;

/// What signing took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Signing {
    /// Certificates that were asked for.
    pub asked: usize,
    /// Those that came.
    pub signed: usize,
    /// From the first request to the last answer.
    pub took: Duration,
    /// CPU of the control plane.
    pub cpu: Duration,
}

impl Ground<'_> {
    /// Has so many certificates signed.
    pub async fn sign(&self, certificates: usize) -> anyhow::Result<Signing> {
        // One key: the authority reads nothing else of a request, and the fleet shares the machine with it.
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        let csr = parameters.serialize_request(&KeyPair::generate()?)?.pem()?;
        let proxies = self.size.nodes.min(ASKING);
        let each = certificates.div_ceil(proxies);
        let before = self.control_plane.used()?.cpu;
        let begun = Instant::now();
        let signed: Vec<usize> = stream::iter(0..proxies)
            .map(|node| self.ask(node, each, &csr))
            .buffer_unordered(proxies)
            .try_collect()
            .await?;
        Ok(Signing {
            asked: each * proxies,
            signed: signed.into_iter().sum(),
            took: begun.elapsed(),
            cpu: self.control_plane.used()?.cpu - before,
        })
    }

    /// Has a proxy ask so many times; how many certificates came.
    async fn ask(&self, node: usize, times: usize, csr: &str) -> anyhow::Result<usize> {
        let proxy: &Client = &self.fleet.clients[node];
        let mut pods = (0..self.size.pods)
            .map(PodAt)
            .filter(|pod| self.size.node_of(*pod) == node);
        let pod = pods.next().context("a node without pods")?;
        let (namespace, account) = self.size.service(self.size.service_of(pod));
        let identity = Identity::new("cluster.local", &namespace, &account)?.to_string();
        let mut client = IstioCertificateServiceClient::new(self.fleet.endpoint.connect().await?);
        let mut signed = 0;
        for _ in 0..times {
            let mut request = tonic::Request::new(IstioCertificateRequest {
                csr: csr.into(),
                validity_duration: 3600,
                metadata: Some(impersonation(&identity)),
            });
            let metadata = request.metadata_mut();
            metadata.insert("authorization", proxy.authorization.clone());
            let chain = client.create_certificate(request).await?.into_inner().cert_chain;
            signed += usize::from(chain.len() > 1);
        }
        Ok(signed)
    }
}
