//! Compiled templates: what Handlebars' parser has read, in the form that is run. It has no more than templates of flows
//! may use, so what runs them is small, and nothing in it does more work than it has charged for.

use std::collections::HashMap;

use handlebars::template::{BlockParam, HelperTemplate, Parameter, TemplateElement};
use handlebars::{Path, PathSeg, Template};
use serde_json::Value;

use super::helper::Helper;
use crate::flow::path::Seg;

/// A part of a template.
#[derive(Debug)]
pub(in crate::flow) enum Element {
    /// Itself.
    Text(Box<str>),
    /// The value of an expression, as text.
    Show(Expression),
    /// A helper, with blocks or without.
    Call(Box<Call>),
}

/// A call of a helper.
#[derive(Debug)]
pub(in crate::flow) struct Call {
    pub(super) helper: Helper,
    pub(super) params: Vec<Expression>,
    pub(super) hash: Vec<(Box<str>, Expression)>,
    /// It is written as a block.
    pub(super) is_block: bool,
    pub(super) body: Option<Vec<Element>>,
    pub(super) otherwise: Option<Vec<Element>>,
    /// What the block calls its item, and the item's key or position.
    pub(super) item: Option<Box<str>>,
    pub(super) key: Option<Box<str>>,
}

/// What has a value.
#[derive(Debug)]
pub(in crate::flow) enum Expression {
    Literal(Value),
    Place(Place),
    /// A variable of the block that lies so many blocks outward.
    Local(usize, Local),
    Call(Box<Call>),
    /// A call of a helper whose name another expression gives.
    Named(Box<Expression>),
    /// A call of a helper that there is not.
    Unknown(Box<str>),
    /// Nothing.
    Missing,
}

/// A path to a value.
#[derive(Debug)]
pub(in crate::flow) struct Place {
    /// Where it starts.
    pub(super) from: Origin,
    /// The first name may be the one that a block gives to its item.
    pub(super) may_name_item: bool,
    pub(super) segs: Vec<Seg>,
    /// The steps that it takes to follow it.
    pub(super) steps: u64,
}

/// Where a path starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::flow) enum Origin {
    /// The innermost block.
    Here,
    /// So many blocks outward.
    Outward(usize),
    /// The roots.
    Root,
}

/// A variable that `each` sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::flow) enum Local {
    First,
    Last,
    Index,
    Key,
    /// One that nothing sets.
    Other,
}

/// Compiles the elements of a template. The error says what is wrong with them.
pub(super) fn compile(template: &Template) -> Result<Vec<Element>, String> {
    let mut elements = Vec::with_capacity(template.elements.len());
    for element in &template.elements {
        if let TemplateElement::RawString(text) = element {
            elements.push(Element::Text(text.as_str().into()));
        } else if let Some(call) = super::call_in(element) {
            elements.push(if is_name_only(call) {
                shown(call)?
            } else {
                Element::Call(Box::new(compile_call(call)?))
            });
        } else if !matches!(element, TemplateElement::Comment(_)) {
            return Err("partials and decorators are not supported".to_owned());
        }
    }
    Ok(elements)
}

fn is_name_only(call: &HelperTemplate) -> bool {
    !call.block && call.params.is_empty() && call.hash.is_empty()
}

/// An expression of one name is a helper if there is one of this name, else a value.
fn shown(call: &HelperTemplate) -> Result<Element, String> {
    if call.name.as_name().and_then(Helper::named).is_some() {
        return Ok(Element::Call(Box::new(compile_call(call)?)));
    }
    let shown = expression(&call.name)?;
    Ok(Element::Show(
        if matches!(call.name, Parameter::Subexpression(_)) {
            Expression::Named(Box::new(shown))
        } else {
            shown
        },
    ))
}

fn compile_call(call: &HelperTemplate) -> Result<Call, String> {
    let name = call
        .name
        .as_name()
        .ok_or("a helper's name must be written out")?;
    let helper = Helper::named(name).ok_or_else(|| format!("there is no helper `{name}`"))?;
    let block = |template: &Option<Template>| template.as_ref().map(compile).transpose();
    let (item, key) = names(call.block_param.as_ref());
    Ok(Call {
        helper,
        params: call
            .params
            .iter()
            .map(expression)
            .collect::<Result<_, _>>()?,
        hash: hash(&call.hash)?,
        is_block: call.block,
        body: block(&call.template)?,
        otherwise: block(&call.inverse)?,
        item,
        key,
    })
}

fn hash(hash: &HashMap<String, Parameter>) -> Result<Vec<(Box<str>, Expression)>, String> {
    let mut compiled: Vec<(Box<str>, Expression)> = Vec::with_capacity(hash.len());
    for (name, value) in hash {
        compiled.push((name.as_str().into(), expression(value)?));
    }
    compiled.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(compiled)
}

fn names(names: Option<&BlockParam>) -> (Option<Box<str>>, Option<Box<str>>) {
    match names {
        Some(BlockParam::Single(Parameter::Name(item))) => (Some(item.as_str().into()), None),
        Some(BlockParam::Pair((Parameter::Name(item), Parameter::Name(key)))) => {
            (Some(item.as_str().into()), Some(key.as_str().into()))
        }
        _ => (None, None),
    }
}

fn expression(parameter: &Parameter) -> Result<Expression, String> {
    match parameter {
        Parameter::Literal(value) => Ok(Expression::Literal(value.clone())),
        Parameter::Path(Path::Local((level, name, _))) => {
            Ok(Expression::Local(*level, local(name)))
        }
        Parameter::Path(Path::Relative((segs, _))) => Ok(Expression::Place(place(segs))),
        Parameter::Subexpression(nested) => match super::call_in(nested.as_element()) {
            Some(call) => subexpression(call),
            None => Err("an expression in brackets must be a helper".to_owned()),
        },
        Parameter::Name(_) | _ => Ok(Expression::Missing),
    }
}

fn subexpression(call: &HelperTemplate) -> Result<Expression, String> {
    let Some(name) = call.name.as_name() else {
        return match call.params.is_empty() && call.hash.is_empty() {
            true => Ok(Expression::Named(Box::new(expression(&call.name)?))),
            false => Err("a helper's name must be written out".to_owned()),
        };
    };
    if is_name_only(call) && Helper::named(name).is_none() {
        return Ok(Expression::Unknown(name.into()));
    }
    Ok(Expression::Call(Box::new(compile_call(call)?)))
}

fn local(name: &str) -> Local {
    match name {
        "first" => Local::First,
        "last" => Local::Last,
        "index" => Local::Index,
        "key" => Local::Key,
        _ => Local::Other,
    }
}

/// Steps up come first, then the root or the name that a block may give to its item.
fn place(path: &[PathSeg]) -> Place {
    let rule = |seg: &PathSeg| {
        if let PathSeg::Ruled(rule) = seg {
            format!("{rule:?}")
        } else {
            String::new()
        }
    };
    let ups = path.iter().take_while(|seg| rule(seg) == "path_up").count();
    let first = path.get(ups);
    let from = match first {
        _ if ups > 0 => Origin::Outward(ups),
        Some(seg) if rule(seg) == "path_root" => Origin::Root,
        _ => Origin::Here,
    };
    let named = path.iter().filter_map(super::name_of);
    let segs: Vec<Seg> = named.map(Seg::either).collect();
    let bytes: usize = segs.iter().filter_map(Seg::key).map(str::len).sum();
    Place {
        from,
        may_name_item: first.is_some_and(|seg| super::name_of(seg).is_some()),
        steps: 1 + segs.len() as u64 + bytes as u64 / 64,
        segs,
    }
}
