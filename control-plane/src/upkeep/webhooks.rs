//! Tells the API server by which roots to trust our webhooks, where they are configured.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration, WebhookClientConfig,
};
use kube::api::PostParams;
use kube::{Api, Client};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The name of both configurations.
const NAME: &str = "trefoil";

/// Puts the roots into the webhook configurations, if there are any. True where that need not be tried again
/// soon.
pub(super) async fn tell_roots(client: &Client, roots: &str) -> bool {
    let roots = ByteString(roots.as_bytes().to_vec());
    let mutating = Api::<MutatingWebhookConfiguration>::all(client.clone());
    let validating = Api::<ValidatingWebhookConfiguration>::all(client.clone());
    settled("mutating", tell(mutating, &roots).await) & settled("validating", tell(validating, &roots).await)
}

fn settled(which: &str, outcome: Result<(), kube::Error>) -> bool {
    match outcome {
        Ok(()) => true,
        // The embedded API has no webhooks: the store validates.
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => true,
        Err(error) => {
            tracing::warn!(which, %error, "the webhook configuration cannot be told the roots");
            false
        }
    }
}

/// What both configurations hold of each of their webhooks.
trait Webhooks {
    /// How the API server reaches them.
    fn clients(&mut self) -> impl Iterator<Item = &mut WebhookClientConfig>;
}

impl Webhooks for MutatingWebhookConfiguration {
    fn clients(&mut self) -> impl Iterator<Item = &mut WebhookClientConfig> {
        let webhooks = self.webhooks.iter_mut().flatten();
        webhooks.map(|webhook| &mut webhook.client_config)
    }
}

impl Webhooks for ValidatingWebhookConfiguration {
    fn clients(&mut self) -> impl Iterator<Item = &mut WebhookClientConfig> {
        let webhooks = self.webhooks.iter_mut().flatten();
        webhooks.map(|webhook| &mut webhook.client_config)
    }
}

async fn tell<K>(api: Api<K>, roots: &ByteString) -> Result<(), kube::Error>
where
    K: Webhooks + Clone + std::fmt::Debug + DeserializeOwned + Serialize,
{
    let Some(mut known) = api.get_opt(NAME).await? else {
        return Ok(());
    };
    let mut differs = false;
    for client in known.clients() {
        differs |= client.ca_bundle.as_ref() != Some(roots);
        client.ca_bundle = Some(roots.clone());
    }
    if differs {
        api.replace(NAME, &PostParams::default(), &known).await?;
    }
    Ok(())
}
