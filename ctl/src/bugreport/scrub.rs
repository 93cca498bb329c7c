//! Takes out of texts and objects what is secret or may be: keys, tokens, passwords, values of environment
//! variables and headers. Pure. It rather takes too much: what is missing can be asked for, what is out cannot be
//! taken back.

use std::sync::LazyLock;

use regex::Regex;
use serde_json::Value;

#[cfg(test)]
mod tests;

/// What stands in the place of what was taken out.
const REDACTED: &str = "REDACTED";

/// Patterns of secrets in texts, and what is written instead.
static PATTERNS: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    let secret = concat!(
        r"(?:[a-z0-9]+[-_])*(?:pass(?:word|wd|phrase)?|pwd|secret|token|key|authorization|cookie|credentials?|signature",
        r"|(?:api|access|private)key)"
    );
    [
        // One that was cut is taken out to the end.
        (
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[\s\S]*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)"
                .to_owned(),
            REDACTED,
        ),
        // One that begins before the text does.
        (
            r"\A[A-Za-z0-9+/=\s\\]*-----END [A-Z0-9 ]*PRIVATE KEY-----".to_owned(),
            REDACTED,
        ),
        (
            r"eyJ[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?".to_owned(),
            REDACTED,
        ),
        (
            r"(?i)\b(bearer|basic|negotiate)\s+[A-Za-z0-9._~+/=-]{4,}".to_owned(),
            "$1 REDACTED",
        ),
        (r"://[^/\s@]+:[^/\s@]+@".to_owned(), "://REDACTED@"),
        // Headers are secret to their end: a cookie is many, a scheme is any.
        (
            r#"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie)(\\?["']?\s*[=:]\s*\\?["']?)[^\n"'\\]+"#
                .to_owned(),
            "${1}${2}REDACTED",
        ),
        // What is quoted is secret to the quote.
        (
            format!(r#"(?i)\b({secret}\\?["']?\s*[=:]\s*")[^"\n]+"#),
            "${1}REDACTED",
        ),
        (
            format!(r#"(?i)\b({secret}\\?["']?\s*[=:]\s*\\?["']?)[^\s"'&,;}}\\]+"#),
            "${1}REDACTED",
        ),
    ]
    .into_iter()
    // Each is tried by a test.
    .filter_map(|(pattern, instead)| Some((Regex::new(&pattern).ok()?, instead)))
    .collect()
});

/// Fields whose texts are secret, whatever they hold.
static SECRET_FIELD: LazyLock<Option<Regex>> = LazyLock::new(|| {
    Regex::new(r"(?i)^(?:.*[-_])?(?:pass(?:word|wd|phrase)?|token|secret|credentials?|authorization|cookie|(?:private|api|access|client)[-_]?(?:key|secret))$").ok()
});

/// A text without secrets.
pub(super) fn text(text: &str) -> String {
    let mut clean = text.to_owned();
    for (pattern, instead) in PATTERNS.iter() {
        clean = pattern.replace_all(&clean, *instead).into_owned();
    }
    clean
}

/// An object without secrets.
pub(super) fn value(object: &mut Value) {
    match object {
        Value::String(said) => *said = text(said),
        Value::Array(items) => items.iter_mut().for_each(value),
        Value::Object(fields) => {
            // Environment variables, headers to be set or matched: names say enough.
            if fields.get("name").is_some_and(Value::is_string) && fields.contains_key("value") {
                fields.insert("value".into(), REDACTED.into());
            }
            if fields
                .get("key")
                .and_then(Value::as_str)
                .is_some_and(|key| key.starts_with("request."))
            {
                for values in ["values", "notValues"] {
                    if let Some(values) = fields.get_mut(values) {
                        *values = REDACTED.into();
                    }
                }
            }
            fields.remove("managedFields");
            if let Some(Value::Object(annotations)) = fields.get_mut("annotations") {
                annotations.retain(|key, _| key != "kubectl.kubernetes.io/last-applied-configuration");
                for (key, said) in annotations.iter_mut().filter(|(key, _)| !is_known(key)) {
                    let _ = key;
                    *said = REDACTED.into();
                }
            }
            for (key, field) in fields.iter_mut() {
                let secret = SECRET_FIELD.as_ref().is_none_or(|pattern| pattern.is_match(key));
                match secret && field.is_string() {
                    true => *field = REDACTED.into(),
                    false => value(field),
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Annotations whose meaning is known; of others it is not known what they hold.
fn is_known(key: &str) -> bool {
    let domain = key.split('/').next().unwrap_or_default();
    ["trefoil.dev", "kubernetes.io", "k8s.io"]
        .iter()
        .any(|known| domain == *known || domain.ends_with(&format!(".{known}")))
}

/// An application's pod without what is its own: of its containers what they are called, run and listen on.
pub(super) fn application(pod: &mut Value) {
    let Some(spec) = pod.get_mut("spec") else { return };
    let mut kept = serde_json::Map::new();
    for field in [
        "nodeName",
        "hostNetwork",
        "serviceAccountName",
        "restartPolicy",
        "priorityClassName",
        "subdomain",
        "readinessGates",
    ] {
        if let Some(value) = spec.get(field) {
            kept.insert(field.into(), value.clone());
        }
    }
    for field in ["initContainers", "containers"] {
        let containers = spec.get(field).and_then(Value::as_array).into_iter().flatten();
        let containers = containers.map(|container| {
            let fields = ["name", "image", "ports", "restartPolicy"]
                .map(|field| (field.to_owned(), container[field].clone()));
            Value::Object(fields.into_iter().filter(|(_, value)| !value.is_null()).collect())
        });
        kept.insert(field.into(), containers.collect());
    }
    *spec = Value::Object(kept);
}
