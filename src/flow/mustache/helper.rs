//! The helpers that templates may use, Handlebars' own.

use std::borrow::Cow;
use std::cmp::Ordering;

use handlebars::JsonTruthy;
use serde_json::Value;

use super::Unrenderable;
use super::block::null;
use super::compare::{equal, order};
use crate::flow::budget::Budget;

/// A helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::flow) enum Helper {
    If,
    Unless,
    Each,
    With,
    Lookup,
    Raw,
    Log,
    Eq,
    Ne,
    Gt,
    Gte,
    Lt,
    Lte,
    And,
    Or,
    Not,
    Len,
}

impl Helper {
    /// The helper with this name.
    pub(super) fn named(name: &str) -> Option<Self> {
        Some(match name {
            "if" => Self::If,
            "unless" => Self::Unless,
            "each" => Self::Each,
            "with" => Self::With,
            "lookup" => Self::Lookup,
            "raw" => Self::Raw,
            "log" => Self::Log,
            "eq" => Self::Eq,
            "ne" => Self::Ne,
            "gt" => Self::Gt,
            "gte" => Self::Gte,
            "lt" => Self::Lt,
            "lte" => Self::Lte,
            "and" => Self::And,
            "or" => Self::Or,
            "not" => Self::Not,
            "len" => Self::Len,
            _ => return None,
        })
    }

    /// How many parameters it cannot do without.
    pub(super) fn needs(self) -> usize {
        match self {
            Self::Raw | Self::Log | Self::And | Self::Or => 0,
            Self::If | Self::Unless | Self::Each | Self::With | Self::Not | Self::Len => 1,
            Self::Lookup | Self::Eq | Self::Ne | Self::Gt | Self::Gte | Self::Lt | Self::Lte => 2,
        }
    }

    /// Returns whether its value chooses between its blocks.
    pub(super) fn is_test(self) -> bool {
        match self {
            Self::Eq
            | Self::Ne
            | Self::Gt
            | Self::Gte
            | Self::Lt
            | Self::Lte
            | Self::And
            | Self::Or
            | Self::Not => true,
            Self::If
            | Self::Unless
            | Self::Each
            | Self::With
            | Self::Lookup
            | Self::Raw
            | Self::Log
            | Self::Len => false,
        }
    }

    /// How it is written, for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::If => "if",
            Self::Unless => "unless",
            Self::Each => "each",
            Self::With => "with",
            Self::Lookup => "lookup",
            Self::Raw => "raw",
            Self::Log => "log",
            Self::Eq => "eq",
            Self::Ne => "ne",
            Self::Gt => "gt",
            Self::Gte => "gte",
            Self::Lt => "lt",
            Self::Lte => "lte",
            Self::And => "and",
            Self::Or => "or",
            Self::Not => "not",
            Self::Len => "len",
        }
    }
}

/// What a call without any parameter comes to.
pub(super) fn bare<'v>(helper: Helper) -> Result<Cow<'v, Value>, Unrenderable> {
    match helper {
        Helper::And => Ok(Cow::Owned(true.into())),
        Helper::Or => Ok(Cow::Owned(false.into())),
        Helper::Raw | Helper::Log => Ok(null()),
        Helper::If
        | Helper::Unless
        | Helper::Each
        | Helper::With
        | Helper::Lookup
        | Helper::Eq
        | Helper::Ne
        | Helper::Gt
        | Helper::Gte
        | Helper::Lt
        | Helper::Lte
        | Helper::Not
        | Helper::Len => Err(unfit(helper)),
    }
}

pub(super) fn unfit(helper: Helper) -> Unrenderable {
    let name = helper.name();
    let needs = match helper.needs() {
        1 => "a parameter".to_owned(),
        needs => format!("{needs} parameters"),
    };
    Unrenderable::Reason(format!("helper `{name}` needs {needs}"))
}

pub(super) fn unknown(name: &str) -> Unrenderable {
    Unrenderable::Reason(format!("there is no helper `{name}`"))
}

/// Refuses what is no level of `log`.
pub(super) fn check_level(level: &str) -> Result<(), Unrenderable> {
    let known = ["error", "warn", "info", "debug", "trace"];
    if known.iter().any(|known| known.eq_ignore_ascii_case(level)) {
        return Ok(());
    }
    let known = known.join(", ");
    let reason = format!("helper `log` has no such `level`; its levels are {known}");
    Err(Unrenderable::Reason(reason))
}

/// The value of a helper that has one. The others, asked for theirs, have an empty text.
pub(super) fn compute<'v>(
    helper: Helper,
    mut params: Vec<Cow<'v, Value>>,
    budget: &mut Budget,
) -> Result<Cow<'v, Value>, Unrenderable> {
    let truth = match (helper, &*params) {
        (Helper::Lookup, [_, key, ..]) => {
            let key = key.clone();
            return Ok(looked_up(params.swap_remove(0), &key));
        }
        (Helper::Len, [value, ..]) => return Ok(Cow::Owned(length(value).into())),
        (Helper::Not, [value, ..]) => !value.is_truthy(false),
        (Helper::And, all) => all.iter().all(|value| value.is_truthy(false)),
        (Helper::Or, all) => all.iter().any(|value| value.is_truthy(false)),
        (Helper::Eq, [a, b, ..]) => equal(a, b, budget)?,
        (Helper::Ne, [a, b, ..]) => !equal(a, b, budget)?,
        (Helper::Gt, [a, b, ..]) => order(a, b, budget)?.is_some_and(Ordering::is_gt),
        (Helper::Gte, [a, b, ..]) => order(a, b, budget)?.is_some_and(Ordering::is_ge),
        (Helper::Lt, [a, b, ..]) => order(a, b, budget)?.is_some_and(Ordering::is_lt),
        (Helper::Lte, [a, b, ..]) => order(a, b, budget)?.is_some_and(Ordering::is_le),
        _ => return Ok(Cow::Owned(Value::String(String::new()))),
    };
    Ok(Cow::Owned(truth.into()))
}

/// Arrays and objects are the run's own or the template's, so what is in them is borrowed.
fn looked_up<'v>(collection: Cow<'v, Value>, key: &Value) -> Cow<'v, Value> {
    let Cow::Borrowed(collection) = collection else {
        return null();
    };
    let found = match collection {
        Value::Array(items) => {
            let at = key.as_u64().and_then(|at| usize::try_from(at).ok());
            at.and_then(|at| items.get(at))
        }
        Value::Object(fields) => key.as_str().and_then(|key| fields.get(key)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    };
    found.map_or_else(null, Cow::Borrowed)
}

fn length(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        Value::String(text) => text.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}
