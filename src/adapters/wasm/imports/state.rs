//! `greentic:state/state-store`: the user's state under this pack and flow. It is read through the turn and written
//! with its commit.

use serde_json::Value;
use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::super::guest::Guest;
use super::super::stored;
use super::types::{Ack, HostError, TenantCtx};
use crate::model::StateExcess;
use crate::telemetry::Capability;

pub(super) const NAMES: &[&str] = &[V1_0, V1_1];
const V1_0: &str = "greentic:state/state-store@1.0.0";
const V1_1: &str = "greentic:state/state-store@1.1.0";

type Store<'a> = StoreContextMut<'a, Guest>;

pub(super) fn add(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    for name in NAMES {
        let mut instance = linker.instance(name)?;
        instance.func_wrap_async(
            "read",
            |mut store: Store<'_>, (key, ctx): (String, Option<TenantCtx>)| {
                Box::new(async move { Ok((read(store.data_mut(), &key, ctx).await,)) })
            },
        )?;
        instance.func_wrap(
            "write",
            |mut store: Store<'_>, (key, bytes, ctx): (String, Vec<u8>, Option<TenantCtx>)| {
                let guest = store.data_mut();
                Ok((write(guest, key, &bytes, ctx).map(|()| Ack::Ok),))
            },
        )?;
        instance.func_wrap(
            "delete",
            |mut store: Store<'_>, (key, ctx): (String, Option<TenantCtx>)| {
                Ok((delete(store.data_mut(), key, ctx).map(|()| Ack::Ok),))
            },
        )?;
    }
    linker.instance(V1_1)?.func_wrap_async(
        "write-if-absent",
        |mut store: Store<'_>, (key, bytes, ctx): (String, Vec<u8>, Option<TenantCtx>)| {
            Box::new(
                async move { Ok((write_if_absent(store.data_mut(), key, &bytes, ctx).await,)) },
            )
        },
    )
}

async fn read(guest: &mut Guest, key: &str, ctx: Option<TenantCtx>) -> Result<Vec<u8>, HostError> {
    let may = guest.declared().state_read;
    admit(guest, may, ctx.as_ref())?;
    let missing = || HostError::new("not_found", "state key not found");
    look_up(guest, key, stored::to_bytes)
        .await?
        .ok_or_else(missing)
}

/// Sees the value as it is now, if there is one: what the call wrote itself, else what it has read, else what the turn says.
async fn look_up<T>(
    guest: &mut Guest,
    key: &str,
    see: impl FnOnce(&Value) -> T,
) -> Result<Option<T>, HostError> {
    let state = &mut guest.state;
    if let Some(value) = state.written(key) {
        return Ok(value.map(see));
    }
    if let Some(value) = state.read.get(key) {
        return Ok(value.as_deref().map(see));
    }
    // Before it goes anywhere: a guest asks for as many keys as it likes, each as long as it likes.
    state.asks.take_key(key).map_err(too_large)?;
    let value = state.mailbox.ask(key).await.map_err(too_large)?;
    let seen = value.as_deref().map(see);
    state.read.insert(key.to_owned(), value);
    Ok(seen)
}

fn write(
    guest: &mut Guest,
    key: String,
    bytes: &[u8],
    ctx: Option<TenantCtx>,
) -> Result<(), HostError> {
    let may = guest.declared().state_write;
    admit(guest, may, ctx.as_ref())?;
    let state = &mut guest.state;
    // What has more bytes than any turn may write is not even parsed.
    if bytes.len() > state.room.max_value_bytes() {
        return Err(too_large(state.room.too_large()));
    }
    let value = stored::from_bytes(bytes);
    if crate::model::is_too_deep(&value) {
        return Err(HostError::new("too-large", "the value nests too deeply"));
    }
    state.write(key, Some(value)).map_err(too_large)
}

fn delete(guest: &mut Guest, key: String, ctx: Option<TenantCtx>) -> Result<(), HostError> {
    let may = guest.declared().state_write;
    admit(guest, may, ctx.as_ref())?;
    guest.state.write(key, None).map_err(too_large)
}

/// The interface has errors, so a limit is one: a component may do with less.
fn too_large(excess: StateExcess) -> HostError {
    HostError::new("too-large", excess.to_string())
}

/// Atomic because the turn's commit is: it applies only if what was read is unchanged.
async fn write_if_absent(
    guest: &mut Guest,
    key: String,
    bytes: &[u8],
    ctx: Option<TenantCtx>,
) -> Result<bool, HostError> {
    let may = guest.declared().state_write;
    admit(guest, may, ctx.as_ref())?;
    if look_up(guest, &key, |_| ()).await?.is_some() {
        return Ok(false);
    }
    write(guest, key, bytes, None).map(|()| true)
}

/// The interface has errors, so a refusal is one: a component may do without.
fn admit(guest: &Guest, may: bool, ctx: Option<&TenantCtx>) -> Result<(), HostError> {
    let foreign = ctx.is_some_and(|ctx| ctx.is_foreign_to(guest.call.tenant.as_str()));
    if may && !foreign {
        return Ok(());
    }
    guest.refused(Capability::State);
    let why = match foreign {
        true => "another tenant's state is out of reach",
        false => "the pack's manifest does not declare this access to state",
    };
    Err(HostError::new("denied", why))
}
