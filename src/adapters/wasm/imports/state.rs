//! `greentic:state/state-store`: the user's state under this pack and flow. It is read through the turn and written
//! with its commit.

use serde_json::Value;
use wasmtime::StoreContextMut;
use wasmtime::component::Linker;

use super::super::guest::Guest;
use super::super::stored;
use super::types::{Ack, HostError, TenantCtx};
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
    let value = look_up(guest, key).await.ok_or_else(missing)?;
    Ok(stored::to_bytes(&value))
}

/// The value as it is now: what the call wrote itself, else what it has read, else what the turn says.
async fn look_up(guest: &mut Guest, key: &str) -> Option<Value> {
    let state = &mut guest.state;
    if let Some(value) = state.written.get(key).or_else(|| state.read.get(key)) {
        return value.clone();
    }
    let value = state.mailbox.ask(key).await;
    state.read.insert(key.to_owned(), value.clone());
    value
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
    let too_much = || HostError::new("too-large", "the call has written more state than it may");
    state.room = state
        .room
        .checked_sub(bytes.len() + key.len())
        .ok_or_else(too_much)?;
    let value = stored::from_bytes(bytes);
    if crate::model::is_too_deep(&value) {
        return Err(HostError::new("too-large", "the value nests too deeply"));
    }
    state.written.insert(key, Some(value));
    Ok(())
}

fn delete(guest: &mut Guest, key: String, ctx: Option<TenantCtx>) -> Result<(), HostError> {
    let may = guest.declared().state_write;
    admit(guest, may, ctx.as_ref())?;
    let state = &mut guest.state;
    let too_much = || HostError::new("too-large", "the call has written more state than it may");
    state.room = state.room.checked_sub(key.len()).ok_or_else(too_much)?;
    state.written.insert(key, None);
    Ok(())
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
    if look_up(guest, &key).await.is_some() {
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
