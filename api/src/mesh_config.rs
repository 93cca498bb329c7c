//! The mesh-wide configuration: ConfigMap `trefoil-mesh`, key `mesh.yaml`. Typed, unknown keys refused, so
//! that a misspelt key never leaves a default in force unseen.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Identity;
use crate::crd::MtlsMode;

#[cfg(test)]
mod tests;

/// The longest `connectionMaxAge`: a year. Planes refuse what is beyond.
pub const MAX_AGE_LIMIT: Duration = Duration::from_secs(365 * 24 * 3600);

/// The configuration of the whole mesh; hot: a change takes effect at once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct MeshConfig {
    /// Who vouches for identities; absent: the control plane's flag.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
    /// What happens to connections to addresses that the mesh does not know.
    pub outbound: Outbound,
    /// Whether labels of pods override those of their namespace.
    pub pod_overrides: bool,
    /// Whether planes answer the DNS queries of their pods, where no label says.
    pub dns_capture: bool,
    /// Where no PeerAuthentication says anything.
    pub default_mtls: MtlsMode,
    /// Lifetime of the certificates of workloads, and the longest that one is signed for.
    #[serde(with = "text")]
    pub certificate_lifetime: Duration,
    /// After how long a pooled connection is replaced; whole seconds, at most [`MAX_AGE_LIMIT`].
    #[serde(with = "text")]
    pub connection_max_age: Duration,
    /// Whether waypoints are made where policy needs them.
    pub auto_waypoint: bool,
}

/// What happens to connections to addresses that the mesh does not know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outbound {
    /// They pass, and are counted.
    #[default]
    AllowAny,
    /// They are refused.
    RegistryOnly,
}

/// Why a configuration was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMeshConfig {
    /// Not YAML of the known keys and values.
    #[error("{0}")]
    Unreadable(String),
    /// A value that makes no sense.
    #[error("{field}: {problem}")]
    Value {
        /// The key.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self {
            trust_domain: None,
            outbound: Outbound::AllowAny,
            pod_overrides: true,
            dns_capture: true,
            default_mtls: MtlsMode::Permissive,
            certificate_lifetime: Duration::from_secs(24 * 3600),
            connection_max_age: Duration::from_secs(3600),
            auto_waypoint: false,
        }
    }
}

impl MeshConfig {
    /// Reads the text of key `mesh.yaml`. An empty text is the default.
    pub fn parse(yaml: &str) -> Result<Self, InvalidMeshConfig> {
        if yaml
            .lines()
            .all(|line| matches!(line.trim().bytes().next(), None | Some(b'#')))
        {
            return Ok(Self::default());
        }
        let config: Self =
            serde_saphyr::from_str(yaml).map_err(|error| InvalidMeshConfig::Unreadable(error.to_string()))?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), InvalidMeshConfig> {
        let value = |field, problem: String| Err(InvalidMeshConfig::Value { field, problem });
        if let Some(domain) = &self.trust_domain
            && Identity::new(domain, "namespace", "account").is_err()
        {
            return value("trustDomain", format!("{domain:?} is not a trust domain"));
        }
        if self.certificate_lifetime < Duration::from_secs(2) {
            return value(
                "certificateLifetime",
                "is shorter than 2s: nothing could be rotated".into(),
            );
        }
        let age = self.connection_max_age;
        if age < Duration::from_secs(1) || age > MAX_AGE_LIMIT || age.subsec_nanos() != 0 {
            return value("connectionMaxAge", "is not whole seconds from 1s to 8760h".into());
        }
        Ok(())
    }
}

/// Reads durations such as `24h`, `1h30m`, `10s`, `500ms`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refused = || format!("{text:?} is not a duration such as 24h, 1h30m or 10s");
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit())
            .filter(|at| *at > 0)
            .ok_or_else(refused)?;
        let number: u64 = rest[..digits].parse().map_err(|_| refused())?;
        let unit_end = rest[digits..]
            .find(|c: char| c.is_ascii_digit())
            .map_or(rest.len(), |at| digits + at);
        let milliseconds = match &rest[digits..unit_end] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            _ => return Err(refused()),
        };
        let part = number.checked_mul(milliseconds).ok_or_else(refused)?;
        total = total
            .checked_add(Duration::from_millis(part))
            .ok_or_else(refused)?;
        rest = &rest[unit_end..];
    }
    if text.is_empty() {
        Err(refused())
    } else {
        Ok(total)
    }
}

mod text {
    use super::{Deserialize, Deserializer, Duration, Serializer, parse_duration};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        let text = match (duration.as_secs(), duration.subsec_millis()) {
            (seconds, 0) if seconds % 3600 == 0 && seconds > 0 => format!("{}h", seconds / 3600),
            (seconds, 0) => format!("{seconds}s"),
            _ => format!("{}ms", duration.as_millis()),
        };
        serializer.serialize_str(&text)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        parse_duration(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}
