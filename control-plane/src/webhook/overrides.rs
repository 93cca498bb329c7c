//! What a pod's annotations say of its sidecar. What cannot be understood is refused, with the annotation named. Pure.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use trefoil_api::exclusions::AnnotationError;
use trefoil_api::names::annotation;

#[cfg(test)]
mod tests;

/// Units of quantities (Kubernetes, `resource.Quantity`), but for exponents.
const UNITS: [&str; 13] = [
    "", "m", "k", "M", "G", "T", "P", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei",
];
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
/// More threads than any node has cores for one pod.
const MOST_THREADS: u16 = 256;

/// What differs from sidecars in general.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// By request or limit and resource.
    resources: BTreeMap<(&'static str, &'static str), String>,
    log_level: Option<String>,
    threads: Option<u16>,
}

impl Overrides {
    /// Of a pod with these annotations.
    pub fn read(annotations: Option<&BTreeMap<String, String>>) -> Result<Self, AnnotationError> {
        let text = |name: &str| annotations?.get(name).map(|value| value.trim());
        let mut resources = BTreeMap::new();
        for (name, of, resource) in [
            (annotation::SIDECAR_CPU_REQUEST, "requests", "cpu"),
            (annotation::SIDECAR_CPU_LIMIT, "limits", "cpu"),
            (annotation::SIDECAR_MEMORY_REQUEST, "requests", "memory"),
            (annotation::SIDECAR_MEMORY_LIMIT, "limits", "memory"),
        ] {
            if let Some(value) = text(name) {
                let quantity = check(name, value, "a quantity (250m, 0.5, 64Mi)", is_quantity)?;
                resources.insert((of, resource), quantity);
            }
        }
        let level = text(annotation::SIDECAR_LOG_LEVEL).map(|value| {
            let expected = "off, error, warn, info, debug, trace, or TARGET=LEVEL,…";
            check(annotation::SIDECAR_LOG_LEVEL, value, expected, is_level)
        });
        let threads = text(annotation::SIDECAR_CONCURRENCY).map(|value| {
            let number = value.parse().ok();
            let sane = number.filter(|number| (1..=MOST_THREADS).contains(number));
            sane.ok_or_else(|| {
                refused(
                    annotation::SIDECAR_CONCURRENCY,
                    value,
                    "a number of threads (1 to 256)",
                )
            })
        });
        Ok(Self {
            resources,
            log_level: level.transpose()?,
            threads: threads.transpose()?,
        })
    }

    /// Arguments of the proxy beside those of all.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let level = self.log_level.iter().map(|level| format!("--log-level={level}"));
        let threads = self
            .threads
            .iter()
            .map(|number| format!("--worker-threads={number}"));
        level.chain(threads).collect()
    }

    /// The resources of the proxy, which asks for this much unless it is said otherwise.
    pub(crate) fn resources(&self, cpu: &str, memory: &str) -> Value {
        let mut all: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
        let usual = [(("requests", "cpu"), cpu), (("requests", "memory"), memory)];
        let own = self
            .resources
            .iter()
            .map(|(of, quantity)| (*of, quantity.as_str()));
        for ((of, resource), quantity) in usual.into_iter().chain(own) {
            all.entry(of)
                .or_default()
                .insert(resource.into(), quantity.into());
        }
        // Where only a limit is said, the request is the limit's, as it is without any request: ours may be more.
        for resource in ["cpu", "memory"] {
            let says = |of| self.resources.contains_key(&(of, resource));
            if says("limits") && !says("requests") {
                all.entry("requests").or_default().remove(resource);
            }
        }
        json!(all)
    }
}

fn refused(annotation: &'static str, value: &str, expected: &'static str) -> AnnotationError {
    AnnotationError {
        annotation,
        value: value.to_owned(),
        expected,
    }
}

fn check(
    annotation: &'static str,
    value: &str,
    expected: &'static str,
    holds: fn(&str) -> bool,
) -> Result<String, AnnotationError> {
    match holds(value) {
        true => Ok(value.to_owned()),
        false => Err(refused(annotation, value, expected)),
    }
}

fn is_quantity(text: &str) -> bool {
    let end = text.find(|one: char| !(one.is_ascii_digit() || one == '.'));
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|one| one.is_ascii_digit());
    let whole = match number.split_once('.') {
        Some((whole, fraction)) => digits(whole) && digits(fraction),
        None => digits(number),
    };
    whole && UNITS.contains(&unit)
}

fn is_level(text: &str) -> bool {
    let target = |text: &str| {
        let known = |one: u8| one.is_ascii_alphanumeric() || matches!(one, b'_' | b':');
        !text.is_empty() && text.bytes().all(known)
    };
    text.split(',').all(|directive| match directive.split_once('=') {
        Some((of, level)) => target(of) && LEVELS.contains(&level),
        None => LEVELS.contains(&directive),
    })
}
