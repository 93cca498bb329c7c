//! Objects of an API server that need not let us see them: what it refuses to show is noted, and not an error.

use anyhow::Context;
use kube::api::{Api, ListParams};
use serde::de::DeserializeOwned;

/// The objects of an API. There are none of a kind that the cluster has not.
pub(crate) async fn list<K>(api: &Api<K>, what: &str, unseen: &mut Vec<String>) -> anyhow::Result<Vec<K>>
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let list = may(api.list(&ListParams::default()).await, what, unseen)?;
    Ok(list.map(|list| list.items).unwrap_or_default())
}

/// An answer, or none where there is nothing of the kind or it is not for us to see.
pub(crate) fn may<T>(
    answer: kube::Result<T>,
    what: &str,
    unseen: &mut Vec<String>,
) -> anyhow::Result<Option<T>> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 403 => {
            unseen.push(format!("{what}: {}", status.message));
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("looking at {what}")),
    }
}
