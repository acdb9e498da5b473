//! The helpers that templates may use, Handlebars' own: what they compare and count, with the work charged for.

use std::cmp::Ordering;

use num_order::NumOrd;
use serde_json::{Number, Value};

use crate::flow::budget::{Budget, Excess};

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

    /// Whether its value chooses between its blocks.
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

/// Returns whether two values are equal.
pub(super) fn equal(a: &Value, b: &Value, budget: &mut Budget) -> Result<bool, Excess> {
    budget.step(1)?;
    match (a, b) {
        (Value::String(a), Value::String(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            budget.step_text(a.len())?;
            Ok(a == b)
        }
        (Value::Array(a), Value::Array(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (a, b) in a.iter().zip(b) {
                if !equal(a, b, budget)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Value::Object(a), Value::Object(b)) => {
            if a.len() != b.len() {
                return Ok(false);
            }
            for (name, a) in a {
                budget.step_text(name.len())?;
                let is_equal = match b.get(name) {
                    Some(b) => equal(a, b, budget)?,
                    None => false,
                };
                if !is_equal {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (a, b) => Ok(a == b),
    }
}

/// Returns the order of two values, if they have one.
pub(super) fn order(a: &Value, b: &Value, budget: &mut Budget) -> Result<Option<Ordering>, Excess> {
    budget.step(1)?;
    Ok(match (a, b) {
        (Value::Number(a), Value::Number(b)) => order_numbers(a, b),
        (Value::String(a), Value::String(b)) => {
            budget.step_text(a.len().min(b.len()))?;
            Some(a.cmp(b))
        }
        (Value::Bool(a), Value::Bool(b)) => Some(a.cmp(b)),
        (Value::Number(a), Value::String(b)) => {
            read_number(b, budget)?.and_then(|b| order_numbers(a, &b))
        }
        (Value::String(a), Value::Number(b)) => {
            read_number(a, budget)?.and_then(|a| order_numbers(&a, b))
        }
        _ => None,
    })
}

fn read_number(text: &str, budget: &mut Budget) -> Result<Option<Number>, Excess> {
    budget.step_text(8 * text.len())?;
    Ok(text.parse().ok())
}

/// Whole numbers are compared as such, whatever their size.
fn order_numbers(a: &Number, b: &Number) -> Option<Ordering> {
    match (whole(a), whole(b)) {
        (Some(a), Some(b)) => Some(a.cmp(&b)),
        (Some(a), None) => a.num_partial_cmp(&b.as_f64()?),
        (None, Some(b)) => a.as_f64()?.num_partial_cmp(&b),
        (None, None) => a.as_f64()?.partial_cmp(&b.as_f64()?),
    }
}

fn whole(number: &Number) -> Option<i128> {
    number
        .as_u64()
        .map(i128::from)
        .or_else(|| number.as_i64().map(i128::from))
}
