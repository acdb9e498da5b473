//! `greentic:component/node@0.4.0` and `@0.5.0`: JSON text in, JSON text out. They differ in what they are told of the
//! tenant.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, ComponentType, Instance, Lift, Lower};

use super::super::guest::Guest;
use super::caller::Caller;
use super::envelope;
use super::output::{Output, Raw};
use super::typed;

#[derive(ComponentType, Lower)]
#[component(record)]
struct TenantCtx04<'a> {
    tenant: &'a str,
    team: Option<&'a str>,
    user: Option<&'a str>,
    #[component(name = "trace-id")]
    trace_id: Option<&'a str>,
    #[component(name = "correlation-id")]
    correlation_id: Option<&'a str>,
    #[component(name = "deadline-unix-ms")]
    deadline_unix_ms: Option<u64>,
    attempt: u32,
    #[component(name = "idempotency-key")]
    idempotency_key: Option<&'a str>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct ExecCtx04<'a> {
    tenant: TenantCtx04<'a>,
    #[component(name = "flow-id")]
    flow_id: &'a str,
    #[component(name = "node-id")]
    node_id: Option<&'a str>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Impersonation<'a> {
    #[component(name = "actor-id")]
    actor_id: &'a str,
    reason: Option<&'a str>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct TenantCtx05<'a> {
    env: &'a str,
    tenant: &'a str,
    #[component(name = "tenant-id")]
    tenant_id: &'a str,
    team: Option<&'a str>,
    #[component(name = "team-id")]
    team_id: Option<&'a str>,
    user: Option<&'a str>,
    #[component(name = "user-id")]
    user_id: Option<&'a str>,
    #[component(name = "trace-id")]
    trace_id: Option<&'a str>,
    #[component(name = "i18n-id")]
    i18n_id: Option<&'a str>,
    #[component(name = "correlation-id")]
    correlation_id: Option<&'a str>,
    attributes: Vec<(String, String)>,
    #[component(name = "session-id")]
    session_id: Option<&'a str>,
    #[component(name = "flow-id")]
    flow_id: Option<&'a str>,
    #[component(name = "node-id")]
    node_id: Option<&'a str>,
    #[component(name = "provider-id")]
    provider_id: Option<&'a str>,
    #[component(name = "deadline-ms")]
    deadline_ms: Option<i64>,
    attempt: u32,
    #[component(name = "idempotency-key")]
    idempotency_key: Option<&'a str>,
    impersonation: Option<Impersonation<'a>>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct ExecCtx05<'a> {
    tenant: TenantCtx05<'a>,
    #[component(name = "i18n-id")]
    i18n_id: Option<&'a str>,
    #[component(name = "flow-id")]
    flow_id: &'a str,
    #[component(name = "node-id")]
    node_id: Option<&'a str>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct NodeError {
    code: String,
    message: String,
    retryable: bool,
    #[component(name = "backoff-ms")]
    backoff_ms: Option<u64>,
    details: Option<String>,
}

#[derive(ComponentType, Lift)]
#[component(variant)]
enum InvokeResult {
    #[component(name = "ok")]
    Ok(String),
    #[component(name = "err")]
    Err(NodeError),
}

pub(super) async fn invoke_0_4(
    store: &mut Store<Guest>,
    instance: &Instance,
    function: &ComponentExportIndex,
) -> wasmtime::Result<Output> {
    let call = Arc::clone(&store.data().call);
    let caller = Caller::of(call.caller.as_ref()).unwrap_or_default();
    let ctx = ExecCtx04 {
        tenant: TenantCtx04 {
            tenant: call.tenant.as_str(),
            team: caller.team.as_deref().or(call.team.as_deref()),
            user: caller.sub.as_deref(),
            trace_id: None,
            correlation_id: Some(&call.session),
            deadline_unix_ms: None,
            attempt: call.attempt,
            idempotency_key: Some(&call.idempotency_key),
        },
        flow_id: call.invocation.flow.as_str(),
        node_id: Some(&call.invocation.node),
    };
    invoke(store, instance, function, ctx).await
}

pub(super) async fn invoke_0_5(
    store: &mut Store<Guest>,
    instance: &Instance,
    function: &ComponentExportIndex,
) -> wasmtime::Result<Output> {
    let call = Arc::clone(&store.data().call);
    let caller = Caller::of(call.caller.as_ref());
    let attributes = caller.as_ref().map(Caller::attributes).unwrap_or_default();
    let user = caller.as_ref().and_then(|caller| caller.sub.as_deref());
    let team = caller.as_ref().and_then(|caller| caller.team.as_deref());
    let team = team.or(call.team.as_deref());
    let (flow, node) = (call.invocation.flow.as_str(), call.invocation.node.as_str());
    let ctx = ExecCtx05 {
        tenant: TenantCtx05 {
            env: &call.env,
            tenant: call.tenant.as_str(),
            tenant_id: call.tenant.as_str(),
            team,
            team_id: team,
            user,
            user_id: user,
            trace_id: None,
            i18n_id: None,
            correlation_id: Some(&call.session),
            attributes: attributes.into_iter().collect(),
            session_id: Some(&call.session),
            flow_id: Some(flow),
            node_id: Some(node),
            provider_id: None,
            deadline_ms: None,
            attempt: call.attempt,
            idempotency_key: Some(&call.idempotency_key),
            impersonation: None,
        },
        i18n_id: None,
        flow_id: flow,
        node_id: Some(node),
    };
    invoke(store, instance, function, ctx).await
}

async fn invoke<C: ComponentType + Lower>(
    store: &mut Store<Guest>,
    instance: &Instance,
    function: &ComponentExportIndex,
    ctx: C,
) -> wasmtime::Result<Output> {
    let call = Arc::clone(&store.data().call);
    let input = envelope::input(&call)?.to_string();
    let function = typed::<(C, &str, &str), (InvokeResult,)>(store, instance, function)?;
    let operation = call.invocation.operation.as_str();
    let (result,) = function.call_async(store, (ctx, operation, &input)).await?;
    Ok(output(result))
}

fn output(result: InvokeResult) -> Output {
    let json = |text: String| Raw::Json(text.into_bytes());
    match result {
        InvokeResult::Ok(text) => Output::Answer(json(text)),
        InvokeResult::Err(error) => Output::Error {
            code: error.code,
            message: error.message,
            retryable: error.retryable,
            backoff_ms: error.backoff_ms,
            details: error.details.map(json),
        },
    }
}
