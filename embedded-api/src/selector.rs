//! Label selectors (equality and set based) and field selectors: parsed once, then matched. Pure.

use serde_json::Value;

use crate::status::ApiError;

/// Conditions that must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<Field>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Requirement {
    key: String,
    operator: Operator,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Operator {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Field {
    path: Vec<String>,
    value: String,
    equal: bool,
}

/// Fields that may be selected by; a typing error must not select everything or nothing.
const FIELDS: [&str; 13] = [
    "metadata.name",
    "metadata.namespace",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.phase",
    "status.podIP",
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "reason",
    "type",
    "spec.unschedulable",
];

impl Selector {
    /// Parses `labelSelector` and `fieldSelector`.
    ///
    /// # Errors
    /// A bad request that names what is not understood.
    pub(crate) fn parse(labels: Option<&str>, fields: Option<&str>) -> Result<Self, ApiError> {
        Ok(Self {
            labels: split(labels.unwrap_or_default())
                .map(requirement)
                .collect::<Result<_, _>>()?,
            fields: split(fields.unwrap_or_default())
                .map(field)
                .collect::<Result<_, _>>()?,
        })
    }

    /// The same, for one name only.
    #[must_use]
    pub(crate) fn named(mut self, name: &str) -> Self {
        let path = vec!["metadata".into(), "name".into()];
        self.fields.push(Field {
            path,
            value: name.into(),
            equal: true,
        });
        self
    }

    /// Whether an object is selected.
    #[must_use]
    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.fields.iter().all(|field| field.matches(object))
            && self
                .labels
                .iter()
                .all(|requirement| requirement.matches(&object["metadata"]["labels"]))
    }
}

impl Requirement {
    fn matches(&self, labels: &Value) -> bool {
        let value = labels.get(&self.key).and_then(Value::as_str);
        match &self.operator {
            Operator::Exists => value.is_some(),
            Operator::Absent => value.is_none(),
            Operator::In(values) => value.is_some_and(|value| values.iter().any(|other| other == value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.iter().any(|other| other == value)),
        }
    }
}

impl Field {
    fn matches(&self, object: &Value) -> bool {
        let value = self.path.iter().try_fold(object, |value, part| value.get(part));
        let text = match value {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Bool(flag)) => flag.to_string(),
            Some(Value::Number(number)) => number.to_string(),
            _ => String::new(),
        };
        (text == self.value) == self.equal
    }
}

/// Splits at commas outside of parentheses, without empty parts.
fn split(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    text.split(move |character| {
        match character {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        character == ',' && depth == 0
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

fn requirement(text: &str) -> Result<Requirement, ApiError> {
    let bad = || ApiError::BadRequest(format!("unable to parse requirement: {text:?}"));
    let (key, operator) = if let Some(key) = text.strip_prefix('!') {
        (key.trim(), Operator::Absent)
    } else if let Some((key, value)) = text.split_once("!=") {
        (key.trim(), Operator::NotIn(vec![value.trim().into()]))
    } else if let Some((key, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (key.trim(), Operator::In(vec![value.trim().into()]))
    } else if text.contains(['(', ')', ' ']) {
        set(text).ok_or_else(bad)?
    } else {
        (text, Operator::Exists)
    };
    let values = match &operator {
        Operator::In(values) | Operator::NotIn(values) => values.as_slice(),
        Operator::Exists | Operator::Absent => &[],
    };
    if crate::metadata::label_key(key).is_err()
        || values
            .iter()
            .any(|value| crate::metadata::label_value(value).is_err())
    {
        return Err(bad());
    }
    Ok(Requirement {
        key: key.into(),
        operator,
    })
}

/// `KEY in (A, B)` and `KEY notin (A, B)`.
fn set(text: &str) -> Option<(&str, Operator)> {
    let (key, rest) = text.split_once(char::is_whitespace)?;
    let rest = rest.trim_start();
    let (negated, rest) = match rest.strip_prefix("notin") {
        Some(rest) => (true, rest),
        None => (false, rest.strip_prefix("in")?),
    };
    let inner = rest.trim().strip_prefix('(')?.strip_suffix(')')?;
    if inner.contains(['(', ')']) {
        return None;
    }
    let values: Vec<String> = inner.split(',').map(|value| value.trim().to_owned()).collect();
    Some((
        key,
        if negated {
            Operator::NotIn(values)
        } else {
            Operator::In(values)
        },
    ))
}

fn field(text: &str) -> Result<Field, ApiError> {
    let (path, value, equal) = if let Some((path, value)) = text.split_once("!=") {
        (path, value, false)
    } else if let Some((path, value)) = text.split_once("==").or_else(|| text.split_once('=')) {
        (path, value, true)
    } else {
        return Err(ApiError::BadRequest(format!("invalid field selector: {text:?}")));
    };
    let path = path.trim();
    if !FIELDS.contains(&path) {
        return Err(ApiError::BadRequest(format!("field label not supported: {path}")));
    }
    Ok(Field {
        path: path.split('.').map(str::to_owned).collect(),
        value: value.trim().into(),
        equal,
    })
}
