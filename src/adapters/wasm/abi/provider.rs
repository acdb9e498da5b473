//! The schema-core interface of providers: JSON bytes in, JSON bytes out.

use std::sync::Arc;

use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, Instance};

use super::super::guest::Guest;
use super::output::{Output, Raw};
use super::typed;

pub(super) async fn invoke(
    store: &mut Store<Guest>,
    instance: &Instance,
    function: &ComponentExportIndex,
) -> wasmtime::Result<Output> {
    let call = Arc::clone(&store.data().call);
    let input = serde_json::to_vec(&call.invocation.payload)?;
    let function = typed::<(&str, &[u8]), (Vec<u8>,)>(store, instance, function)?;
    let operation = call.invocation.operation.as_str();
    let (output,) = function.call_async(store, (operation, &input)).await?;
    Ok(Output::Answer(Raw::Json(output)))
}
