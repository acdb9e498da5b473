//! `greentic:oauth-broker/broker-v1` and `greentic:host/kv-v1`: interfaces that there is nothing behind. Both have an
//! answer that means so, and components are written to expect it.

use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::super::guest::Guest;
use crate::telemetry::Capability;

pub(super) const NAMES: &[&str] = &[BROKER, KV];
const BROKER: &str = "greentic:oauth-broker/broker-v1@1.0.0";
const KV: &str = "greentic:host/kv-v1@1.0.0";

type Store<'a> = StoreContextMut<'a, Guest>;

pub(super) fn add(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut broker = linker.instance(BROKER)?;
    broker.func_wrap(
        "get-consent-url",
        |store: Store<'_>, _: (String, String, Vec<String>, String, String)| Ok((none(&store),)),
    )?;
    broker.func_wrap(
        "exchange-code",
        |store: Store<'_>, _: (String, String, String, String)| Ok((none(&store),)),
    )?;
    broker.func_wrap(
        "get-token",
        |store: Store<'_>, _: (String, String, Vec<String>)| Ok((none(&store),)),
    )?;
    let mut kv = linker.instance(KV)?;
    kv.func_wrap("get", |_: Store<'_>, _: (String, String)| {
        Ok((None::<String>,))
    })?;
    kv.func_wrap("put", |_: Store<'_>, _: (String, String, String)| Ok(()))
}

/// The empty text stands for an error.
fn none(store: &Store<'_>) -> String {
    store.data().refused(Capability::Oauth);
    String::new()
}
