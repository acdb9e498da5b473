//! `greentic:secrets-store/secrets-store`: the variables that the operator granted to the pack, read only.

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::super::guest::{Guest, Refusal};
use super::types::LookupError;
use crate::telemetry::Capability;

pub(super) const NAMES: &[&str] = &[V1_0, V1_1];
const V1_0: &str = "greentic:secrets-store/secrets-store@1.0.0";
const V1_1: &str = "greentic:secrets-store/secrets-store@1.1.0";

type Store<'a> = StoreContextMut<'a, Guest>;
type Found = Result<Option<Vec<u8>>, LookupError>;

pub(super) fn add(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    for name in NAMES {
        linker
            .instance(name)?
            .func_wrap("get", |store: Store<'_>, (key,): (String,)| {
                Ok((get(store.data(), &key),))
            })?;
    }
    // It has no way to say no, and a component that believes that its secret is kept would be wrong.
    linker.instance(V1_1)?.func_wrap(
        "put",
        |store: Store<'_>, _: (String, Vec<u8>)| -> wasmtime::Result<()> {
            store.data().refused(Capability::Secrets);
            Err(Refusal("write a secret: there is no store to keep it").into())
        },
    )
}

fn get(guest: &Guest, key: &str) -> Found {
    if !guest.declared().secrets {
        guest.refused(Capability::Secrets);
        return Err(LookupError::Denied);
    }
    if key.trim().is_empty() {
        return Err(LookupError::InvalidKey);
    }
    match guest.call.grants.variable(key) {
        Some(value) => Ok(Some(value.as_bytes().to_vec())),
        None => {
            guest.refused(Capability::Secrets);
            Err(LookupError::NotFound)
        }
    }
}
