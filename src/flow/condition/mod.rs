//! Conditions of routes: comparisons `path OP text`, joined with `and`, `or`, `not` and brackets.

mod parse;
mod work;

use std::borrow::Cow;

use serde_json::Value;

use work::LOWER_CASE_COST;
pub(in crate::flow) use work::Work;

use crate::flow::budget::{Budget, Excess};
use crate::flow::path::{Reference, Root, Seg, Uses, walk};
use crate::flow::payload;
use crate::flow::scope::{Scope, Unfound};

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

/// How much dearer a byte is to read as part of a number.
const NUMBER_COST: usize = 8;

impl Condition {
    /// Whether it holds.
    pub(in crate::flow) fn holds(
        &self,
        sight: &Sight<'_>,
        work: &mut Work<'_>,
    ) -> Result<bool, Excess> {
        work.budget.step(1)?;
        let (parts, decisive) = match self {
            Self::Compare(comparison) => return comparison.holds(sight, work),
            Self::Not(inner) => return Ok(!inner.holds(sight, work)?),
            Self::Never => return Ok(false),
            Self::All(parts) => (parts, false),
            Self::Any(parts) => (parts, true),
        };
        for part in parts {
            if part.holds(sight, work)? == decisive {
                return Ok(decisive);
            }
        }
        Ok(!decisive)
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

    /// Returns whether it looks at the message of the turn.
    pub(in crate::flow) fn looks_at_message(&self) -> bool {
        match self.head {
            Head::Response | Head::Reserved(Root::Entry | Root::In) => true,
            Head::Reserved(_) | Head::Event | Head::OwnOr(_) => false,
        }
    }

    fn holds(&self, sight: &Sight<'_>, work: &mut Work<'_>) -> Result<bool, Excess> {
        let found = work.budget.unproductive(|budget| self.find(sight, budget));
        let Some(found) = found? else {
            return Ok(self.op == Op::Unequal);
        };
        if self.op == Op::Contains
            && let Cow::Borrowed(Value::String(text)) = &found
        {
            return work.contains(text, &self.text);
        }
        let found = as_text(&found, work.budget)?;
        let compared = match self.op {
            Op::Equal | Op::Unequal => found.len().min(self.text.len()),
            Op::AtLeast | Op::AtMost | Op::Greater | Op::Less => NUMBER_COST * found.len(),
            Op::Contains => found.len(),
        };
        work.budget.step_text(compared)?;
        let ordered = |holds: fn(f64, f64) -> bool| {
            let found = found.trim().parse::<f64>().ok();
            found
                .zip(self.number)
                .is_some_and(|(found, number)| holds(found, number))
        };
        Ok(match self.op {
            Op::Equal => found.eq_ignore_ascii_case(&self.text),
            Op::Unequal => !found.eq_ignore_ascii_case(&self.text),
            Op::AtLeast => ordered(|found, number| found >= number),
            Op::AtMost => ordered(|found, number| found <= number),
            Op::Greater => ordered(|found, number| found > number),
            Op::Less => ordered(|found, number| found < number),
            Op::Contains => {
                work.budget.step_text(LOWER_CASE_COST * found.len())?;
                found.to_lowercase().contains(&self.text)
            }
        })
    }

    fn find<'a>(
        &self,
        sight: &Sight<'a>,
        budget: &mut Budget,
    ) -> Result<Option<Cow<'a, Value>>, Excess> {
        budget.step(1 + self.rest.len() as u64)?;
        budget.step_text(self.path.len())?;
        let rest = self.rest.as_slice();
        let below = |root: Root, budget: &mut Budget| {
            let found = sight.scope.find_under(root, rest, budget);
            found.or_else(Unfound::or_nothing)
        };
        let found = match self.head {
            Head::Response => response(sight.scope.entry, rest),
            Head::Event => {
                budget.step_text(sight.event.len())?;
                let event = || Cow::Owned(Value::String(sight.event.to_owned()));
                return Ok(rest.is_empty().then(event));
            }
            Head::Reserved(Root::Node) => return below(Root::Node, budget),
            Head::Reserved(_) if rest.is_empty() => {
                let whole = payload::whole_aliased(sight.scope.entry, budget)?;
                return Ok(Some(Cow::Owned(whole)));
            }
            Head::Reserved(_) => payload::aliased(sight.scope.entry, rest).ok().flatten(),
            Head::OwnOr(root) => {
                let first = self.path.split('.').next().unwrap_or_default();
                match (
                    sight.output.as_object().and_then(|own| own.get(first)),
                    root,
                ) {
                    (Some(own), _) => walk(own, rest).ok().flatten(),
                    (None, Some(root)) => return below(root, budget),
                    (None, None) => None,
                }
            }
        };
        Ok(found.map(Cow::Borrowed))
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

fn as_text<'v>(value: &'v Value, budget: &mut Budget) -> Result<Cow<'v, str>, Excess> {
    match value.as_str() {
        Some(text) => Ok(Cow::Borrowed(text)),
        None => {
            budget.walk(value)?;
            Ok(Cow::Owned(value.to_string()))
        }
    }
}

#[cfg(test)]
mod tests;
