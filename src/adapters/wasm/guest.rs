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
    /// What the turn has answered.
    pub(super) read: HashMap<String, Option<Value>>,
    /// What the call wrote.
    pub(super) written: BTreeMap<String, Option<Value>>,
    /// How many bytes it may still write.
    pub(super) room: usize,
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
    pub(super) state_bytes: usize,
}

impl Guest {
    pub(super) fn new(call: Arc<ComponentCall>, mailbox: Mailbox, around: &Surroundings) -> Self {
        let egress = Arc::clone(around.egresses.of(&call.tenant));
        let memory = around.memory.tenant(&call.tenant);
        let stack = memory.charge(MemoryKind::Components, around.stack_bytes as u64);
        Self {
            call,
            memory: MemoryLimit::new(around.memory_bytes, stack),
            state: State {
                mailbox,
                read: HashMap::new(),
                written: BTreeMap::new(),
                room: around.state_bytes,
            },
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
        if tracing::enabled!(tracing::Level::DEBUG) {
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
