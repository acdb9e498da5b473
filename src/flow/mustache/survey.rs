//! Looks through a compiled template before it ever runs.

use std::collections::HashMap;

use handlebars::template::{HelperTemplate, Parameter, TemplateElement};
use handlebars::{Path, Template};

use super::{call_in, name_of};
use crate::flow::path::{Reference, Uses};

/// Deeper nesting than any author writes, and shallower than what a parser's stack takes.
pub(super) const MAX_NESTING: usize = 64;

/// Looks through a template for what it may look at.
pub(super) fn survey(template: &Template) -> Uses {
    let mut survey = Survey::default();
    survey.template(template, false);
    survey.uses.without_nested()
}

#[derive(Default)]
struct Survey {
    uses: Uses,
}

impl Survey {
    /// `inside` tells that the template may stand in the block of a helper that changes what `this` is.
    fn template(&mut self, template: &Template, inside: bool) {
        for element in &template.elements {
            self.element(element, inside);
        }
    }

    fn element(&mut self, element: &TemplateElement, inside: bool) {
        if let Some(call) = call_in(element) {
            self.call(call, inside);
        }
    }

    fn call(&mut self, call: &HelperTemplate, inside: bool) {
        let is_call = call.block || !call.params.is_empty() || !call.hash.is_empty();
        if !is_call {
            self.parameter(&call.name, inside);
        }
        self.parameters(&call.params, &call.hash, inside);
        let changes_this = matches!(call.name.as_name(), Some("each" | "with"));
        if let Some(block) = &call.template {
            self.template(block, inside || changes_this);
        }
        if let Some(otherwise) = &call.inverse {
            self.template(otherwise, inside);
        }
    }

    fn parameters(
        &mut self,
        params: &[Parameter],
        hash: &HashMap<String, Parameter>,
        inside: bool,
    ) {
        for parameter in params.iter().chain(hash.values()) {
            self.parameter(parameter, inside);
        }
    }

    fn parameter(&mut self, parameter: &Parameter, inside: bool) {
        match parameter {
            Parameter::Path(path) => self.path(path, inside),
            Parameter::Subexpression(nested) => self.element(nested.as_element(), inside),
            Parameter::Name(_) | Parameter::Literal(_) => {}
            _ => self.uses.everything = true,
        }
    }

    /// Inside a block, a path may start at the block's item, which the block's parameter stands for, or at the roots.
    fn path(&mut self, path: &Path, inside: bool) {
        let Path::Relative((segs, _)) = path else {
            self.uses.everything |= matches!(path, Path::Local((_, name, _)) if name == "root");
            return;
        };
        let climbs = segs.iter().any(|seg| name_of(seg).is_none());
        match Reference::from_names(segs.iter().filter_map(name_of)) {
            Reference::Everything if inside && !climbs => {}
            place @ (Reference::Everything | Reference::At(..) | Reference::Nowhere) => {
                self.uses.note(&place);
            }
        }
    }
}

/// How deep brackets and blocks may be nested in a source, at the most. Of a chain of `else if`, four count as one.
pub(super) fn nesting(source: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    deepest.max(blocks(source))
}

/// How deep blocks may be nested.
fn blocks(source: &str) -> usize {
    // The links of the chains of the blocks that are open, and of all of them.
    let (mut open, mut links, mut deepest) = (Vec::<usize>::new(), 0, 0);
    let bytes = source.as_bytes();
    let mut opened = false;
    for (at, pair) in bytes.windows(2).enumerate() {
        opened |= pair == b"{{";
        if !opened || matches!(pair[0], b'{' | b'~' | b' ' | b'\t' | b'\r' | b'\n') {
            continue;
        }
        opened = false;
        match pair[0] {
            b'#' => open.push(0),
            b'/' => links -= open.pop().unwrap_or(0),
            _ if continues(&bytes[at..]) => {
                if let Some(chain) = open.last_mut() {
                    *chain += 1;
                    links += 1;
                }
            }
            _ => {}
        }
        deepest = deepest.max(open.len() + links / 4);
    }
    deepest
}

/// Returns whether a mustache that begins so is an `else` with a condition of its own.
fn continues(mustache: &[u8]) -> bool {
    let word = mustache.strip_prefix(b"else");
    let after = word.or_else(|| mustache.strip_prefix(b"^"));
    after.is_some_and(|after| {
        !after.trim_ascii_start().starts_with(b"}") && !after.trim_ascii_start().starts_with(b"~")
    })
}
