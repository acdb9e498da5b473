//! `greentic:telemetry`: what components tell of themselves goes to the log at debug level, never louder: it may be what
//! a user wrote.

use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, Lift, Linker, Val};

use super::super::guest::Guest;
use super::types::{Ack, HostError, TenantCtx};
use crate::model::{PAYLOAD_LOG, Redaction, cut_line};

pub(super) const NAMES: &[&str] = &[LOGGER, LOGGING];
const LOGGER: &str = "greentic:telemetry/logger-api@1.0.0";
const LOGGING: &str = "greentic:telemetry/logging";

/// The most fields that are logged of one entry.
const MOST_FIELDS: usize = 64;
/// The most characters of a field's value.
const MOST_CHARS: usize = 1024;

#[derive(ComponentType, Lift)]
#[component(record)]
#[expect(dead_code, reason = "the worker knows all of it better")]
struct SpanContext {
    tenant: String,
    #[component(name = "session-id")]
    session_id: Option<String>,
    #[component(name = "flow-id")]
    flow_id: String,
    #[component(name = "node-id")]
    node_id: Option<String>,
    provider: String,
    #[component(name = "start-ms")]
    start_ms: Option<i64>,
    #[component(name = "end-ms")]
    end_ms: Option<i64>,
}

type Fields = Vec<(String, String)>;

pub(super) fn add(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.instance(LOGGER)?.func_wrap(
        "log",
        |store: StoreContextMut<'_, Guest>,
         (_, fields, _): (SpanContext, Fields, Option<TenantCtx>)| {
            log(store.data(), &fields);
            Ok((Ok::<Ack, HostError>(Ack::Ok),))
        },
    )?;
    // What generators of components put in, in several shapes; nothing is made of it.
    let mut logging = linker.instance(LOGGING)?;
    logging.func_new("log", |_, _, _, _| Ok(()))?;
    logging.func_new("span-start", |_, _, _, results| {
        if let Some(id) = results.first_mut() {
            *id = Val::U64(0);
        }
        Ok(())
    })?;
    logging.func_new("span-end", |_, _, _, _| Ok(()))
}

fn log(guest: &Guest, fields: &Fields) {
    if !tracing::enabled!(target: PAYLOAD_LOG, tracing::Level::DEBUG) || !guest.call.log.take() {
        return;
    }
    let shown = fields.iter().take(MOST_FIELDS).map(|(name, value)| {
        let short = |text: &str| text.chars().take(MOST_CHARS).collect::<String>();
        format!("{}={:?}", short(name).escape_debug(), short(value))
    });
    let granted = guest.call.grants.env.values().map(String::as_str);
    let shown = Redaction::of(granted).apply(shown.collect::<Vec<_>>().join(" "));
    tracing::debug!(
        target: PAYLOAD_LOG,
        component = %guest.call.invocation.component,
        tenant = %guest.call.tenant,
        fields = %cut_line(&shown),
        "a component logged"
    );
}
