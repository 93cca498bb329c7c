//! Who may do what: one pure function over the subject and the request's attributes.
//!
//! A subject that is not named here may ask about itself and nothing else. There are no rules to configure,
//! so none can be configured wrong.

use trefoil_api::names::MESH_NAMESPACE;

use crate::kinds::{self, Kind};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Nobody said who.
    Anonymous,
    /// The owner of the mesh, by the kubeconfig.
    Admin,
    /// A service account, by a token.
    ServiceAccount(Account),
}

/// A service account's token, verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// The account's namespace.
    pub(crate) namespace: String,
    /// The account's name.
    pub(crate) name: String,
    /// The account's uid.
    pub(crate) uid: String,
    /// The pod that the token is bound to: name and uid.
    pub(crate) pod: Option<(String, String)>,
    /// The node of that pod.
    pub(crate) node: Option<String>,
}

impl Subject {
    /// The user name as Kubernetes writes it.
    #[must_use]
    pub(crate) fn user(&self) -> String {
        match self {
            Self::Anonymous => "system:anonymous".into(),
            Self::Admin => "trefoil:admin".into(),
            Self::ServiceAccount(account) => account.user(),
        }
    }

    /// The groups as Kubernetes writes them.
    #[must_use]
    pub(crate) fn groups(&self) -> Vec<String> {
        match self {
            Self::Anonymous => vec!["system:unauthenticated".into()],
            Self::Admin => vec!["system:masters".into(), "system:authenticated".into()],
            Self::ServiceAccount(account) => account.groups(),
        }
    }
}

impl Account {
    /// `system:serviceaccount:NAMESPACE:NAME`.
    #[must_use]
    pub(crate) fn user(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }

    /// The groups of a service account.
    #[must_use]
    pub(crate) fn groups(&self) -> Vec<String> {
        vec![
            "system:serviceaccounts".into(),
            format!("system:serviceaccounts:{}", self.namespace),
            "system:authenticated".into(),
        ]
    }
}

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Action<'a> {
    /// Whether the server is well, and its version.
    Public,
    /// What there is.
    Discover,
    /// `selfsubjectreviews` and `selfsubjectaccessreviews`.
    AskAboutSelf,
    /// `tokenreviews`.
    ReviewToken,
    /// A verb on objects.
    Objects {
        /// As Kubernetes names it: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`,
        /// `deletecollection`.
        verb: &'a str,
        /// Their kind.
        kind: &'static Kind,
        /// One namespace, or all.
        namespace: Option<&'a str>,
        /// `status`, `token`, `finalize`, or none.
        subresource: Option<&'a str>,
    },
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Yes.
    Allow,
    /// Only for pods of this node, and only their annotations and status.
    OnNode(String),
    /// No.
    Deny,
}

/// Decides.
#[must_use]
pub(crate) fn authorize(subject: &Subject, action: Action<'_>) -> Verdict {
    match (subject, action) {
        (_, Action::Public) | (Subject::Admin, _) => Verdict::Allow,
        (Subject::Anonymous, _) => Verdict::Deny,
        (Subject::ServiceAccount(_), Action::Discover | Action::AskAboutSelf) => Verdict::Allow,
        (Subject::ServiceAccount(account), _) if account.namespace == MESH_NAMESPACE => {
            match account.name.as_str() {
                "trefoil-control-plane" => allow_if(control_plane(action)),
                "trefoil-cni" => agent(account, action),
                _ => Verdict::Deny,
            }
        }
        (Subject::ServiceAccount(_), _) => Verdict::Deny,
    }
}

fn allow_if(allowed: bool) -> Verdict {
    if allowed { Verdict::Allow } else { Verdict::Deny }
}

/// Reads everything but other people's secrets; writes what it keeps and the status of what it serves.
fn control_plane(action: Action<'_>) -> bool {
    let Action::Objects {
        verb,
        kind,
        namespace,
        subresource,
    } = action
    else {
        return matches!(action, Action::ReviewToken);
    };
    let own = namespace == Some(MESH_NAMESPACE);
    let reads = matches!(verb, "get" | "list" | "watch");
    let writes = matches!(verb, "create" | "update" | "patch");
    match (kind.kind, subresource) {
        ("Secret", None) => own && (reads || writes),
        ("ConfigMap", None) => reads || writes,
        ("Event", None) => reads || writes,
        ("Lease", None) => own && (reads || writes || verb == "delete"),
        (_, None) => reads,
        ("Service", Some("status")) => reads || writes,
        (_, Some("status")) => reads || (kind.custom() && writes),
        _ => false,
    }
}

/// Reads what it decides by; writes what people read about the pods of its own node.
fn agent(account: &Account, action: Action<'_>) -> Verdict {
    let Action::Objects {
        verb,
        kind,
        subresource,
        ..
    } = action
    else {
        return Verdict::Deny;
    };
    match (kind.kind, verb, subresource) {
        ("Pod" | "Namespace" | "ConfigMap" | "Node", "get" | "list" | "watch", None) => Verdict::Allow,
        ("Event", "create" | "patch", None) => Verdict::Allow,
        ("Pod", "patch", None | Some("status")) => {
            account.node.clone().map_or(Verdict::Deny, Verdict::OnNode)
        }
        _ => Verdict::Deny,
    }
}

/// Whether a change of a pod is one that the agent of a node may make.
#[must_use]
pub(crate) fn within_node(node: &str, before: &serde_json::Value, after: &serde_json::Value) -> bool {
    let rest = |object: &serde_json::Value| {
        let mut object = object.clone();
        if let Some(fields) = object.as_object_mut() {
            fields.remove("status");
        }
        if let Some(metadata) = object["metadata"].as_object_mut() {
            for field in ["annotations", "resourceVersion", "managedFields"] {
                metadata.remove(field);
            }
        }
        object
    };
    before["spec"]["nodeName"] == node && rest(before) == rest(after)
}

/// The kinds that a subject other than the admin may be asked about by a path that needs no object.
#[must_use]
pub(crate) fn kind_of(group: &str, plural: &str) -> Option<&'static Kind> {
    kinds::ALL
        .iter()
        .copied()
        .find(|kind| kind.group == group && kind.plural == plural)
}
