//! `greentic:component/node@0.6.0`: CBOR in, CBOR out. Components export it with or without `describe`; only `invoke` is
//! called.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, ComponentType, Instance, Lift, Lower};

use super::super::guest::Guest;
use super::caller::Caller;
use super::output::{Output, Raw, to_cbor};
use super::typed;

#[derive(ComponentType, Lower)]
#[component(record)]
struct TenantCtx<'a> {
    #[component(name = "tenant-id")]
    tenant_id: &'a str,
    #[component(name = "team-id")]
    team_id: Option<&'a str>,
    #[component(name = "user-id")]
    user_id: Option<&'a str>,
    #[component(name = "env-id")]
    env_id: &'a str,
    #[component(name = "trace-id")]
    trace_id: &'a str,
    #[component(name = "correlation-id")]
    correlation_id: &'a str,
    #[component(name = "deadline-ms")]
    deadline_ms: u64,
    attempt: u32,
    #[component(name = "idempotency-key")]
    idempotency_key: Option<&'a str>,
    #[component(name = "i18n-id")]
    i18n_id: &'a str,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct Envelope<'a> {
    ctx: TenantCtx<'a>,
    #[component(name = "flow-id")]
    flow_id: &'a str,
    #[component(name = "step-id")]
    step_id: &'a str,
    #[component(name = "component-id")]
    component_id: &'a str,
    attempt: u32,
    #[component(name = "payload-cbor")]
    payload_cbor: &'a [u8],
    #[component(name = "metadata-cbor")]
    metadata_cbor: Option<&'a [u8]>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct InvocationResult {
    ok: bool,
    #[component(name = "output-cbor")]
    output_cbor: Vec<u8>,
    #[expect(dead_code, reason = "no flow can see it")]
    #[component(name = "output-metadata-cbor")]
    output_metadata_cbor: Option<Vec<u8>>,
}

#[derive(ComponentType, Lift)]
#[component(record)]
struct NodeError {
    code: String,
    message: String,
    retryable: bool,
    #[component(name = "backoff-ms")]
    backoff_ms: Option<u64>,
    details: Option<Vec<u8>>,
}

pub(super) async fn invoke(
    store: &mut Store<Guest>,
    instance: &Instance,
    function: &ComponentExportIndex,
) -> wasmtime::Result<Output> {
    let call = Arc::clone(&store.data().call);
    let invocation = &call.invocation;
    let caller = Caller::of(call.caller.as_ref());
    let payload = to_cbor(&invocation.payload)?;
    let metadata = match &caller {
        Some(caller) => Some(to_cbor(&caller.attributes())?),
        None => None,
    };
    let team = caller.as_ref().and_then(|caller| caller.team.as_deref());
    let envelope = Envelope {
        ctx: TenantCtx {
            tenant_id: call.tenant.as_str(),
            team_id: team.or(call.team.as_deref()),
            user_id: caller.as_ref().and_then(|caller| caller.sub.as_deref()),
            env_id: &call.env,
            trace_id: "",
            correlation_id: &call.session,
            deadline_ms: u64::MAX,
            attempt: call.attempt,
            idempotency_key: Some(&call.idempotency_key),
            i18n_id: "",
        },
        flow_id: invocation.flow.as_str(),
        step_id: &invocation.node,
        component_id: &invocation.component,
        attempt: call.attempt,
        payload_cbor: &payload,
        metadata_cbor: metadata.as_deref(),
    };
    let function = typed::<(&str, Envelope<'_>), (Result<InvocationResult, NodeError>,)>(
        store, instance, function,
    )?;
    let operation = invocation.operation.as_str();
    let (result,) = function.call_async(store, (operation, envelope)).await?;
    Ok(match result {
        Ok(result) if result.ok => Output::Answer(Raw::Cbor(result.output_cbor)),
        Ok(result) => Output::Failure(Raw::Cbor(result.output_cbor)),
        Err(error) => Output::Error {
            code: error.code,
            message: error.message,
            retryable: error.retryable,
            backoff_ms: error.backoff_ms,
            details: error.details.map(Raw::Cbor),
        },
    })
}
