//! `greentic:runtime-config/runtime-config`: the pack's settings that are no secrets.

use serde_json::Value;
use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::super::guest::Guest;
use super::types::LookupError;

pub(super) const NAMES: &[&str] = &["greentic:runtime-config/runtime-config@1.0.0"];

pub(super) fn add(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    for name in NAMES {
        linker.instance(name)?.func_wrap(
            "get",
            |store: StoreContextMut<'_, Guest>, (key,): (String,)| {
                Ok((get(&store.data().call.grants.config, &key),))
            },
        )?;
    }
    Ok(())
}

/// A value as JSON text. A key that is not there is no error: components ask to find out.
fn get(config: &Value, key: &str) -> Result<Option<String>, LookupError> {
    match key.trim().is_empty() {
        true => Err(LookupError::InvalidKey),
        false => Ok(config.get(key).map(Value::to_string)),
    }
}
