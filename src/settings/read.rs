//! From layers to typed settings, with every problem on the way.

use figment::Figment;
use figment::error::{Actual, Error, Kind};

use super::layers::{Layer, Source};
use super::{Settings, nearest, render, variables};
use crate::model::{Problem, Problems};

/// Reads the merged layers. figment stops at the first problem, so the value that causes it is taken out and the rest
/// read again, until nothing is wrong. Gives the layers back as they then are.
pub(super) fn settings(
    mut layers: Vec<Layer>,
    problems: &mut Problems,
) -> (Option<Settings>, Vec<Layer>) {
    let known = layers
        .first()
        .map(|defaults| nearest::keys_of(&defaults.values))
        .unwrap_or_default();
    loop {
        let merged = layers.iter().fold(Figment::new(), Figment::merge);
        let error = match merged.extract::<Settings>() {
            Ok(settings) => return (Some(settings), layers),
            Err(error) => error,
        };
        let culprit = layers
            .iter_mut()
            .rev()
            .find(|layer| !error.path.is_empty() && layer.sets(&error.path));
        let Some(layer) = culprit else {
            problems.push(Problem::error(render::mask(&error.kind.to_string())));
            return (None, layers);
        };
        let takes_no_text = matches!(error.kind, Kind::InvalidType(Actual::Str(_), _));
        if takes_no_text && layer.reread(&error.path) {
            continue;
        }
        problems.push(problem(&error, layer, &known));
        layer.take_out(&error.path);
    }
}

fn problem(error: &Error, layer: &Layer, known: &[String]) -> Problem {
    let path = &error.path;
    if let Kind::UnknownField(_, siblings) = &error.kind {
        let problem = layer.problem(path, "no such setting".to_owned());
        return match meant(path, siblings, known) {
            // A key with a dot in it, where a section belongs.
            Some(same) if same == path.join(".") => match same.rsplit_once('.') {
                Some((section, key)) => problem.remedy(format!("write `{key}` under `{section}`")),
                None => problem,
            },
            Some(key) => problem.remedy(format!("did you mean {}?", name_in(layer, &key, known))),
            None => problem.remedy(format!("known here: {}", siblings.join(", "))),
        };
    }
    if let Kind::UnknownVariant(found, variants) = &error.kind {
        let variants = variants.join("`, `");
        let message = format!("expected one of `{variants}`, found `{found}`");
        return layer.problem(path, message);
    }
    let (Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected)) = &error.kind
    else {
        let message = render::mask(&error.kind.to_string());
        return layer.problem(path, message);
    };
    let found = if render::is_secret(&path.join(".")) {
        "something else".to_owned()
    } else {
        render::mask(&found.to_string())
    };
    let (expected, remedy) = in_words(expected);
    let problem = layer.problem(path, format!("expected {expected}, found {found}"));
    match remedy {
        Some(remedy) => problem.remedy(remedy),
        None => problem,
    }
}

/// The known key that an unknown one probably means, its siblings first: they may belong to a tenant, which the
/// defaults do not know.
fn meant(path: &[String], siblings: &[&str], known: &[String]) -> Option<String> {
    let section = &path[..path.len().saturating_sub(1)];
    let siblings: Vec<String> = siblings
        .iter()
        .map(|key| [section, &[(*key).to_owned()]].concat().join("."))
        .collect();
    let unknown = path.join(".");
    nearest::key(&unknown, &siblings).or_else(|| nearest::key(&unknown, known))
}

fn name_in(layer: &Layer, key: &str, known: &[String]) -> String {
    match layer.source {
        Source::Environment(_) if known.iter().any(|k| k == key) => variables::name_of(key),
        Source::Environment(_) | Source::Default | Source::File(_) | Source::Flags => {
            format!("`{key}`")
        }
    }
}

/// What serde expected, for people, and how to write it where that is not plain.
fn in_words(expected: &str) -> (&str, Option<&'static str>) {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => ("a whole number", None),
        "a nonzero u32" | "a nonzero usize" => ("a whole number above 0", None),
        "path string" => ("a path", None),
        "a sequence" => ("a list", Some("write it like [a, b]")),
        "a duration" => ("a duration", Some("write it like 500ms, 30s or 7d")),
        "a boolean" => ("true or false", None),
        "a map" => ("a section of keys", None),
        other if other.starts_with("struct ") => ("a section of keys", None),
        other => (other, None),
    }
}
