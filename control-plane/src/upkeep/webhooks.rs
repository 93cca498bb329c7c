//! Tells the API server by which roots to trust our webhooks, where they are configured.

use k8s_openapi::ByteString;
use k8s_openapi::api::admissionregistration::v1::{
    MutatingWebhookConfiguration, ValidatingWebhookConfiguration,
};
use kube::api::PostParams;
use kube::{Api, Client};

/// The name of both configurations.
const NAME: &str = "trefoil";

/// Puts the roots into the webhook configurations, if there are any. True where that need not be tried again
/// soon.
pub(super) async fn tell_roots(client: &Client, roots: &str) -> bool {
    let roots = ByteString(roots.as_bytes().to_vec());
    let mutating = mutating(Api::all(client.clone()), &roots).await;
    let validating = validating(Api::all(client.clone()), &roots).await;
    settled("mutating", mutating) & settled("validating", validating)
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

async fn mutating(api: Api<MutatingWebhookConfiguration>, roots: &ByteString) -> Result<(), kube::Error> {
    let Some(mut known) = api.get_opt(NAME).await? else {
        return Ok(());
    };
    let mut differs = false;
    for webhook in known.webhooks.iter_mut().flatten() {
        differs |= webhook.client_config.ca_bundle.as_ref() != Some(roots);
        webhook.client_config.ca_bundle = Some(roots.clone());
    }
    if differs {
        api.replace(NAME, &PostParams::default(), &known).await?;
    }
    Ok(())
}

async fn validating(api: Api<ValidatingWebhookConfiguration>, roots: &ByteString) -> Result<(), kube::Error> {
    let Some(mut known) = api.get_opt(NAME).await? else {
        return Ok(());
    };
    let mut differs = false;
    for webhook in known.webhooks.iter_mut().flatten() {
        differs |= webhook.client_config.ca_bundle.as_ref() != Some(roots);
        webhook.client_config.ca_bundle = Some(roots.clone());
    }
    if differs {
        api.replace(NAME, &PostParams::default(), &known).await?;
    }
    Ok(())
}
