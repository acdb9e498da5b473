//! Mappings: JSON in which every string may be a template. They are compiled once, when the flow is loaded; what a
//! template renders to is data and is never rendered again.

use std::borrow::Cow;

use serde_json::{Map, Value};

use super::budget::{Budget, Excess};
use super::findings::Findings;
use super::mustache::{Mustache, Unrenderable};
use super::path::{Reference, Root};
use super::scope::{Scope, Unfound, copied};

/// A template that could not be rendered.
#[derive(Debug)]
pub(super) struct RenderFailure {
    /// The template.
    pub(super) template: String,
    /// Why.
    pub(super) cause: Unrenderable,
}

/// A mapping that goes deeper by itself than a value may.
impl From<Excess> for RenderFailure {
    fn from(excess: Excess) -> Self {
        Self {
            template: "…".to_owned(),
            cause: excess.into(),
        }
    }
}

/// Whether a string that starts with `/` is a JSON pointer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pointers {
    /// It is one, if its first name is a root. So in `var.set` and `vars_out`.
    Followed,
    /// The same, and the roots of what is given are there too. So in the maps of `provider.invoke`.
    FollowedIntoGiven,
    /// It is a text like any other. So everywhere else.
    Literal,
}

impl Pointers {
    /// What is given is nowhere where nothing is.
    fn narrow(self, reference: Reference) -> Reference {
        let is_given = matches!(&reference, Reference::At(root, _) if root.is_given());
        if is_given && self != Self::FollowedIntoGiven {
            Reference::Nowhere
        } else {
            reference
        }
    }
}

/// A compiled mapping.
#[derive(Debug)]
pub(super) enum Mapping {
    /// No template in it.
    Constant(Value),
    /// One path: the value that is there, with its type, or an empty text.
    One(Reference, Box<str>),
    /// One JSON pointer: the value that must be there.
    Pointer(Reference, Box<str>),
    /// A text.
    Text(Mustache, Box<str>),
    /// An array with templates in it.
    Array(Vec<Mapping>),
    /// An object with templates in its values.
    Object(Vec<(String, Mapping)>),
}

impl Mapping {
    /// Compiles a mapping. What is wrong with it is added to the findings.
    pub(super) fn compile(source: &Value, pointers: Pointers, findings: &mut Findings) -> Self {
        match source {
            Value::String(text) => Self::compile_text(text, pointers, findings),
            Value::Array(items) => {
                let items = items
                    .iter()
                    .map(|item| Self::compile(item, pointers, findings));
                Self::of_items(items.collect())
            }
            Value::Object(fields) => {
                let field = |(name, value): (&String, &Value)| {
                    (name.clone(), Self::compile(value, pointers, findings))
                };
                Self::of_fields(fields.iter().map(field).collect())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Self::Constant(source.clone()),
        }
    }

    /// An array, which is a constant if all its items are.
    fn of_items(items: Vec<Self>) -> Self {
        if !items.iter().all(Self::is_constant) {
            return Self::Array(items);
        }
        let values = items.into_iter().filter_map(Self::into_constant);
        Self::Constant(Value::Array(values.collect()))
    }

    /// An object, which is a constant if all its values are.
    fn of_fields(fields: Vec<(String, Self)>) -> Self {
        if !fields.iter().all(|(_, value)| value.is_constant()) {
            return Self::Object(fields);
        }
        let values = fields.into_iter();
        let values = values.filter_map(|(name, value)| Some((name, value.into_constant()?)));
        Self::Constant(Value::Object(values.collect()))
    }

    fn is_constant(&self) -> bool {
        matches!(self, Self::Constant(_))
    }

    fn into_constant(self) -> Option<Value> {
        match self {
            Self::Constant(value) => Some(value),
            Self::One(..)
            | Self::Pointer(..)
            | Self::Text(..)
            | Self::Array(_)
            | Self::Object(_) => None,
        }
    }

    fn compile_text(text: &str, pointers: Pointers, findings: &mut Findings) -> Self {
        let literal = || Self::Constant(Value::String(text.to_owned()));
        if !text.contains("{{") {
            let pointer = (pointers != Pointers::Literal).then(|| Reference::from_pointer(text));
            let reference = pointer.flatten().map(|found| pointers.narrow(found));
            let Some(reference) = reference.filter(|found| *found != Reference::Nowhere) else {
                return literal();
            };
            findings.uses.note(&reference);
            return Self::Pointer(reference, text.into());
        }
        if let Some(reference) = single_expression(text).and_then(Reference::from_expression) {
            let reference = pointers.narrow(reference);
            if reference == Reference::Nowhere {
                findings.warn(
                    format!(
                        "template `{}` always renders to an empty text",
                        excerpt(text)
                    ),
                    format!("begin its path with one of {}", Root::names()),
                );
            }
            findings.uses.note(&reference);
            return Self::One(reference, text.into());
        }
        match Mustache::compile(text) {
            Ok(mustache) => {
                findings.uses.extend(&mustache.uses());
                Self::Text(mustache, text.into())
            }
            Err(fault) => {
                findings.error(
                    format!("template `{}` is not valid: {fault}", excerpt(text)),
                    "mend it; beside other text, a position in an array is written `list.[0]`",
                );
                literal()
            }
        }
    }

    /// The text, if it is one without a template.
    pub(super) fn as_literal(&self) -> Option<&str> {
        if let Self::Constant(value) = self {
            value.as_str()
        } else {
            None
        }
    }

    /// Renders it.
    pub(super) fn render(
        &self,
        scope: &Scope<'_>,
        budget: &mut Budget,
    ) -> Result<Value, RenderFailure> {
        let failed = |template: &str, cause| RenderFailure {
            template: excerpt(template),
            cause,
        };
        match self {
            Self::Constant(value) => match budget.take_value(value) {
                Ok(()) => Ok(value.clone()),
                Err(excess) => Err(failed(value.as_str().unwrap_or("…"), excess.into())),
            },
            Self::One(reference, source) => {
                let found = scope.find(reference, budget);
                let found = found.or_else(Unfound::or_nothing);
                let missing = || {
                    tracing::debug!(template = %source, "nothing is there: rendered as an empty text");
                    Cow::Owned(Value::String(String::new()))
                };
                found
                    .and_then(|found| copied(found.unwrap_or_else(missing), budget))
                    .map_err(|excess| failed(source, excess.into()))
            }
            Self::Pointer(reference, source) => {
                let missing = || Unrenderable::Reason("nothing is there".to_owned());
                let found = scope.find(reference, budget).map_err(Unrenderable::from);
                let found = found.and_then(|found| found.ok_or_else(missing));
                found
                    .and_then(|found| Ok(copied(found, budget)?))
                    .map_err(|cause| failed(source, cause))
            }
            Self::Text(mustache, source) => {
                let text = mustache.render(scope, budget);
                text.map(Value::String)
                    .map_err(|cause| failed(source, cause))
            }
            Self::Array(items) => budget.inside(|budget| {
                let items = items.iter().map(|item| item.render(scope, budget));
                items.collect::<Result<_, _>>().map(Value::Array)
            }),
            Self::Object(fields) => budget.inside(|budget| {
                let field = |(name, value): &(String, Self)| {
                    budget.step_text(name.len())?;
                    value
                        .render(scope, budget)
                        .map(|value| (name.clone(), value))
                };
                fields
                    .iter()
                    .map(field)
                    .collect::<Result<Map<_, _>, _>>()
                    .map(Value::Object)
            }),
        }
    }
}

/// The inside of a text that is one mustache and nothing else, and no block, comment or partial.
fn single_expression(text: &str) -> Option<&str> {
    let trimmed = text.trim();
    let is_mustache = trimmed.starts_with("{{") && trimmed.ends_with("}}");
    let inner = trimmed.trim_start_matches('{').trim_end_matches('}').trim();
    let is_single = !inner.contains("{{") && !inner.contains("}}");
    let is_plain = !inner.is_empty() && !inner.starts_with(['#', '/', '>', '!', '^', '&', '@']);
    (is_mustache && is_single && is_plain).then_some(inner)
}

/// As much of a template as a message should show.
pub(super) fn excerpt(template: &str) -> String {
    const SHOWN: usize = 80;
    match template.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &template[..at]),
        None => template.to_owned(),
    }
}
