//! The layers that settings are merged from. Each keeps its own values, so that a problem, and every line of
//! `--print-config`, can say where a value came from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::value::{Dict, Map, Value};
use figment::{Metadata, Profile, Provider};

use super::{DEFAULT_YAML, Flags, flags, variables};
use crate::model::{Problem, Problems};
use crate::yaml::{nesting, without_bom};

/// Where a layer's values come from.
#[derive(Clone)]
pub(super) enum Source {
    /// The embedded defaults.
    Default,
    /// The file of `--config`.
    File(PathBuf),
    /// The environment: which variable set which key.
    Environment(BTreeMap<Vec<String>, String>),
    /// The command line.
    Flags,
}

/// The values of one source. Not to be printed: it holds secrets as they were written.
#[derive(Clone)]
pub(super) struct Layer {
    pub(super) source: Source,
    pub(super) values: Dict,
}

/// All layers, the weakest first. What cannot be read is left out and told of.
pub(super) fn all(
    config: Option<&Path>,
    environment: &BTreeMap<String, String>,
    flags: &Flags,
    problems: &mut Problems,
) -> Vec<Layer> {
    let schema = match yaml(DEFAULT_YAML) {
        Ok(values) => values,
        Err(reason) => {
            problems.push(Problem::error(reason).in_file(Path::new("config/default.yaml")));
            Dict::new()
        }
    };
    let mut layers = vec![Layer::new(Source::Default, schema.clone())];
    if let Some(path) = config {
        match file(path) {
            Ok(values) => layers.push(Layer::new(Source::File(path.to_owned()), values)),
            Err(problem) => problems.push(problem),
        }
    }
    layers.push(variables::layer(environment, &schema, problems));
    layers.push(Layer::new(Source::Flags, flags.values()));
    for layer in &mut layers {
        layer.require_sections(&schema, problems);
    }
    layers
}

fn file(path: &Path) -> Result<Dict, Problem> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Problem::error(format!("the settings cannot be read: {error}"))
            .in_file(path)
            .remedy("give --config a YAML file that this process may read")
    })?;
    yaml(&text).map_err(|reason| {
        Problem::error(reason)
            .in_file(path)
            .remedy("config/default.yaml shows every key and its form")
    })
}

/// Reads by way of `serde_yaml::Value`, which refuses a key that is there twice. An empty text sets nothing.
fn yaml(text: &str) -> Result<Dict, String> {
    let text = without_bom(text);
    if nesting::is_too_deep(text) {
        return Err(nesting::TOO_DEEP.to_owned());
    }
    let yaml: serde_yaml::Value =
        serde_yaml::from_str(text).map_err(|error| format!("this is not valid YAML: {error}"))?;
    if yaml.is_null() {
        return Ok(Dict::new());
    }
    Value::serialize(yaml)
        .map_err(|error| format!("it holds what no setting can be: {error}"))?
        .into_dict()
        .ok_or_else(|| {
            "settings are a mapping of keys to values, this is something else".to_owned()
        })
}

/// Adds where the value came from that a problem is about, unless that is the default.
pub(super) fn with_origin(mut problem: Problem, layers: &[Layer]) -> Problem {
    let Some(key) = problem.place.clone() else {
        return problem;
    };
    let path: Vec<String> = key.split('.').map(str::to_owned).collect();
    let Some(layer) = layers.iter().rev().find(|layer| layer.sets(&path)) else {
        return problem;
    };
    match &layer.source {
        Source::Default => {}
        Source::File(file) => {
            problem.file.get_or_insert_with(|| file.clone());
        }
        Source::Environment(_) | Source::Flags => {
            problem.place = Some(format!("{key} ({})", layer.origin(&path)));
        }
    }
    problem
}

/// Sets the value at a path, making the sections on the way.
pub(super) fn insert(values: &mut Dict, path: &[impl AsRef<str>], value: Value) {
    let Some((last, sections)) = path.split_last() else {
        return;
    };
    let mut here = values;
    for key in sections {
        let section = here
            .entry(key.as_ref().to_owned())
            .or_insert_with(|| Value::from(Dict::new()));
        if section.as_dict().is_none() {
            *section = Value::from(Dict::new());
        }
        let Value::Dict(_, inner) = section else {
            return;
        };
        here = inner;
    }
    here.insert(last.as_ref().to_owned(), value);
}

impl Layer {
    pub(super) fn new(source: Source, values: Dict) -> Self {
        Self { source, values }
    }

    /// Whether this layer sets the value at a path, or the list or text that the path leads into.
    pub(super) fn sets(&self, path: &[String]) -> bool {
        set_part(&self.values, path).is_some()
    }

    /// Takes out the value at a path, or the list or text that the path leads into.
    pub(super) fn take_out(&mut self, path: &[String]) {
        if let Some(depth) = set_part(&self.values, path) {
            remove(&mut self.values, &path[..depth]);
        }
    }

    /// Reads a variable's text as what else it may be: a number, a list. False if it was read so already.
    pub(super) fn reread(&mut self, path: &[String]) -> bool {
        let Source::Environment(_) = self.source else {
            return false;
        };
        let Some(Value::String(_, text)) = find(&self.values, path) else {
            return false;
        };
        let value = variables::parse(text);
        let changed = value.as_str().is_none();
        insert(&mut self.values, path, value);
        changed
    }

    /// A problem of the value at a path, with its place: file and key, variable, flag.
    pub(super) fn problem(&self, path: &[String], message: String) -> Problem {
        let key = path.join(".");
        let problem = Problem::error(message);
        match &self.source {
            Source::Default => problem.in_file(Path::new("config/default.yaml")).at(key),
            Source::File(file) => problem.in_file(file).at(key),
            Source::Environment(_) => {
                problem.at(format!("environment variable {}", self.origin(path)))
            }
            Source::Flags => problem.at(format!("flag {}", self.origin(path))),
        }
    }

    /// Where the value at a path came from, in short.
    pub(super) fn origin(&self, path: &[String]) -> String {
        let key = path.join(".");
        match &self.source {
            Source::Default => "default".to_owned(),
            Source::File(file) => file.display().to_string(),
            Source::Environment(names) => (0..=path.len())
                .rev()
                .find_map(|depth| names.get(&path[..depth]).cloned())
                .unwrap_or_else(|| variables::name_of(&key)),
            Source::Flags => flags::name_of(&key),
        }
    }

    /// Where the defaults have a section, this must have one too. A section with nothing in it, as in a file whose keys
    /// are all commented out, sets nothing.
    fn require_sections(&mut self, schema: &Dict, problems: &mut Problems) {
        let mut wrong = Vec::new();
        flat_sections(&self.values, schema, &mut Vec::new(), &mut wrong);
        for (path, empty) in wrong {
            if !empty {
                let key = path.join(".");
                let message = format!("`{key}` is a section, not a single value");
                problems.push(
                    self.problem(&path, message)
                        .remedy(format!("set the keys under `{key}`")),
                );
            }
            remove(&mut self.values, &path);
        }
    }
}

impl Provider for &Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named("settings")
    }

    fn data(&self) -> figment::error::Result<Map<Profile, Dict>> {
        Ok(Profile::Default.collect(self.values.clone()))
    }
}

/// How much of the path leads to a value that is set.
fn set_part(values: &Dict, path: &[String]) -> Option<usize> {
    let mut here = values;
    for (depth, key) in path.iter().enumerate() {
        let Some(inner) = here.get(key)?.as_dict() else {
            return Some(depth + 1);
        };
        here = inner;
    }
    Some(path.len())
}

fn find<'a>(values: &'a Dict, path: &[String]) -> Option<&'a Value> {
    let (last, sections) = path.split_last()?;
    let mut here = values;
    for key in sections {
        here = here.get(key)?.as_dict()?;
    }
    here.get(last)
}

fn remove(values: &mut Dict, path: &[String]) {
    match path {
        [] => {}
        [last] => {
            values.remove(last);
        }
        [section, rest @ ..] => {
            if let Some(Value::Dict(_, inner)) = values.get_mut(section) {
                remove(inner, rest);
            }
        }
    }
}

/// The paths where the schema has a section and the values have none, and whether there is nothing at all.
fn flat_sections(
    values: &Dict,
    schema: &Dict,
    path: &mut Vec<String>,
    wrong: &mut Vec<(Vec<String>, bool)>,
) {
    for (key, value) in values {
        let Some(Value::Dict(_, section)) = schema.get(key) else {
            continue;
        };
        path.push(key.clone());
        if let Value::Dict(_, inner) = value {
            flat_sections(inner, section, path, wrong);
        } else {
            wrong.push((path.clone(), value.to_empty().is_some()));
        }
        path.pop();
    }
}
