//! Settings for people to read: YAML that could be a settings file, secrets masked.

use serde_yaml::Value;

use super::Settings;
use super::layers::{Layer, Source};

const MASK: &str = "***";

/// The settings as YAML, each line with where its value came from unless that is the default.
pub(super) fn yaml(settings: &Settings, layers: &[Layer]) -> String {
    let mut text = String::new();
    match serde_yaml::to_value(settings) {
        Ok(value) => section(&value, &mut Vec::new(), layers, &mut text),
        Err(error) => text = format!("# the settings cannot be shown: {error}\n"),
    }
    text
}

/// Whether a key holds a secret, by its name: where a value is of the wrong type, no type protects it.
pub(super) fn is_secret(key: &str) -> bool {
    let last = key.rsplit('.').next().unwrap_or(key);
    let word = ["password", "token", "secret", "seed", "access_key"]
        .iter()
        .any(|word| last.contains(word));
    word && !last.ends_with("_file") && !last.ends_with("_id")
}

/// The text with what stands before the `@` of every URL masked: the password, or all of it where there is no user.
pub(super) fn mask(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (scheme, tail) = rest.split_at(at + "://".len());
        let url = &tail[..url_end(tail)];
        masked.push_str(scheme);
        match url.rfind('@') {
            Some(at) => {
                let user = url[..at].split_once(':').map(|(user, _)| user);
                if let Some(user) = user {
                    masked.push_str(user);
                    masked.push(':');
                }
                masked.push_str(MASK);
                masked.push_str(&url[at..]);
            }
            None => masked.push_str(url),
        }
        rest = &tail[url.len()..];
    }
    masked.push_str(rest);
    masked
}

/// Where a URL ends: at a space or quote, or at the comma before the next URL. An `@` in a path masks more than it need,
/// a password with a slash in it is still masked.
fn url_end(tail: &str) -> usize {
    let end = tail
        .find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '`'))
        .unwrap_or(tail.len());
    match tail[..end].find("://") {
        Some(next) => tail[..next].rfind(',').unwrap_or(end),
        None => end,
    }
}

fn section(value: &Value, path: &mut Vec<String>, layers: &[Layer], text: &mut String) {
    let Some(mapping) = value.as_mapping() else {
        return;
    };
    for (key, value) in mapping {
        let indent = "  ".repeat(path.len());
        path.push(key.as_str().unwrap_or_default().to_owned());
        let key = scalar(key);
        if value.as_mapping().is_some_and(|inner| !inner.is_empty()) {
            text.push_str(&format!("{indent}{key}:\n"));
            section(value, path, layers, text);
        } else {
            let value = leaf(value, &path.join("."));
            let origin = origin(path, layers);
            text.push_str(&format!("{indent}{key}: {value}{origin}\n"));
        }
        path.pop();
    }
}

/// A value on one line. JSON is YAML, so lists and texts of several lines are written as JSON.
fn leaf(value: &Value, key: &str) -> String {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => scalar(value),
        Value::String(_) if is_secret(key) => scalar(&Value::from(MASK)),
        Value::String(text) => scalar(&Value::from(mask(text))),
        Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => {
            serde_json::to_string(value).map_or_else(|_| MASK.to_owned(), |json| mask(&json))
        }
    }
}

fn scalar(value: &Value) -> String {
    let text = serde_yaml::to_string(value).unwrap_or_default();
    let text = text.trim_end();
    if text.contains('\n') {
        serde_json::to_string(value).unwrap_or_default()
    } else {
        text.to_owned()
    }
}

fn origin(path: &[String], layers: &[Layer]) -> String {
    let layer = layers.iter().rev().find(|layer| layer.sets(path));
    match layer {
        None => String::new(),
        Some(layer) => match layer.source {
            Source::Default => String::new(),
            Source::File(_) | Source::Environment(_) | Source::Flags => {
                format!("  # {}", layer.origin(path))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(mask(text), expected, "{text}");
    }

    #[test]
    fn no_password_in_a_url_is_shown() {
        check("redis://localhost:6379/0", "redis://localhost:6379/0");
        check("redis://user:pw@host:1", "redis://user:***@host:1");
        check("redis://:pw@host", "redis://:***@host");
        check("nats://t0ken@host:4222", "nats://***@host:4222");
        check("tls://u:p@ss/w:rd@host", "tls://u:***@host");
        check(
            "nats://a:b@h1:1,nats://c:d@h2:2",
            "nats://a:***@h1:1,nats://c:***@h2:2",
        );
        check(
            r#"expected an address, found "redis://u:p@h" here"#,
            r#"expected an address, found "redis://u:***@h" here"#,
        );
        check(r#"["nats://u:p@h","b"]"#, r#"["nats://u:***@h","b"]"#);
        check("no url, an@at", "no url, an@at");
    }
}
