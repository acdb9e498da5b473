//! Runs compiled templates. Every iteration, call, look-up and comparison is charged for before it is done; values are
//! looked at where they are and copied only as text that is written.

use std::borrow::Cow;
use std::fmt::Write as _;

use handlebars::JsonTruthy;
use serde_json::Value;

use super::Unrenderable;
use super::block::{Block, Locals, null, variable};
use super::helper::{Helper, bare, check_level, compute, unfit, unknown};
use super::program::{Call, Element, Expression, Origin, Place};
use crate::flow::budget::{Budget, Excess};
use crate::flow::path::walk;
use crate::model::PAYLOAD_LOG;

type Rendered = Result<(), Unrenderable>;

/// Renders the elements of a template with this data.
pub(super) fn render(
    elements: &[Element],
    data: &Value,
    budget: &mut Budget,
) -> Result<String, Unrenderable> {
    let mut writer = Writer {
        text: String::new(),
        budget,
    };
    let outermost = Block::new(data, None);
    writer.elements(elements, &outermost)?;
    Ok(writer.text)
}

/// Writes a value as templates show it: an object is not shown.
pub(super) fn write(text: &mut String, value: &Value, budget: &mut Budget) -> Result<(), Excess> {
    budget.step(1)?;
    match value {
        Value::Null => Ok(()),
        Value::String(piece) => write_text(text, piece, budget),
        Value::Bool(true) => write_text(text, "true", budget),
        Value::Bool(false) => write_text(text, "false", budget),
        Value::Object(_) => write_text(text, "[object]", budget),
        Value::Number(number) => {
            let before = text.len();
            // Writing to a string does not fail.
            let _ = write!(text, "{number}");
            budget.take(text.len() - before)
        }
        Value::Array(items) => {
            write_text(text, "[", budget)?;
            for (n, item) in items.iter().enumerate() {
                if n > 0 {
                    write_text(text, ", ", budget)?;
                }
                write(text, item, budget)?;
            }
            write_text(text, "]", budget)
        }
    }
}

fn write_text(text: &mut String, piece: &str, budget: &mut Budget) -> Result<(), Excess> {
    budget.take(piece.len())?;
    text.push_str(piece);
    Ok(())
}

struct Writer<'w> {
    text: String,
    budget: &'w mut Budget,
}

impl Writer<'_> {
    fn elements(&mut self, elements: &[Element], block: &Block<'_>) -> Rendered {
        for element in elements {
            self.budget.step(1)?;
            match element {
                Element::Text(text) => write_text(&mut self.text, text, self.budget)?,
                Element::Show(expression) => self.show(expression, block)?,
                Element::Call(call) => self.call(call, block)?,
            }
        }
        Ok(())
    }

    fn show(&mut self, expression: &Expression, block: &Block<'_>) -> Rendered {
        let value = match expression {
            Expression::Named(name) => {
                let value = self.value(name, block)?;
                match value.as_str().and_then(Helper::named) {
                    Some(helper) => bare(helper)?,
                    None => value,
                }
            }
            Expression::Literal(_)
            | Expression::Place(_)
            | Expression::Local(..)
            | Expression::Call(_)
            | Expression::Unknown(_)
            | Expression::Missing => self.value(expression, block)?,
        };
        Ok(write(&mut self.text, &value, self.budget)?)
    }

    /// A call as an element. Chains of `else if` are gone through, not down.
    fn call(&mut self, call: &Call, block: &Block<'_>) -> Rendered {
        let mut call = call;
        loop {
            match self.chosen(call, block)? {
                None => return Ok(()),
                Some([Element::Call(next)]) => {
                    self.budget.step(1)?;
                    call = next;
                }
                Some(elements) => return self.elements(elements, block),
            }
        }
    }

    /// Carries out a call, up to the elements that are rendered in the same block.
    fn chosen<'c>(
        &mut self,
        call: &'c Call,
        block: &Block<'_>,
    ) -> Result<Option<&'c [Element]>, Unrenderable> {
        let params = self.params(call, block)?;
        let otherwise = call.otherwise.as_deref();
        let branch = |holds: bool| {
            if holds {
                call.body.as_deref()
            } else {
                otherwise
            }
        };
        match (call.helper, &*params) {
            (Helper::If, [value, ..]) => {
                let zero = self.includes_zero(call, block)?;
                Ok(branch(value.is_truthy(zero)))
            }
            (Helper::Unless, [value, ..]) => {
                let zero = self.includes_zero(call, block)?;
                Ok(branch(!value.is_truthy(zero)))
            }
            (Helper::Raw, _) => Ok(call.body.as_deref()),
            (Helper::Log, params) => {
                self.log(params)?;
                Ok(None)
            }
            (Helper::Each, [list, ..]) => self.each(call, list, block),
            (Helper::With, [value, ..]) if value.is_truthy(false) => {
                let inner = Block {
                    item: call.item.as_deref().filter(|_| call.key.is_none()),
                    locals: block.locals,
                    ..Block::new(value, Some(block))
                };
                self.elements(call.body.as_deref().unwrap_or_default(), &inner)?;
                Ok(None)
            }
            (Helper::With, _) => Ok(otherwise),
            (helper, _) => {
                let value = compute(helper, params, self.budget)?;
                if call.is_block && helper.is_test() {
                    return Ok(branch(*value == Value::Bool(true)));
                }
                write(&mut self.text, &value, self.budget)?;
                Ok(None)
            }
        }
    }

    /// Says something to the worker's log, where that shows what users wrote.
    fn log(&mut self, params: &[Cow<'_, Value>]) -> Rendered {
        let mut line = String::new();
        for (n, param) in params.iter().enumerate() {
            if n > 0 {
                line.push_str(", ");
            }
            write(&mut line, param, self.budget)?;
        }
        tracing::debug!(target: PAYLOAD_LOG, line, "template log");
        Ok(())
    }

    fn each<'c>(
        &mut self,
        call: &'c Call,
        list: &Value,
        block: &Block<'_>,
    ) -> Result<Option<&'c [Element]>, Unrenderable> {
        let Some(body) = call.body.as_deref() else {
            return Ok(None);
        };
        let otherwise = call.otherwise.as_deref();
        match list {
            Value::Array(items) if !items.is_empty() || otherwise.is_none() => {
                for (at, item) in items.iter().enumerate() {
                    let locals = Locals {
                        index: Some((at, at + 1 == items.len())),
                        key: None,
                    };
                    self.iteration(call, body, (item, &at.into(), locals), block)?;
                }
                Ok(None)
            }
            Value::Object(fields) if !fields.is_empty() || otherwise.is_none() => {
                for (at, (name, item)) in fields.iter().enumerate() {
                    let locals = Locals {
                        index: Some((at, at + 1 == fields.len())),
                        key: Some(name),
                    };
                    let named = call.key.is_some();
                    let key = if named {
                        name.as_str().into()
                    } else {
                        Value::Null
                    };
                    self.budget.step_text(name.len())?;
                    self.iteration(call, body, (item, &key, locals), block)?;
                }
                Ok(None)
            }
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_) => Ok(otherwise),
        }
    }

    fn iteration<'i>(
        &mut self,
        call: &'i Call,
        body: &[Element],
        (item, key, locals): (&'i Value, &'i Value, Locals<'i>),
        block: &'i Block<'i>,
    ) -> Rendered {
        self.budget.step(1)?;
        let inner = Block {
            item: call.item.as_deref(),
            key: call.key.as_deref().map(|name| (name, key)),
            locals,
            ..Block::new(item, Some(block))
        };
        self.elements(body, &inner)
    }

    fn includes_zero(&mut self, call: &Call, block: &Block<'_>) -> Result<bool, Unrenderable> {
        let given = call.hash.iter().find(|(name, _)| &**name == "includeZero");
        match given {
            Some((_, value)) => Ok(self.value(value, block)?.as_bool().unwrap_or(false)),
            None => Ok(false),
        }
    }

    /// The values of a call's parameters. Those that go by a name are looked at too: they may be what fails.
    fn params<'v>(
        &mut self,
        call: &'v Call,
        block: &'v Block<'v>,
    ) -> Result<Vec<Cow<'v, Value>>, Unrenderable> {
        let mut params = Vec::with_capacity(call.params.len());
        for param in &call.params {
            params.push(self.value(param, block)?);
        }
        for (name, value) in &call.hash {
            let value = self.value(value, block)?;
            if call.helper == Helper::Log && &**name == "level" {
                check_level(value.as_str().unwrap_or("info"))?;
            }
        }
        if params.len() < call.helper.needs() {
            return Err(unfit(call.helper));
        }
        Ok(params)
    }

    fn value<'v>(
        &mut self,
        expression: &'v Expression,
        block: &'v Block<'v>,
    ) -> Result<Cow<'v, Value>, Unrenderable> {
        self.budget.step(1)?;
        match expression {
            Expression::Literal(value) => Ok(Cow::Borrowed(value)),
            Expression::Place(place) => {
                Ok(self.find(place, block)?.map_or_else(null, Cow::Borrowed))
            }
            Expression::Local(level, local) => Ok(variable(block, *level, *local)),
            Expression::Call(call) => {
                let params = self.params(call, block)?;
                compute(call.helper, params, self.budget)
            }
            Expression::Named(name) => {
                let name = self.value(name, block)?;
                match name.as_str().and_then(Helper::named) {
                    Some(helper) => bare(helper),
                    None => Err(unknown(name.as_str().unwrap_or_default())),
                }
            }
            Expression::Unknown(name) => Err(unknown(name)),
            Expression::Missing => Ok(null()),
        }
    }

    fn find<'v>(
        &mut self,
        place: &'v Place,
        block: &'v Block<'v>,
    ) -> Result<Option<&'v Value>, Unrenderable> {
        self.budget.step(place.steps + block.depth / 4)?;
        let mut segs = &*place.segs;
        if place.may_name_item
            && let Some((first, below)) = segs.split_first()
            && let Some(named) = first.key().and_then(|name| block.named(name))
        {
            segs = below;
            return Ok(walk(named, segs)?);
        }
        let from = match place.from {
            Origin::Here => block.base,
            Origin::Outward(ups) => block.outward().nth(ups).unwrap_or(block).base,
            Origin::Root => block.outward().last().unwrap_or(block).base,
        };
        Ok(walk(from, segs)?)
    }
}
