//! The syntax of names, labels and annotations, checked for every object. Pure.

use serde_json::Value;

use crate::status::FieldError;

/// What annotations of one object may take together.
const ANNOTATION_BYTES: usize = 256 * 1024;

/// Everything wrong with an object's metadata.
#[must_use]
pub(crate) fn check(object: &Value, resource: &str) -> Vec<FieldError> {
    let metadata = &object["metadata"];
    let mut errors = Vec::new();
    let mut add = |field: &str, result: Result<(), &str>| {
        if let Err(message) = result {
            errors.push(FieldError::new(format!("metadata.{field}"), message));
        }
    };
    let name = metadata["name"].as_str().unwrap_or_default();
    add(
        "name",
        if matches!(resource, "namespaces" | "services") {
            dns_label(name)
        } else {
            dns_name(name)
        },
    );
    for (field, values) in [("labels", true), ("annotations", false)] {
        let entries = match &metadata[field] {
            Value::Null => continue,
            Value::Object(entries) => entries,
            _ => {
                add(field, Err("must be a map of strings"));
                continue;
            }
        };
        let mut bytes = 0;
        for (key, value) in entries {
            let path = format!("{field}[{key}]");
            add(&path, label_key(key));
            match value.as_str() {
                None => add(&path, Err("must be a string")),
                Some(value) if values => add(&path, label_value(value)),
                Some(value) => bytes += key.len() + value.len(),
            }
        }
        if bytes > ANNOTATION_BYTES {
            add(field, Err("must not take more than 262144 bytes"));
        }
    }
    for field in ["finalizers", "ownerReferences"] {
        if !metadata[field].is_null() && !metadata[field].is_array() {
            add(field, Err("must be a list"));
        }
    }
    errors
}

/// RFC 1123 label.
///
/// # Errors
/// What a valid one looks like.
pub(crate) fn dns_label(text: &str) -> Result<(), &'static str> {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    let ok = !text.is_empty()
        && text.len() <= 63
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-');
    ok.then_some(())
        .ok_or("must be at most 63 lower-case letters, digits and '-', not '-' at an end")
}

/// RFC 1123 subdomain.
///
/// # Errors
/// What a valid one looks like.
pub(crate) fn dns_name(text: &str) -> Result<(), &'static str> {
    let ok = text.len() <= 253
        && text.split('.').all(|label| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        });
    ok.then_some(()).ok_or("must be at most 253 lower-case letters, digits, '-' and '.', each part beginning and ending with a letter or digit")
}

/// `[PREFIX/]NAME` of a label or annotation.
///
/// # Errors
/// What a valid one looks like.
pub(crate) fn label_key(text: &str) -> Result<(), &'static str> {
    let (prefix, name) = match text.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, text),
    };
    let ok = qualified(name) && !name.is_empty() && prefix.is_none_or(|prefix| dns_name(prefix).is_ok());
    ok.then_some(())
        .ok_or("must be [PREFIX/]NAME, the name at most 63 letters, digits, '-', '_' and '.'")
}

/// A label's value.
///
/// # Errors
/// What a valid one looks like.
pub(crate) fn label_value(text: &str) -> Result<(), &'static str> {
    qualified(text).then_some(()).ok_or(
        "must be at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit",
    )
}

fn qualified(text: &str) -> bool {
    let edge = |byte: Option<u8>| byte.is_none_or(|byte| byte.is_ascii_alphanumeric());
    text.len() <= 63
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
        && edge(text.bytes().next())
        && edge(text.bytes().last())
}
