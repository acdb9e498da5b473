//! Comparisons of values, with the work charged for.

use std::cmp::Ordering;

use num_order::NumOrd;
use serde_json::{Number, Value};

use crate::flow::budget::{Budget, Excess};

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
