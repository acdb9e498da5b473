//! A component's call: `component.exec`, or a node that goes by the component's own name.

use serde_json::Value;

use super::name::{Called, operation_in};
use super::target::without;
use super::{Call, Outcome, Then};
use crate::flow::card;
use crate::flow::control::{self, Control};
use crate::flow::draft::Draft;
use crate::flow::error::FlowError;
use crate::flow::invocation;
use crate::flow::output::{Failure, Output};
use crate::flow::template::Mapping;
use crate::flow::visit::Visit;
use crate::model::InvocationForm;

/// What of a mapping is no input: the machine's own words.
const OWN_WORDS: [&str; 2] = ["vars_out", "response_timeout_secs"];

/// A compiled call of a component.
#[derive(Debug)]
pub(in crate::flow) struct Component {
    /// The component, as the pack names it.
    name: String,
    /// What it is asked to do; else the mapping says it.
    operation: Option<String>,
    mapping: Mapping,
    form: Form,
}

/// How the mapping says what the component is called with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// As fields of a call.
    Exec,
    /// As the input itself. A node that takes routes shows the card that a button names.
    Direct { takes_routes: bool },
}

impl Component {
    /// Compiles a `component.exec` node.
    pub(super) fn exec(called: Called<'_>, mapping: &Value, draft: &mut Draft<'_>) -> Self {
        Self::compile(called, Form::Exec, mapping, draft)
    }

    /// Compiles a node that goes by the component's name.
    pub(super) fn direct(called: Called<'_>, mapping: &Value, draft: &mut Draft<'_>) -> Self {
        let takes_routes = card::takes_routes(called.component);
        Self::compile(called, Form::Direct { takes_routes }, mapping, draft)
    }

    fn compile(called: Called<'_>, form: Form, mapping: &Value, draft: &mut Draft<'_>) -> Self {
        let operation = called.operation.or_else(|| operation_in(mapping));
        let name = draft.inventory().component(called.component, operation);
        match (name, operation) {
            (None, _) => refuse(called.component, draft),
            (Some(_), None) => draft.error(
                format!(
                    "it does not say what component `{}` is to do",
                    called.component
                ),
                "give it an `operation`",
            ),
            (Some(_), Some(_)) => {}
        }
        warn_of_absent_card(mapping, draft);
        Self {
            name: name.unwrap_or(called.component).to_owned(),
            operation: called.operation.map(str::to_owned),
            mapping: draft.template(&without(mapping, &OWN_WORDS)),
            form,
        }
    }

    /// The component that it calls.
    pub(in crate::flow) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn run(&self, visit: &mut Visit<'_>) -> Result<Outcome, FlowError> {
        let mut mapping = visit.render(&self.mapping)?;
        let operation = self.operation.as_deref().or_else(|| operation_in(&mapping));
        let Some(operation) = operation.map(str::to_owned) else {
            return Err(visit.invalid("its `operation` came out empty, or as no text"));
        };
        let entry = visit.scope.entry;
        let (mut input, config) = match self.form {
            Form::Exec => invocation::of_exec(mapping),
            Form::Direct { takes_routes } => {
                if takes_routes {
                    card::route(&mut mapping, entry);
                }
                invocation::of_direct(mapping)
            }
        };
        let parts = (&visit.program.inventory.assets, &mut *visit.budget);
        let completed = card::complete(&mut input, &config, entry, parts);
        completed.map_err(|excess| visit.stopped(excess))?;
        let (payload, form) = if card::is_card(&input) {
            (input, InvocationForm::Card)
        } else {
            (invocation::payload(input), InvocationForm::Node)
        };
        Ok(Outcome::Invoke(Call {
            component: self.name.clone(),
            operation,
            payload: invocation::with_config(payload, config),
            form,
        }))
    }

    /// What the node comes to when the component has answered.
    pub(super) fn answered(
        &self,
        visit: &mut Visit<'_>,
        answer: &mut Value,
    ) -> Result<Outcome, FlowError> {
        let output = match Failure::read(std::mem::take(answer)) {
            Err(value) => Output::of_component(value),
            Ok(failure) if visit.catches_errors() => failure.into_output(),
            Ok(failure) => return Err(visit.refused(&self.name, failure)),
        };
        let control = control::read(&output.payload);
        match control.map_err(|reason| visit.misanswered(reason))? {
            None => Ok(Outcome::Done {
                output,
                then: Then::Continue,
            }),
            Some(Control::Respond(said)) => Ok(Outcome::Done {
                output,
                then: Then::Respond(said),
            }),
            Some(Control::Jump(jump)) => {
                let jump = jump.resolve(visit)?;
                Ok(Outcome::Done {
                    output: Output::with_meta(jump.payload, jump.hints),
                    then: Then::Jump(jump.to),
                })
            }
        }
    }
}

/// Says that a component is not there.
fn refuse(name: &str, draft: &mut Draft<'_>) {
    let names = draft.inventory().component_names();
    let remedy = if names.is_empty() {
        "add the component to the pack".to_owned()
    } else {
        format!("add it to the pack, or call one of its components: {names}")
    };
    draft.error(
        format!("it calls component `{name}`, which the pack lacks"),
        remedy,
    );
}

fn warn_of_absent_card(mapping: &Value, draft: &mut Draft<'_>) {
    let places = [
        "/config/default_card_asset",
        "/card_spec/asset_path",
        "/input/card_spec/asset_path",
    ];
    let paths = places
        .into_iter()
        .filter_map(|place| mapping.pointer(place)?.as_str());
    for path in paths.map(str::trim) {
        let is_fixed = !path.is_empty() && !path.contains("{{");
        if is_fixed && draft.inventory().assets.json(path).is_none() {
            draft.warn(
                format!("its card `{path}` is not in the pack, or is no JSON"),
                "add the file below `assets/`, or correct the path",
            );
        }
    }
}
