//! `greentic:component/component-runtime@0.6.0`: for components that export no node interface. CBOR of what the JSON
//! interfaces get, and an empty state, which does not outlive the call.

use std::sync::Arc;

use serde_json::json;
use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, ComponentType, Instance, Lift};

use super::super::guest::Guest;
use super::envelope;
use super::output::{Output, Raw, to_cbor};
use super::typed;

#[derive(ComponentType, Lift)]
#[component(record)]
struct RunResult {
    output: Vec<u8>,
    #[expect(dead_code, reason = "it ends with the call")]
    #[component(name = "new-state")]
    new_state: Vec<u8>,
}

pub(super) async fn run(
    store: &mut Store<Guest>,
    instance: &Instance,
    function: &ComponentExportIndex,
) -> wasmtime::Result<Output> {
    let call = Arc::clone(&store.data().call);
    let input = to_cbor(&envelope::input(&call)?)?;
    let state = to_cbor(&json!({}))?;
    let function = typed::<(&[u8], &[u8]), (RunResult,)>(store, instance, function)?;
    let (result,) = function.call_async(store, (&input, &state)).await?;
    Ok(Output::Answer(Raw::Cbor(result.output)))
}
