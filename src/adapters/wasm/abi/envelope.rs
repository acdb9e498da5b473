//! The JSON envelope around the payload of interfaces that take JSON text.

use greentic_types::{InvocationEnvelope, TeamId, TenantCtx, UserId};
use serde_json::Value;

use super::caller::Caller;
use crate::model::InvocationForm;
use crate::ports::ComponentCall;

/// What such an interface is given: a card as it is, anything else in an envelope with the payload as bytes.
pub(super) fn input(call: &ComponentCall) -> wasmtime::Result<Value> {
    let invocation = &call.invocation;
    match invocation.form {
        InvocationForm::Card => Ok(invocation.payload.clone()),
        InvocationForm::Node | InvocationForm::Provider => {
            Ok(serde_json::to_value(envelope(call)?)?)
        }
    }
}

fn envelope(call: &ComponentCall) -> wasmtime::Result<InvocationEnvelope> {
    let invocation = &call.invocation;
    Ok(InvocationEnvelope {
        ctx: tenant_ctx(call)?,
        flow_id: invocation.flow.to_string(),
        node_id: Some(invocation.node.clone()),
        op: invocation.operation.clone(),
        payload: serde_json::to_vec(&invocation.payload)?,
        metadata: b"null".to_vec(),
    })
}

fn tenant_ctx(call: &ComponentCall) -> wasmtime::Result<TenantCtx> {
    let invocation = &call.invocation;
    let mut ctx = TenantCtx::new(call.env.parse()?, call.tenant.clone())
        .with_flow(invocation.flow.to_string())
        .with_node(invocation.node.clone())
        .with_session(call.session.clone())
        .with_attempt(call.attempt);
    if let Some(caller) = Caller::of(call.caller.as_ref()) {
        // Names that are no identifiers stand among the attributes only.
        let user = caller
            .sub
            .as_deref()
            .and_then(|sub| sub.parse::<UserId>().ok());
        let team = caller
            .team
            .as_deref()
            .and_then(|team| team.parse::<TeamId>().ok());
        ctx = ctx.with_user(user).with_team(team);
        ctx.attributes.extend(caller.attributes());
    }
    Ok(ctx)
}
