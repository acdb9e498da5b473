//! Templates of more than one path: text with paths in it, which is filled in here, and everything else that Handlebars
//! knows. Handlebars reads them when the pack is loaded; what it has read is run here, so that all work is charged for. A
//! template is looked through when it is compiled, so that an unknown name is found then, and so that a run needs to copy
//! only what the template may look at.

mod block;
mod compare;
mod helper;
mod program;
mod render;
mod survey;

use handlebars::template::{HelperTemplate, Parameter, TemplateElement};
use handlebars::{Path, PathSeg, Template, TemplateError, TemplateErrorReason};

use program::Element;
use survey::{MAX_NESTING, nesting, survey};

use crate::flow::budget::{Budget, Excess, MAX_DEPTH};
use crate::flow::path::{NameInArray, Reference, Uses};
use crate::flow::scope::{Scope, Unfound};

/// Longer than any author writes. Handlebars' parser takes time by the product of length and mustaches.
const MAX_BYTES: usize = 64 * 1024;
/// More mustaches than any author writes.
const MAX_MUSTACHES: usize = 500;

/// A compiled template of more than one path.
#[derive(Debug)]
pub(in crate::flow) enum Mustache {
    /// Text with paths in it.
    Pieces(Vec<Piece>),
    /// Anything else, and what it may look at.
    Elements(Vec<Element>, Uses),
}

/// A part of a text with paths in it.
#[derive(Debug)]
pub(in crate::flow) enum Piece {
    /// Itself.
    Text(String),
    /// What is there, as text.
    Place(Reference),
}

/// Why a template cannot be rendered.
#[derive(Debug)]
pub(in crate::flow) enum Unrenderable {
    /// It asks for something that cannot be.
    Reason(String),
    /// It takes or produces too much.
    TooMuch(Excess),
}

impl From<Excess> for Unrenderable {
    fn from(excess: Excess) -> Self {
        match excess {
            Excess::Depth => {
                Self::Reason(format!("its value nests deeper than {MAX_DEPTH} levels"))
            }
            Excess::Bytes
            | Excess::NodeSteps
            | Excess::TurnSteps
            | Excess::Slice
            | Excess::Interrupt => Self::TooMuch(excess),
        }
    }
}

impl From<Unfound> for Unrenderable {
    fn from(unfound: Unfound) -> Self {
        match unfound {
            Unfound::Name(name) => name.into(),
            Unfound::Excess(excess) => excess.into(),
        }
    }
}

impl From<NameInArray> for Unrenderable {
    fn from(NameInArray(name): NameInArray) -> Self {
        Self::Reason(format!(
            "`{name}` is looked up in an array, which has positions only"
        ))
    }
}

impl Mustache {
    /// Compiles a template. The error says what is wrong with it.
    pub(in crate::flow) fn compile(source: &str) -> Result<Self, String> {
        if source.len() > MAX_BYTES {
            let bytes = source.len();
            return Err(format!(
                "it has {bytes} bytes, and a template may have {MAX_BYTES}"
            ));
        }
        if nesting(source) > MAX_NESTING {
            return Err(format!("it nests deeper than {MAX_NESTING} levels"));
        }
        let mustaches = source.matches("{{").count();
        if mustaches > MAX_MUSTACHES {
            return Err(format!(
                "it has {mustaches} mustaches, and a template may have {MAX_MUSTACHES}"
            ));
        }
        let template = Template::compile(source).map_err(|error| fault(&error))?;
        if let Some(pieces) = pieces(&template) {
            return Ok(Self::Pieces(pieces));
        }
        let elements = program::compile(&template)?;
        Ok(Self::Elements(elements, survey(&template)))
    }

    /// What it may look at.
    pub(in crate::flow) fn uses(&self) -> Uses {
        match self {
            Self::Elements(_, uses) => uses.clone(),
            Self::Pieces(pieces) => {
                let mut uses = Uses::default();
                for piece in pieces {
                    if let Piece::Place(place) = piece {
                        uses.note(place);
                    }
                }
                uses
            }
        }
    }

    /// Renders it into a text.
    pub(in crate::flow) fn render(
        &self,
        scope: &Scope<'_>,
        budget: &mut Budget,
    ) -> Result<String, Unrenderable> {
        match self {
            Self::Pieces(pieces) => {
                let mut text = String::new();
                for piece in pieces {
                    match piece {
                        Piece::Text(fixed) => {
                            budget.take(fixed.len())?;
                            text.push_str(fixed);
                        }
                        Piece::Place(place) => {
                            if let Some(value) = scope.find(place, budget)? {
                                render::write(&mut text, &value, budget)?;
                            }
                        }
                    }
                }
                Ok(text)
            }
            Self::Elements(elements, uses) => {
                let data = scope.extract(uses, budget)?;
                render::render(elements, &data, budget)
            }
        }
    }
}

/// The template as text with paths in it, if it is no more than that.
fn pieces(template: &Template) -> Option<Vec<Piece>> {
    let mut pieces = Vec::with_capacity(template.elements.len());
    for element in &template.elements {
        if let TemplateElement::RawString(text) = element {
            pieces.push(Piece::Text(text.clone()));
        } else if let Some(call) = call_in(element) {
            pieces.push(Piece::Place(plain_place(call)?));
        } else if !matches!(element, TemplateElement::Comment(_)) {
            return None;
        }
    }
    Some(pieces)
}

/// What stands between mustaches, if it is an expression or a block.
fn call_in(element: &TemplateElement) -> Option<&HelperTemplate> {
    if let TemplateElement::Expression(call)
    | TemplateElement::HtmlExpression(call)
    | TemplateElement::HelperBlock(call) = element
    {
        Some(call)
    } else {
        None
    }
}

fn plain_place(call: &HelperTemplate) -> Option<Reference> {
    let plain = !call.block && call.params.is_empty() && call.hash.is_empty();
    let Parameter::Path(Path::Relative((segs, _))) = &call.name else {
        return None;
    };
    let names: Option<Vec<&str>> = segs.iter().map(name_of).collect();
    match Reference::from_names(names.filter(|_| plain)?) {
        place @ Reference::At(..) => Some(place),
        Reference::Everything | Reference::Nowhere => None,
    }
}

fn name_of(seg: &PathSeg) -> Option<&str> {
    if let PathSeg::Named(name) = seg {
        Some(name)
    } else {
        None
    }
}

/// What is wrong with a source, without the parser's own words for its grammar.
fn fault(error: &TemplateError) -> String {
    match (error.reason(), error.pos()) {
        (TemplateErrorReason::InvalidSyntax(_), Some((1, column))) => {
            format!("it cannot be read at column {column}")
        }
        (TemplateErrorReason::InvalidSyntax(_), Some((line, column))) => {
            format!("it cannot be read at line {line}, column {column}")
        }
        (reason, _) => reason.to_string(),
    }
}

#[cfg(test)]
mod tests;
