//! The layer of environment variables.

use std::collections::BTreeMap;

use figment::value::{Dict, Value};

use super::layers::{Layer, Source, insert};
use super::nearest;
use crate::model::{Problem, Problems};

/// What the name of a setting's variable begins with; the keys follow, joined by two underscores.
pub const VARIABLE_PREFIX: &str = "GREENTIC_WORKER__";
/// What a variable begins with that was meant to be a setting.
const ANY_PREFIX: &str = "GREENTIC_WORKER_";

/// Reads every variable that was meant to be a setting. One that cannot be is told of; an empty one sets nothing, as
/// compose files leave them.
pub(super) fn layer(
    environment: &BTreeMap<String, String>,
    schema: &Dict,
    problems: &mut Problems,
) -> Layer {
    let mut layer = Layer::new(Source::Environment(BTreeMap::new()), Dict::new());
    for (name, text) in environment {
        let Some(rest) = strip_prefix(name, ANY_PREFIX) else {
            continue;
        };
        let keys: Vec<&str> = strip_prefix(name, VARIABLE_PREFIX)
            .map(|keys| keys.split("__").collect())
            .unwrap_or_default();
        if keys.len() < 2 && is_of_a_kubernetes_service(rest) {
            continue;
        }
        if keys.is_empty() || keys.contains(&"") {
            problems.push(misnamed(name, rest, schema));
        } else if !text.is_empty() {
            set(&mut layer, name, &keys, text, schema);
        }
    }
    layer
}

/// Kubernetes gives every container such variables for each Service of its namespace. Those of a Service whose name begins
/// with `greentic-worker` begin like settings: `GREENTIC_WORKER_SERVICE_HOST`, `GREENTIC_WORKER_PORT_8080_TCP_ADDR`.
fn is_of_a_kubernetes_service(rest: &str) -> bool {
    let rest = format!("_{}", rest.to_ascii_uppercase());
    let is_port = |(_, port): (&str, &str)| {
        let mut parts = port.split('_');
        let number = parts.next().is_some_and(|n| n.parse::<u16>().is_ok());
        let protocol = matches!(parts.next(), Some("TCP" | "UDP" | "SCTP"));
        let field = matches!(parts.next(), None | Some("PROTO" | "PORT" | "ADDR"));
        number && protocol && field && parts.next().is_none()
    };
    rest.ends_with("_SERVICE_HOST")
        || rest.ends_with("_SERVICE_PORT")
        || rest.contains("_SERVICE_PORT_")
        || rest.ends_with("_PORT")
        || rest.rsplit_once("_PORT_").is_some_and(is_port)
}

/// Reads a variable's text the way figment does: numbers, `true`, `[a, b]`, `{key=value}`, `"text"`.
pub(super) fn parse(text: &str) -> Value {
    text.parse().unwrap_or_else(|never| match never {})
}

/// The variable that sets a key.
pub(super) fn name_of(key: &str) -> String {
    let keys = key.replace('.', "__").to_ascii_uppercase();
    format!("{VARIABLE_PREFIX}{keys}")
}

fn strip_prefix<'a>(name: &'a str, prefix: &str) -> Option<&'a str> {
    let (head, rest) = name.split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(rest)
}

/// Keys are lower case, save those that the settings do not name themselves: tenants. A variable has no type: where the
/// defaults show a list or a section the text is read as one, else it stays a text until the key turns out to take none.
fn set(layer: &mut Layer, name: &str, keys: &[&str], text: &str, schema: &Dict) {
    let mut path = Vec::new();
    let mut section = Some(schema);
    let mut default = None;
    for key in keys {
        let key = match section {
            Some(free) if free.is_empty() => (*key).to_owned(),
            Some(_) | None => key.to_ascii_lowercase(),
        };
        default = section.and_then(|section| section.get(&key));
        section = default.and_then(Value::as_dict);
        path.push(key);
    }
    let structured = default.is_some_and(|d| d.as_dict().is_some() || d.as_array().is_some());
    let value = if structured {
        parse(text)
    } else {
        Value::from(text)
    };
    insert(&mut layer.values, &path, value);
    if let Source::Environment(names) = &mut layer.source {
        names.insert(path, name.to_owned());
    }
}

fn misnamed(name: &str, rest: &str, schema: &Dict) -> Problem {
    let remedy = match nearest::key(rest, &nearest::keys_of(schema)) {
        Some(key) => format!(
            "did you mean {}? (two underscores before each key)",
            name_of(&key)
        ),
        None => format!(
            "a setting is {VARIABLE_PREFIX}<SECTION>__<KEY>, two underscores before each key"
        ),
    };
    Problem::error("it begins like a setting, but names none")
        .at(format!("environment variable {name}"))
        .remedy(remedy)
}
