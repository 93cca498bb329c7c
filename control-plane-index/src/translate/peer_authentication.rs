//! PeerAuthentication → a Deny policy on the absence of an identity. The most specific wins, port by port:
//! a selector's, the namespace's, the mesh's, the mesh configuration's.

use std::collections::BTreeMap;

use trefoil_api::crd::{MtlsMode, PeerAuthenticationSpec};
use trefoil_api::proto::istio::security as message;
use trefoil_api::proto::istio::security::string_match::MatchType;

/// What holds for a workload in the end: true is strict.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Effective {
    /// Ports that are not named.
    pub(crate) strict: bool,
    /// Ports that differ from it.
    pub(crate) exceptions: Vec<u16>,
}

impl Effective {
    /// Folds what applies to a workload, the most specific first, over the mesh's default.
    pub(crate) fn of<'a>(
        chain: impl IntoIterator<Item = &'a PeerAuthenticationSpec> + Clone,
        default: MtlsMode,
    ) -> Self {
        let strict = |mode: MtlsMode| mode == MtlsMode::Strict;
        let all = chain
            .clone()
            .into_iter()
            .find_map(|spec| spec.mtls)
            .unwrap_or(default);
        let mut ports: BTreeMap<u16, MtlsMode> = BTreeMap::new();
        let mut said_for_all = false;
        for spec in chain {
            if said_for_all {
                break;
            }
            for (port, mode) in &spec.ports {
                if let Ok(port) = port.parse::<u16>() {
                    ports.entry(port).or_insert(*mode);
                }
            }
            said_for_all = spec.mtls.is_some();
        }
        Self {
            strict: strict(all),
            exceptions: ports
                .into_iter()
                .filter(|(_, mode)| strict(*mode) != strict(all))
                .map(|(port, _)| port)
                .collect(),
        }
    }
}

/// The policy that enforces it, if plaintext is refused anywhere.
#[must_use]
pub(crate) fn peer_authentication(
    namespace: &str,
    name: &str,
    effective: &Effective,
) -> Option<message::Authorization> {
    if !effective.strict && effective.exceptions.is_empty() {
        return None;
    }
    let nobody = message::Match {
        not_principals: vec![message::StringMatch {
            match_type: Some(MatchType::Presence(())),
        }],
        ..message::Match::default()
    };
    let mut clauses = vec![clause(nobody)];
    let ports: Vec<u32> = effective.exceptions.iter().copied().map(u32::from).collect();
    if !ports.is_empty() {
        let mut one = message::Match::default();
        if effective.strict {
            one.not_destination_ports = ports;
        } else {
            one.destination_ports = ports;
        }
        clauses.push(clause(one));
    }
    Some(message::Authorization {
        name: name.into(),
        namespace: namespace.into(),
        scope: message::Scope::WorkloadSelector.into(),
        action: message::Action::Deny.into(),
        rules: vec![message::Rule { clauses }],
        ..message::Authorization::default()
    })
}

fn clause(one: message::Match) -> message::Clause {
    message::Clause { matches: vec![one] }
}
