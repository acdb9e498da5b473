//! Looks through a compiled template before it ever runs.

use std::collections::HashMap;

use handlebars::template::{HelperTemplate, Parameter, TemplateElement};
use handlebars::{Path, RenderErrorReason, Template};
use serde_json::Value;

use super::{HELPERS, call_in, name_of};
use crate::flow::path::{Reference, Uses};

/// Deeper nesting than any author writes, and shallower than what a parser's stack takes.
pub(super) const MAX_NESTING: usize = 64;

/// Looks through a template: what it may look at, or what is wrong with it.
pub(super) fn survey(template: &Template) -> Result<Uses, String> {
    let mut survey = Survey::default();
    survey.template(template, false);
    match survey.fault {
        Some(fault) => Err(fault),
        None => Ok(survey.uses.without_nested()),
    }
}

#[derive(Default)]
struct Survey {
    uses: Uses,
    fault: Option<String>,
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
        } else if !matches!(
            element,
            TemplateElement::RawString(_) | TemplateElement::Comment(_)
        ) {
            self.fault_once("partials and decorators are not supported".to_owned());
        }
    }

    fn call(&mut self, call: &HelperTemplate, inside: bool) {
        let is_call = call.block || !call.params.is_empty() || !call.hash.is_empty();
        if is_call {
            self.helper(&call.name);
        } else {
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

    fn helper(&mut self, name: &Parameter) {
        let Some(name) = name.as_name() else {
            return self.fault_once("a helper's name must be written out".to_owned());
        };
        let probe = HELPERS.render_template(&format!("{{{{{name} null}}}}"), &Value::Null);
        if let Err(error) = probe
            && matches!(error.reason(), RenderErrorReason::HelperNotFound(_))
        {
            self.fault_once(format!("there is no helper `{name}`"));
        }
    }

    fn fault_once(&mut self, fault: String) {
        self.fault.get_or_insert(fault);
    }
}

/// How deep brackets and blocks may be nested in a source, at the most.
pub(super) fn nesting(source: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    for byte in source.bytes() {
        match byte {
            b'(' | b'[' => depth += 1,
            b')' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    let (mut blocks, mut open) = (0_usize, 0);
    for (at, _) in source.match_indices("{{") {
        match source[at..]
            .trim_start_matches(['{', '~', ' '])
            .bytes()
            .next()
        {
            Some(b'#') => open += 1,
            Some(b'/') => open -= usize::from(open > 0),
            _ => {}
        }
        blocks = blocks.max(open);
    }
    let braces = source.split(|c| c != '{').map(str::len).max().unwrap_or(0);
    deepest.max(blocks).max(braces)
}
