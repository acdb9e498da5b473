//! What a case expects against what came: only what is written is looked at.

use std::fmt;

use serde_json::Value;

/// One thing that is other than expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What it is.
    pub what: String,
    /// What was expected, as JSON or in words.
    pub expected: String,
    /// What was found.
    pub found: String,
}

impl Difference {
    pub(super) fn new(
        what: impl Into<String>,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) -> Self {
        Self {
            what: what.into(),
            expected: expected.into(),
            found: found.into(),
        }
    }

    /// Something that was expected and is not there.
    pub(super) fn missing(what: impl Into<String>, expected: impl Into<String>) -> Self {
        Self::new(what, expected, "nothing")
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            expected,
            found,
        } = self;
        write!(f, "{what}\n    expected: {expected}\n    found:    {found}")
    }
}

/// The places where `found` is not what is `expected`. Of objects only the expected fields are looked at; a field that is
/// expected to be null may be missing.
pub(super) fn differences(at: &str, expected: &Value, found: &Value) -> Vec<Difference> {
    match (expected, found) {
        (Value::Object(fields), Value::Object(there)) => {
            let each = fields.iter();
            each.flat_map(|(name, expected)| {
                let found = there.get(name).unwrap_or(&Value::Null);
                differences(&format!("{at}.{name}"), expected, found)
            })
            .collect()
        }
        (Value::Array(items), Value::Array(there)) if items.len() == there.len() => {
            let each = items.iter().zip(there).enumerate();
            each.flat_map(|(n, (expected, found))| {
                differences(&format!("{at}[{n}]"), expected, found)
            })
            .collect()
        }
        (expected, found) if expected == found => Vec::new(),
        (expected, found) => vec![Difference::new(at, expected.to_string(), found.to_string())],
    }
}

/// The replies that are other than expected. A text stands for a reply with this text.
pub(super) fn of_replies(expected: &[Value], found: &[Value]) -> Vec<Difference> {
    let mut wrong = Vec::new();
    for n in 0..expected.len().max(found.len()) {
        let at = format!("replies[{n}]");
        match (expected.get(n), found.get(n)) {
            (Some(Value::String(text)), Some(reply)) if reply["text"] == text.as_str() => {}
            (Some(Value::String(text)), Some(reply)) => {
                let text = Value::from(text.as_str()).to_string();
                wrong.push(Difference::new(at, text, brief(reply)));
            }
            (Some(parts), Some(reply)) => wrong.extend(differences(&at, parts, reply)),
            (Some(expected), None) => wrong.push(Difference::missing(at, expected.to_string())),
            (None, Some(reply)) => wrong.push(Difference::new(at, "no more replies", brief(reply))),
            (None, None) => {}
        }
    }
    wrong
}

/// What a reply says: its text alone, where it has nothing else; else all that the flow has given it.
fn brief(reply: &Value) -> String {
    let mut said = serde_json::Map::new();
    for field in ["text", "to", "attachments", "metadata", "extensions"] {
        let mut value = reply[field].clone();
        if let Some(metadata) = value.as_object_mut().filter(|_| field == "metadata") {
            // The turn's own, and another one each time.
            metadata.remove("correlation_id");
        }
        let is_empty = value.is_null()
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty);
        if !is_empty {
            said.insert(field.to_owned(), value);
        }
    }
    match said.get("text") {
        Some(text) if said.len() == 1 => text.to_string(),
        Some(_) | None => Value::Object(said).to_string(),
    }
}
