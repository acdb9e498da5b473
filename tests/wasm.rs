//! Components on wasmtime: every interface that they are called through, everything that they may import, every limit,
//! and the cache of compiled code.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "functions of tests fail by panicking"
)]

#[path = "wasm/cache.rs"]
mod cache;
#[path = "wasm/calls.rs"]
mod calls;
#[path = "wasm/compile.rs"]
mod compile;
#[path = "support/components.rs"]
mod components;
#[path = "wasm/imports.rs"]
mod imports;
#[path = "wasm/limits.rs"]
mod limits;
#[path = "wasm/reach.rs"]
mod reach;

use std::collections::BTreeMap;
use std::sync::Arc;

use greentic_worker::adapters::wasm::{CacheDir, Code, Config, WasmComponents};
use greentic_worker::model::{
    ComponentDigest, FlowId, Invocation, InvocationForm, LogBudget, PackId, TenantId,
};
use greentic_worker::ports::{
    CallStep, ComponentCall, ComponentError, ComponentOutput, Components, Declared, Grants,
};
use greentic_worker::telemetry::ComponentMetrics;
use serde_json::{Value, json};

use components::component;

/// Small enough that many of them fit beside each other.
fn config() -> Config {
    Config {
        cache_dir: CacheDir::Off,
        instances: 8.try_into().unwrap(),
        memory_bytes: (16 * 1024 * 1024).try_into().unwrap(),
        ..Config::default()
    }
}

fn worker(config: &Config) -> WasmComponents {
    WasmComponents::new(config, ComponentMetrics::default())
}

/// A worker that has one component, and what its calls start from.
struct Bench {
    worker: WasmComponents,
    call: ComponentCall,
    state: BTreeMap<String, Value>,
    asked: Vec<String>,
}

impl Bench {
    fn new(name: &str) -> Self {
        Self::with(name, &config())
    }

    fn with(name: &str, config: &Config) -> Self {
        Self::of(name, &component(name), config)
    }

    fn of(name: &str, code: &[u8], config: &Config) -> Self {
        Self::on(worker(config), name, code)
    }

    /// A bench with this worker.
    fn on(worker: WasmComponents, name: &str, code: &[u8]) -> Self {
        let digest = ComponentDigest::of(code);
        let code = Code {
            digest,
            name,
            bytes: code,
        };
        let stats = worker.prepare([code]).unwrap();
        assert!(stats.warnings.is_empty(), "{}", stats.warnings);
        Self {
            worker,
            call: call(name, digest),
            state: BTreeMap::new(),
            asked: Vec::new(),
        }
    }

    fn granted(mut self, declared: Declared, env: &[(&str, &str)]) -> Self {
        let name = self.call.invocation.component.clone();
        let grants = Arc::make_mut(&mut self.call.grants);
        grants.declared = BTreeMap::from([(name, declared)]);
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        grants.env = env.iter().map(owned).collect();
        self
    }

    fn form(mut self, form: InvocationForm) -> Self {
        self.call.invocation.form = form;
        self
    }

    /// Runs a call to its end and applies the state that it wrote.
    async fn run(&mut self, operation: &str, payload: Value) -> Result<Value, ComponentError> {
        let mut call = self.call.clone();
        call.invocation.operation = operation.to_owned();
        call.invocation.payload = payload;
        let mut running = self.worker.call(call);
        let ComponentOutput { value, state } = loop {
            match running.next().await? {
                CallStep::Read(key) => {
                    running.answer(self.state.get(&key).cloned());
                    self.asked.push(key);
                }
                CallStep::Done(output) => break output,
            }
        };
        for (key, value) in state {
            match value {
                Some(value) => self.state.insert(key, value),
                None => self.state.remove(&key),
            };
        }
        Ok(value)
    }
}

fn call(name: &str, code: ComponentDigest) -> ComponentCall {
    ComponentCall {
        code,
        invocation: Invocation {
            component: name.to_owned(),
            operation: "run".to_owned(),
            flow: FlowId::new("main").unwrap(),
            node: "ask".to_owned(),
            payload: Value::Null,
            form: InvocationForm::Node,
            ordinal: 0,
        },
        grants: Arc::new(Grants {
            pack: PackId::of_archive(b"pack"),
            pack_name: "test-pack".to_owned(),
            env: BTreeMap::new(),
            declared: BTreeMap::new(),
            config: json!({"region": "north"}),
        }),
        tenant: TenantId::new("dev.local").unwrap(),
        env: "dev".to_owned(),
        team: None,
        user: "u1".to_owned(),
        session: "s1".to_owned(),
        caller: None,
        attempt: 1,
        log: LogBudget::default(),
        idempotency_key: "turn-0".to_owned(),
    }
}
