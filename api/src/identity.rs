//! SPIFFE identities of workloads: `spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT`.
//! Anything else, however close, is not an identity.

use std::fmt;
use std::str::FromStr;

#[cfg(test)]
mod tests;

/// The identity of a workload (SPIFFE-ID specification, section 2, in the form Kubernetes meshes share).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    trust_domain: Box<str>,
    namespace: Box<str>,
    service_account: Box<str>,
}

/// Why a text is not an identity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an identity: expected spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/SERVICE-ACCOUNT")]
pub struct NotAnIdentity {
    text: String,
}

impl Identity {
    /// An identity of its three parts. Errors where a part is empty or holds a character that no
    /// Kubernetes name and no trust domain has.
    pub fn new(trust_domain: &str, namespace: &str, service_account: &str) -> Result<Self, NotAnIdentity> {
        let valid = [trust_domain, namespace, service_account]
            .iter()
            .all(|part| is_name(part));
        if !valid {
            return Err(NotAnIdentity {
                text: format!("spiffe://{trust_domain}/ns/{namespace}/sa/{service_account}"),
            });
        }
        Ok(Self {
            trust_domain: trust_domain.into(),
            namespace: namespace.into(),
            service_account: service_account.into(),
        })
    }

    /// Who vouches for the identity, such as `cluster.local`.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The Kubernetes namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Kubernetes service account.
    #[must_use]
    pub fn service_account(&self) -> &str {
        &self.service_account
    }

    /// The identity without `spiffe://`, as policies name principals.
    #[must_use]
    pub fn principal(&self) -> String {
        format!(
            "{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

/// DNS-1123 subdomain characters: what trust domains, namespaces and service accounts are made of.
pub(crate) fn is_name(part: &str) -> bool {
    let character = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-' || c == b'.';
    !part.is_empty() && part.len() <= 253 && part.bytes().all(character)
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "spiffe://{}/ns/{}/sa/{}",
            self.trust_domain, self.namespace, self.service_account
        )
    }
}

impl FromStr for Identity {
    type Err = NotAnIdentity;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || NotAnIdentity { text: text.into() };
        let path = text.strip_prefix("spiffe://").ok_or_else(refused)?;
        let mut parts = path.split('/');
        let mut next = || parts.next().ok_or_else(refused);
        let (trust_domain, ns, namespace, sa, account) = (next()?, next()?, next()?, next()?, next()?);
        if ns != "ns" || sa != "sa" || parts.next().is_some() {
            return Err(refused());
        }
        Self::new(trust_domain, namespace, account).map_err(|_| refused())
    }
}
