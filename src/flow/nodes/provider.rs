//! `provider.invoke`: an operation of a provider that the pack brings along.

use serde_json::Value;

use super::target::fields;
use super::{Call, Outcome, Then};
use crate::flow::draft::Draft;
use crate::flow::error::FlowError;
use crate::flow::template::Mapping;
use crate::flow::visit::Visit;
use crate::model::InvocationForm;

const FIELDS: [&str; 7] = [
    "provider_id",
    "provider_type",
    "op",
    "operation",
    "input",
    "in_map",
    "out_map",
];

/// A compiled `provider.invoke` node.
#[derive(Debug)]
pub(in crate::flow) struct ProviderInvoke {
    id: Option<Mapping>,
    provider_type: Option<Mapping>,
    operation: Mapping,
    input: Mapping,
    in_map: Option<Mapping>,
    out_map: Option<Mapping>,
    /// The component behind the provider, if that is known without a run.
    component: Option<String>,
}

impl ProviderInvoke {
    pub(super) fn compile(mapping: &Value, draft: &mut Draft<'_>) -> Self {
        let fields = fields(mapping, &FIELDS, draft);
        let given = |name: &str| fields.get(name).filter(|value| !value.is_null());
        let operation = given("op").or_else(|| given("operation"));
        if operation
            .is_none_or(|operation| operation.as_str().is_none_or(|op| op.trim().is_empty()))
        {
            draft.error(
                "it does not say what the provider is to do",
                "give it an `op`",
            );
        }
        let mut node = Self {
            id: given("provider_id").map(|id| draft.template(id)),
            provider_type: given("provider_type").map(|name| draft.template(name)),
            operation: draft.template(operation.unwrap_or(&Value::Null)),
            input: draft.template(given("input").unwrap_or(&Value::Null)),
            in_map: given("in_map").map(|map| draft.given_binding(map)),
            out_map: given("out_map").map(|map| draft.given_binding(map)),
            component: None,
        };
        node.component = node.look_up(draft);
        node
    }

    /// Finds the component where the provider's name is no template. What the pack lacks is told.
    fn look_up(&self, draft: &mut Draft<'_>) -> Option<String> {
        let named = [&self.id, &self.provider_type];
        let is_fixed =
            |name: &&Option<Mapping>| name.as_ref().is_none_or(|name| name.as_literal().is_some());
        if !named.iter().all(is_fixed) {
            return None;
        }
        let [id, provider_type] = named.map(|name| name.as_ref()?.as_literal());
        let found = draft.inventory().provider(id, provider_type).cloned();
        match found {
            Ok(provider) if draft.inventory().components.contains(&provider.component) => {
                return Some(provider.component);
            }
            Ok(provider) => draft.error(
                format!(
                    "its provider `{}` is component `{}`, which the pack lacks",
                    provider.provider_type, provider.component
                ),
                "add the component to the pack",
            ),
            Err(reason) => draft.error(
                reason,
                "give it the `provider_type` of a provider of the pack",
            ),
        }
        None
    }

    /// The component that it calls, if that is known.
    pub(in crate::flow) fn component(&self) -> Option<&str> {
        self.component.as_deref()
    }

    pub(super) fn run(&self, visit: &mut Visit<'_>) -> Result<Outcome, FlowError> {
        let component = match &self.component {
            Some(component) => component.clone(),
            None => self.find(visit)?,
        };
        let operation = text(&self.operation, visit)?
            .ok_or_else(|| visit.invalid("its `op` came out empty, or as no text"))?;
        let input = visit.render(&self.input)?;
        let payload = match &self.in_map {
            Some(map) => visit.render_given(map, &input)?,
            None => input,
        };
        Ok(Outcome::Invoke(Call {
            component,
            operation,
            payload,
            form: InvocationForm::Provider,
        }))
    }

    fn find(&self, visit: &mut Visit<'_>) -> Result<String, FlowError> {
        let optional = |name: &Option<Mapping>, visit: &mut Visit<'_>| match name {
            Some(name) => text(name, visit),
            None => Ok(None),
        };
        let id = optional(&self.id, visit)?;
        let provider_type = optional(&self.provider_type, visit)?;
        let inventory = &visit.program.inventory;
        let looked_through = visit.budget.step(inventory.providers.len() as u64);
        looked_through.map_err(|excess| visit.stopped(excess))?;
        match inventory.provider(id.as_deref(), provider_type.as_deref()) {
            Ok(provider) => Ok(provider.component.clone()),
            Err(reason) => Err(visit.invalid(reason)),
        }
    }

    /// What the node comes to when the provider has answered.
    pub(super) fn answered(
        &self,
        visit: &mut Visit<'_>,
        answer: &mut Value,
    ) -> Result<Outcome, FlowError> {
        let output = match &self.out_map {
            Some(map) => visit.render_given(map, answer)?,
            None => std::mem::take(answer),
        };
        Ok(Outcome::Done {
            output: output.into(),
            then: Then::Continue,
        })
    }
}

/// A text that is not empty.
fn text(name: &Mapping, visit: &mut Visit<'_>) -> Result<Option<String>, FlowError> {
    let rendered = visit.render(name)?;
    let text = rendered.as_str().map(str::trim);
    Ok(text.filter(|text| !text.is_empty()).map(str::to_owned))
}
