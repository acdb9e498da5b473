//! What a running component has around it: on whose behalf it runs, and what it has done so far.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde_json::Value;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::egress::{Egress, Egresses};
use super::limits::MemoryLimit;
use super::mailbox::Mailbox;
use super::stdio::Lines;
use crate::budget::{MemoryBudget, MemoryKind};
use crate::model::{PAYLOAD_LOG, StateBudget, StateLimitError, json_len};
use crate::ports::{ComponentCall, Declared};
use crate::telemetry::{Capability, ComponentMetrics};

/// A call's side of the store.
pub(super) struct Guest {
    /// The call.
    pub(super) call: Arc<ComponentCall>,
    /// What it may use of memory.
    pub(super) memory: MemoryLimit,
    /// What it knows and changed of the user's state.
    pub(super) state: State,
    /// The way out.
    pub(super) egress: Arc<Egress>,
    /// HTTP requests so far: each has a number of its own, the same on every attempt at the turn.
    pub(super) requests: u32,
    metrics: ComponentMetrics,
    wasi: Option<WasiCtx>,
    table: ResourceTable,
}

/// The user's state as one call sees it.
#[derive(Debug)]
pub(super) struct State {
    /// How the turn is asked.
    pub(super) mailbox: Mailbox,
    /// What the turn has answered; the turn has the same values.
    pub(super) read: HashMap<String, Option<Arc<Value>>>,
    /// What the call wrote, and the bytes that are counted for it.
    written: BTreeMap<String, (Option<Value>, usize)>,
    /// The room for keys that it asks the turn for: it asks for no more than any turn may read.
    pub(super) asks: StateBudget,
    /// The room that is left for what it writes.
    pub(super) room: StateBudget,
}

impl State {
    /// The value that the call wrote under a key: `None` if it wrote none.
    pub(super) fn written(&self, key: &str) -> Option<Option<&Value>> {
        let (value, _) = self.written.get(key)?;
        Some(value.as_ref())
    }

    /// Writes a value, or deletes it, if there is room for that.
    pub(super) fn write(
        &mut self,
        key: String,
        value: Option<Value>,
    ) -> Result<(), StateLimitError> {
        let bytes = value.as_ref().map_or(0, json_len);
        let before = self.written.get(&key).map(|(_, bytes)| *bytes);
        self.room.put(&key, before, bytes)?;
        self.written.insert(key, (value, bytes));
        Ok(())
    }

    /// All that the call wrote.
    pub(super) fn take_written(&mut self) -> Vec<(String, Option<Value>)> {
        let written = std::mem::take(&mut self.written).into_iter();
        written.map(|(key, (value, _))| (key, value)).collect()
    }
}

/// A component's reach for what it was not granted, where its interface leaves no other way to tell it.
#[derive(Debug, thiserror::Error)]
#[error("it may not {0}")]
pub(super) struct Refusal(pub(super) &'static str);

/// What every call of a worker shares.
#[derive(Clone)]
pub(super) struct Surroundings {
    pub(super) egresses: Arc<Egresses>,
    pub(super) metrics: ComponentMetrics,
    pub(super) memory_bytes: usize,
    pub(super) stack_bytes: usize,
    pub(super) memory: MemoryBudget,
}

impl Guest {
    pub(super) fn new(call: Arc<ComponentCall>, mailbox: Mailbox, around: &Surroundings) -> Self {
        let egress = Arc::clone(around.egresses.of(&call.tenant));
        let memory = around.memory.tenant(&call.tenant);
        let stack = memory.charge(MemoryKind::Components, around.stack_bytes as u64);
        let state = State {
            mailbox,
            read: HashMap::new(),
            written: BTreeMap::new(),
            asks: StateBudget::new(call.state.limits()),
            room: call.state,
        };
        Self {
            call,
            memory: MemoryLimit::new(around.memory_bytes, stack),
            state,
            egress,
            requests: 0,
            metrics: around.metrics.clone(),
            wasi: None,
            table: ResourceTable::new(),
        }
    }

    /// What its pack's manifest says that it needs.
    pub(super) fn declared(&self) -> Declared {
        let declared = self
            .call
            .grants
            .declared
            .get(&self.call.invocation.component);
        declared.copied().unwrap_or_default()
    }

    /// Notes that something was refused to it.
    pub(super) fn refused(&self, capability: Capability) {
        self.metrics.refused(&self.call.tenant, capability);
        if !tracing::enabled!(tracing::Level::DEBUG) || !self.call.log.take() {
            return;
        }
        tracing::debug!(
            tenant = %self.call.tenant,
            pack = %self.call.grants.pack_name,
            component = %self.call.invocation.component,
            capability = capability.as_str(),
            "a component was refused what it reached for"
        );
    }

    /// The system interfaces: made when first used, since most components use none in most calls. No files, no
    /// sockets, no arguments; of variables, the granted ones.
    fn wasi(call: &ComponentCall, variables: bool) -> WasiCtx {
        let mut wasi = WasiCtx::builder();
        wasi.allow_tcp(false)
            .allow_udp(false)
            .allow_ip_name_lookup(false);
        if variables {
            for (name, value) in &call.grants.env {
                wasi.env(name, value);
            }
        }
        if tracing::enabled!(target: PAYLOAD_LOG, tracing::Level::DEBUG) {
            wasi.stdout(Lines::new(call, "stdout"))
                .stderr(Lines::new(call, "stderr"));
        }
        wasi.build()
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let variables = self.declared().secrets;
        let call = &self.call;
        WasiCtxView {
            ctx: self.wasi.get_or_insert_with(|| Self::wasi(call, variables)),
            table: &mut self.table,
        }
    }
}
