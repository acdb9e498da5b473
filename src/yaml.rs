//! Strict reading of YAML that people wrote. A [`Document`] knows its file and can tell the line of each of its fields,
//! so that every problem says where it is; [`Node`] reads one value and reports what it is not.

use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use serde_json::{Map, Number, Value as Json};
use serde_yaml::Value;

use crate::model::{Problem, Problems};

mod line;
pub mod nesting;

/// The text of a file; what cannot be read is a problem.
pub fn read_text(file: &Path) -> Result<String, Problem> {
    fs::read_to_string(file).map_err(|error| {
        let (message, remedy) = if error.kind() == ErrorKind::NotFound {
            ("there is no such file".to_owned(), "check the path")
        } else if error.kind() == ErrorKind::InvalidData {
            let remedy = "check that it is the right file, and save it as UTF-8";
            ("this is not UTF-8 text".to_owned(), remedy)
        } else {
            let message = format!("the file cannot be read: {error}");
            (message, "check that it is a file, and that it may be read")
        };
        Problem::error(message).in_file(file).remedy(remedy)
    })
}

/// The text without the byte order mark that some editors write before it.
pub fn without_bom(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

/// A file of YAML that was read without a syntax error.
#[derive(Debug)]
pub struct Document {
    file: PathBuf,
    text: String,
    root: Value,
}

impl Document {
    /// Reads a text; the file is for the problems to name.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Problem> {
        let text = without_bom(text);
        if nesting::is_too_deep(text) {
            let problem = Problem::error(nesting::TOO_DEEP).in_file(file);
            return Err(problem.remedy("close the brackets, and nest less"));
        }
        let invalid = |error: serde_yaml::Error| {
            // The error's own text ends with its line and column.
            Problem::error(format!("this is not valid YAML: {error}"))
                .in_file(file)
                .remedy("check the indentation, colons and quotes at and just before that place")
        };
        let mut root: Value = serde_yaml::from_str(text).map_err(invalid)?;
        root.apply_merge().map_err(invalid)?;
        Ok(Self {
            file: file.to_owned(),
            text: text.to_owned(),
            root,
        })
    }

    /// The outermost value.
    pub fn root(&self) -> Node<'_> {
        Node {
            document: self,
            path: Vec::new(),
            value: &self.root,
        }
    }
}

/// One step from a value to one inside it.
#[derive(Clone, Copy, Debug)]
enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

/// A value of a document and the way to it.
#[derive(Clone, Debug)]
pub struct Node<'a> {
    document: &'a Document,
    path: Vec<Step<'a>>,
    value: &'a Value,
}

impl<'a> Node<'a> {
    /// An error about this value.
    pub fn error(&self, message: impl Into<String>) -> Problem {
        self.located(Problem::error(message))
    }

    /// A warning about this value.
    pub fn warning(&self, message: impl Into<String>) -> Problem {
        self.located(Problem::warning(message))
    }

    /// Where it is: `line 4, flows[0].id`.
    pub fn place(&self) -> String {
        let field = self.field_path();
        match self.line() {
            Some(line) if field.is_empty() => format!("line {line}"),
            Some(line) => format!("line {line}, {field}"),
            None => field,
        }
    }

    /// The line, from 1, at which it begins; none where it comes from an alias.
    pub fn line(&self) -> Option<usize> {
        line::find(&self.document.text, &self.path)
    }

    /// The fields of a mapping; anything else is a problem.
    pub fn fields(&self, problems: &mut Problems) -> Option<Fields<'a>> {
        let Value::Mapping(mapping) = self.value else {
            problems.push(self.unexpected("fields (`name: value`)"));
            return None;
        };
        let mut entries = Vec::with_capacity(mapping.len());
        for (key, value) in mapping {
            match key.as_str() {
                Some(name) => entries.push((name, self.child(Step::Field(name), value))),
                None => problems.push(
                    self.error(format!("a field name must be text, not {}", kind(key)))
                        .remedy("put the name in quotes"),
                ),
            }
        }
        Some(Fields {
            node: self.clone(),
            entries,
        })
    }

    /// The items of a list; anything else is a problem.
    pub fn items(&self, problems: &mut Problems) -> Option<Vec<Node<'a>>> {
        let Value::Sequence(items) = self.value else {
            problems.push(self.unexpected("a list (`- item`)"));
            return None;
        };
        let nodes = items.iter().enumerate();
        Some(
            nodes
                .map(|(n, value)| self.child(Step::Item(n), value))
                .collect(),
        )
    }

    /// A text; anything else is a problem.
    pub fn text(&self, problems: &mut Problems) -> Option<&'a str> {
        if let Value::String(text) = self.value {
            return Some(text);
        }
        let problem = self.unexpected("text");
        problems.push(if self.value.is_number() || self.value.is_bool() {
            problem.remedy("put it in quotes")
        } else {
            problem
        });
        None
    }

    /// A text that is an identifier of greentic-types; anything else is a problem.
    pub fn id<T>(&self, what: &str, problems: &mut Problems) -> Option<T>
    where
        T: std::str::FromStr,
        T::Err: std::fmt::Display,
    {
        let text = self.text(problems)?;
        let problem = |error| {
            self.error(format!("`{text}` is no {what}: {error}"))
                .remedy("use letters, digits, `.`, `_` and `-` only")
        };
        text.parse()
            .map_err(|error| problems.push(problem(error)))
            .ok()
    }

    /// Whether it is true or false; anything else is a problem.
    pub fn flag(&self, problems: &mut Problems) -> Option<bool> {
        if self.value.as_bool().is_none() {
            problems.push(self.unexpected("true or false"));
        }
        self.value.as_bool()
    }

    /// The value as it is.
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// The value as JSON, with the fields of every object in the order of their names. What JSON cannot say (tags, infinite numbers, keys that are no text) is a problem.
    pub fn json(&self, problems: &mut Problems) -> Option<Json> {
        Some(match self.value {
            Value::Null => Json::Null,
            Value::Bool(flag) => Json::Bool(*flag),
            Value::String(text) => Json::String(text.clone()),
            Value::Number(number) => match json_number(number) {
                Some(number) => Json::Number(number),
                None => {
                    problems.push(
                        self.error("a number must be finite")
                            .remedy("write a number or text"),
                    );
                    return None;
                }
            },
            Value::Sequence(_) => {
                let items = self.items(problems)?;
                Json::Array(
                    items
                        .iter()
                        .map(|item| item.json(problems))
                        .collect::<Option<_>>()?,
                )
            }
            Value::Mapping(_) => {
                let fields = self.fields(problems)?;
                let mut object = Map::new();
                for (name, node) in fields.iter() {
                    object.insert(name.to_owned(), node.json(problems)?);
                }
                object.sort_keys();
                Json::Object(object)
            }
            Value::Tagged(tagged) => {
                problems.push(
                    self.error(format!("the tag {} means nothing here", tagged.tag))
                        .remedy("remove the tag"),
                );
                return None;
            }
        })
    }

    fn unexpected(&self, expected: &str) -> Problem {
        self.error(format!("expected {expected}, found {}", kind(self.value)))
            .remedy(format!("write {expected} here"))
    }

    fn child(&self, step: Step<'a>, value: &'a Value) -> Node<'a> {
        let mut path = self.path.clone();
        path.push(step);
        Node {
            document: self.document,
            path,
            value,
        }
    }

    fn located(&self, problem: Problem) -> Problem {
        let problem = problem.in_file(&self.document.file);
        match self.place() {
            place if place.is_empty() => problem,
            place => problem.at(place),
        }
    }

    fn field_path(&self) -> String {
        let mut text = String::new();
        for step in &self.path {
            // Writing to a String cannot fail.
            let _ = match step {
                Step::Field(name) if text.is_empty() => write!(text, "{name}"),
                Step::Field(name) => write!(text, ".{name}"),
                Step::Item(n) => write!(text, "[{n}]"),
            };
        }
        text
    }
}

/// The fields of a mapping, in the order they were written.
#[derive(Debug)]
pub struct Fields<'a> {
    node: Node<'a>,
    entries: Vec<(&'a str, Node<'a>)>,
}

impl<'a> Fields<'a> {
    /// The field of this name.
    pub fn get(&self, name: &str) -> Option<&Node<'a>> {
        let mut entries = self.iter();
        entries.find_map(|(field, node)| (field == name).then_some(node))
    }

    /// The field of this name; its absence is a problem, mended by `example`.
    pub fn require(&self, name: &str, example: &str, problems: &mut Problems) -> Option<&Node<'a>> {
        let found = self.get(name);
        if found.is_none() {
            problems.push(
                self.node
                    .error(format!("the field `{name}` is missing"))
                    .remedy(format!("add `{name}: {example}`")),
            );
        }
        found
    }

    /// Makes every field that is not one of these a problem.
    pub fn only(&self, known: &[&str], problems: &mut Problems) {
        for (name, node) in self.iter() {
            if !known.contains(&name) {
                problems.push(
                    node.error(format!("unknown field `{name}`"))
                        .remedy(format!("the fields here are: {}", known.join(", "))),
                );
            }
        }
    }

    /// All fields with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &Node<'a>)> {
        self.entries.iter().map(|(name, node)| (*name, node))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "fields",
        Value::Tagged(_) => "a tagged value",
    }
}

fn json_number(number: &serde_yaml::Number) -> Option<Number> {
    if let Some(whole) = number.as_u64() {
        return Some(whole.into());
    }
    if let Some(whole) = number.as_i64() {
        return Some(whole.into());
    }
    number.as_f64().and_then(Number::from_f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(text: &str, read: impl Fn(&Node<'_>, &mut Problems)) -> Vec<String> {
        let document = Document::parse(Path::new("a.yaml"), text).unwrap();
        let mut problems = Problems::default();
        read(&document.root(), &mut problems);
        problems
            .iter()
            .map(|p| format!("{}: {}", p.place.clone().unwrap_or_default(), p.message))
            .collect()
    }

    #[test]
    fn a_problem_knows_its_line_and_field() {
        let text = "# comment\nname: x\nlist:\n  - id: 1\n  - id: two\nextra: {deep: [a, b]}\n";
        let found = places(text, |root, problems| {
            let fields = root.fields(problems).unwrap();
            fields.only(&["name", "list"], problems);
            for item in fields.get("list").unwrap().items(problems).unwrap() {
                let item = item.fields(problems).unwrap();
                item.get("id").unwrap().text(problems);
            }
            fields.require("version", "1.0.0", problems);
        });
        assert_eq!(
            found,
            [
                "line 6, extra: unknown field `extra`",
                "line 4, list[0].id: expected text, found a number",
                "line 2: the field `version` is missing",
            ]
        );
    }

    #[test]
    fn json_is_what_was_written_and_nothing_that_it_cannot_say() {
        let document = Document::parse(
            Path::new("a.yaml"),
            "a: [1, -2, 1.5, yes, true, null]\nb: &x {c: d}\ne: *x\nf:\n  <<: *x\n",
        )
        .unwrap();
        let mut problems = Problems::default();
        let json = document.root().json(&mut problems).unwrap();
        let expected = serde_json::json!({
            "a": [1, -2, 1.5, "yes", true, null],
            "b": {"c": "d"},
            "e": {"c": "d"},
            "f": {"c": "d"},
        });
        assert_eq!(json, expected);
        assert!(problems.is_empty());

        let found = places("a: .inf\n", |root, problems| {
            assert!(root.json(problems).is_none());
        });
        assert_eq!(found, ["line 1, a: a number must be finite"]);
    }

    #[test]
    fn broken_yaml_and_doubled_fields_are_told_with_their_line() {
        for (text, part) in [
            ("a: b: c\n", "line 1"),
            ("a: 1\na: 2\n", "duplicate entry with key \"a\""),
        ] {
            let problem = Document::parse(Path::new("a.yaml"), text).unwrap_err();
            assert_eq!(problem.file.as_deref(), Some(Path::new("a.yaml")));
            assert!(problem.message.contains(part), "{problem}");
        }
    }
}
