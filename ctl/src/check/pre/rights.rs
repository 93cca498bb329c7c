//! Whether whoever asks may make what an installation consists of. The API server itself is asked.

use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::Client;
use kube::api::{Api, PostParams};
use trefoil_api::names::MESH_NAMESPACE;

use super::Looked;

/// Group and resource of what is made, of the cluster.
const CLUSTER: [(&str, &str); 10] = [
    ("", "namespaces"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("admissionregistration.k8s.io", "mutatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations"),
    ("admissionregistration.k8s.io", "validatingadmissionpolicies"),
    (
        "admissionregistration.k8s.io",
        "validatingadmissionpolicybindings",
    ),
    ("scheduling.k8s.io", "priorityclasses"),
    ("gateway.networking.k8s.io", "gatewayclasses"),
];
/// The same, of the mesh's own namespace.
const NAMESPACED: [(&str, &str); 10] = [
    ("", "serviceaccounts"),
    ("", "configmaps"),
    ("", "secrets"),
    ("", "services"),
    ("apps", "deployments"),
    ("apps", "daemonsets"),
    ("rbac.authorization.k8s.io", "roles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("policy", "poddisruptionbudgets"),
    ("networking.k8s.io", "networkpolicies"),
];
/// What an installation and its removal do with each.
const VERBS: [&str; 4] = ["create", "get", "patch", "delete"];

/// Asks about each.
pub(super) async fn judged(client: &Client) -> anyhow::Result<Vec<Looked>> {
    let cluster = CLUSTER.iter().map(|kind| (kind, None));
    let namespaced = NAMESPACED.iter().map(|kind| (kind, Some(MESH_NAMESPACE)));
    // Roles that give rights which the giver has not are refused, unless it may give any.
    let escalate = (&("rbac.authorization.k8s.io", "clusterroles"), None, "escalate");
    let asked = cluster.chain(namespaced);
    let asked: Vec<_> = asked
        .flat_map(|(kind, namespace)| VERBS.map(|verb| (kind, namespace, verb)))
        .chain([escalate, (&("*", "*"), None, "*")])
        .collect();
    let reviews = asked
        .iter()
        .map(|(kind, namespace, verb)| review(client, kind, *namespace, verb));
    let answers = match futures::future::try_join_all(reviews).await {
        Ok(answers) => answers,
        Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
            let why = format!("the API server does not say: {}", status.message);
            return Ok(vec![Looked::unknown("rights to install", why)]);
        }
        Err(error) => return Err(error.into()),
    };
    let outcome: Vec<_> = asked
        .iter()
        .zip(answers)
        .map(|((kind, namespace, verb), may)| (**kind, *namespace, *verb, may))
        .collect();
    Ok(vec![told(&outcome)])
}

/// What is asked about, and the answer: group and resource, namespace, verb, whether it is allowed.
type Outcome<'a> = ((&'a str, &'a str), Option<&'a str>, &'a str, bool);

/// The last two are about giving rights: either is enough.
pub(super) fn told(outcome: &[Outcome<'_>]) -> Looked {
    let at = "rights to install";
    let is_giving = |verb: &str| matches!(verb, "escalate" | "*");
    let may_give = outcome.iter().any(|(_, _, verb, may)| is_giving(verb) && *may);
    let mut lacking: Vec<String> = outcome
        .iter()
        .filter(|(_, _, verb, may)| !is_giving(verb) && !may)
        .map(|((group, resource), namespace, verb, _)| {
            let group = match *group {
                "" => String::new(),
                group => format!(".{group}"),
            };
            let at = namespace.map_or_else(String::new, |namespace| format!(" in {namespace}"));
            format!("{verb} {resource}{group}{at}")
        })
        .collect();
    if !may_give {
        lacking.push("give rights that you may not have yourself (escalate clusterroles)".into());
    }
    if lacking.is_empty() {
        return Looked::good(at, "all that an installation and its removal need");
    }
    Looked::bad(
        at,
        format!("you may not {}", lacking.join(", ")),
        "install as an administrator of the cluster (cluster-admin)",
    )
}

async fn review(
    client: &Client,
    (group, resource): &(&str, &str),
    namespace: Option<&str>,
    verb: &str,
) -> kube::Result<bool> {
    let attributes = ResourceAttributes {
        group: Some((*group).into()),
        resource: Some((*resource).into()),
        namespace: namespace.map(str::to_owned),
        verb: Some(verb.into()),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = Api::<SelfSubjectAccessReview>::all(client.clone())
        .create(&PostParams::default(), &review)
        .await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}
