//! Conditions of routes: comparisons `path OP text`, joined with `and`, `or`, `not` and brackets.

mod parse;

use std::borrow::Cow;

use serde_json::Value;

use crate::flow::path::{Reference, Root, Seg, Uses, walk};
use crate::flow::payload;
use crate::flow::scope::Scope;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Op {
    Equal,
    Unequal,
    AtLeast,
    AtMost,
    Greater,
    Less,
    Contains,
}

/// A compiled condition.
#[derive(Debug)]
pub(in crate::flow) enum Condition {
    /// One comparison.
    Compare(Comparison),
    /// All of them hold.
    All(Vec<Condition>),
    /// One of them holds.
    Any(Vec<Condition>),
    /// It does not hold.
    Not(Box<Condition>),
    /// It never holds: a lone path, which is no comparison.
    Never,
}

/// A path, an operator and a text.
#[derive(Debug)]
pub(in crate::flow) struct Comparison {
    path: String,
    head: Head,
    rest: Vec<Seg>,
    op: Op,
    text: String,
    number: Option<f64>,
}

/// What the first name of a path stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    /// The payload, the outputs: these hide fields of the node's output.
    Reserved(Root),
    /// The metadata and the text of the message.
    Response,
    /// How the node ended.
    Event,
    /// A field of the node's own output, else a root of this name.
    OwnOr(Option<Root>),
}

/// What conditions of a node look at.
#[derive(Clone, Copy, Debug)]
pub(in crate::flow) struct Sight<'a> {
    /// The run, with the node's own output as `prev`.
    pub(in crate::flow) scope: &'a Scope<'a>,
    /// The node's own output.
    pub(in crate::flow) output: &'a Value,
    /// How the node ended.
    pub(in crate::flow) event: &'a str,
}

impl Condition {
    /// Whether it holds.
    pub(in crate::flow) fn holds(&self, sight: &Sight<'_>) -> bool {
        match self {
            Self::Compare(comparison) => comparison.holds(sight),
            Self::All(parts) => parts.iter().all(|part| part.holds(sight)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(sight)),
            Self::Not(inner) => !inner.holds(sight),
            Self::Never => false,
        }
    }

    /// All comparisons in it.
    pub(in crate::flow) fn comparisons(&self) -> Vec<&Comparison> {
        match self {
            Self::Compare(comparison) => vec![comparison],
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().flat_map(Self::comparisons).collect()
            }
            Self::Not(inner) => inner.comparisons(),
            Self::Never => Vec::new(),
        }
    }

    /// What an author probably did not mean, and what to write instead.
    pub(in crate::flow) fn doubt(&self) -> Option<(&'static str, &'static str)> {
        let texts = || {
            self.comparisons()
                .into_iter()
                .map(|comparison| &*comparison.text)
        };
        if matches!(self, Self::Never) {
            Some((
                "it never holds: it compares nothing",
                "write `path == \"text\"`",
            ))
        } else if texts().any(|text| text.starts_with('\'') && text.ends_with('\'')) {
            Some(("single quotes are part of the text", "use double quotes"))
        } else if texts().any(|text| text.contains("&&") || text.contains("||")) {
            Some(("`&&` and `||` are part of the text", "use `and` and `or`"))
        } else {
            None
        }
    }

    /// What it may look at besides the node's own output.
    pub(in crate::flow) fn uses(&self) -> Uses {
        let mut uses = Uses::default();
        for comparison in self.comparisons() {
            uses.note(&Reference::from_names(comparison.path.split('.')));
        }
        uses
    }
}

impl Comparison {
    /// Reads the two sides of an operator. The error says what is wrong with them.
    fn new(path: &str, op: Op, text: &str) -> Result<Self, String> {
        let path = path.trim();
        if path.is_empty() {
            return Err("a comparison has no path on its left".to_owned());
        }
        let text = text.trim().trim_matches('"');
        let mut names = path.split('.');
        let head = match names.next().unwrap_or_default() {
            "response" => Head::Response,
            "event" => Head::Event,
            first => match Root::named(first) {
                Some(root @ (Root::Entry | Root::In | Root::Node)) => Head::Reserved(root),
                root => Head::OwnOr(root),
            },
        };
        Ok(Self {
            path: path.to_owned(),
            head,
            rest: names.map(|name| Seg::Key(name.into())).collect(),
            op,
            text: if op == Op::Contains {
                text.to_lowercase()
            } else {
                text.to_owned()
            },
            number: text.parse().ok(),
        })
    }

    /// The name of the event that it asks for.
    pub(in crate::flow) fn event(&self) -> Option<&str> {
        (self.path == "event" && self.op == Op::Equal).then_some(&*self.text)
    }

    /// Whether it looks at the message of the turn.
    pub(in crate::flow) fn looks_at_message(&self) -> bool {
        match self.head {
            Head::Response | Head::Reserved(Root::Entry | Root::In) => true,
            Head::Reserved(_) | Head::Event | Head::OwnOr(_) => false,
        }
    }

    fn holds(&self, sight: &Sight<'_>) -> bool {
        let Some(found) = self.find(sight) else {
            return self.op == Op::Unequal;
        };
        let found = as_text(&found);
        let ordered = |holds: fn(f64, f64) -> bool| {
            let found = found.trim().parse::<f64>().ok();
            found
                .zip(self.number)
                .is_some_and(|(found, number)| holds(found, number))
        };
        match self.op {
            Op::Equal => found.eq_ignore_ascii_case(&self.text),
            Op::Unequal => !found.eq_ignore_ascii_case(&self.text),
            Op::AtLeast => ordered(|found, number| found >= number),
            Op::AtMost => ordered(|found, number| found <= number),
            Op::Greater => ordered(|found, number| found > number),
            Op::Less => ordered(|found, number| found < number),
            Op::Contains => found.to_lowercase().contains(&self.text),
        }
    }

    fn find<'a>(&self, sight: &Sight<'a>) -> Option<Cow<'a, Value>> {
        let rest = self.rest.as_slice();
        match self.head {
            Head::Response => response(sight.scope.entry, rest).map(Cow::Borrowed),
            Head::Event => rest
                .is_empty()
                .then(|| Cow::Owned(Value::String(sight.event.to_owned()))),
            Head::Reserved(Root::Node) => sight.scope.find_under(Root::Node, rest).ok().flatten(),
            Head::Reserved(_) if rest.is_empty() => {
                Some(Cow::Owned(payload::whole_aliased(sight.scope.entry)))
            }
            Head::Reserved(_) => payload::aliased(sight.scope.entry, rest)
                .ok()
                .flatten()
                .map(Cow::Borrowed),
            Head::OwnOr(root) => {
                let first = self.path.split('.').next().unwrap_or_default();
                match sight.output.as_object().and_then(|own| own.get(first)) {
                    Some(own) => walk(own, rest).ok().flatten().map(Cow::Borrowed),
                    None => sight.scope.find_under(root?, rest).ok().flatten(),
                }
            }
        }
    }
}

/// `response`: the metadata of the message, and its text.
fn response<'a>(entry: &'a Value, rest: &[Seg]) -> Option<&'a Value> {
    let (first, below) = rest.split_first()?;
    let text = (first.key() == Some("text"))
        .then(|| payload::text(entry))
        .flatten();
    let of_metadata = || payload::metadata(entry)?.as_object()?.get(first.key()?);
    walk(text.or_else(of_metadata)?, below).ok().flatten()
}

fn as_text(value: &Value) -> Cow<'_, str> {
    value
        .as_str()
        .map_or_else(|| Cow::Owned(value.to_string()), Cow::Borrowed)
}

#[cfg(test)]
mod tests;
