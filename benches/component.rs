//! What a call of a component takes, beside what a node of our own takes. `./dev bench --micro` runs it with the others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    reason = "a bench that cannot go on ends by panicking; the scenes are more than this needs"
)]

#[path = "../tests/support/components.rs"]
mod components;
mod scenes;

use std::collections::BTreeMap;
use std::hint::black_box;
use std::sync::Arc;

use components::component;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use greentic_worker::adapters::wasm::{CacheDir, Code, Config, WasmComponents};
use greentic_worker::model::{
    ComponentDigest, FlowId, Invocation, InvocationForm, LogBudget, PackId,
};
use greentic_worker::ports::{CallStep, ComponentCall, Components, Grants};
use greentic_worker::telemetry::ComponentMetrics;
use scenes::{Kept, Pack, Scene};
use serde_json::{Value, json};

/// Nodes that a conversation of [`Pack::Long`] runs.
const LONG_NODES: u64 = 200;

/// Figures of one node, or of one call.
fn component_call(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("node");
    let (scene, mut kept) = (Scene::of(Pack::Long), Kept::default());
    let machine = scene.machine();
    let payload = scene.decode(&scene.message(0, 0)).payload;
    group.throughput(Throughput::Elements(LONG_NODES));
    group.bench_function("ours, two hundred at a time", |bencher| {
        bencher.iter(|| {
            machine.turn(&mut kept, black_box(payload.clone()));
            machine.turn(&mut kept, black_box(payload.clone()))
        });
    });

    let code = component("echo");
    let call = echo(&code, Value::clone(&payload));
    let config = Config {
        cache_dir: CacheDir::Off,
        ..Config::default()
    };
    let worker = WasmComponents::new(&config, ComponentMetrics::default());
    let prepared = worker.prepare([Code {
        digest: call.code,
        name: "echo",
        bytes: &code,
    }]);
    prepared.unwrap_or_else(|problems| panic!("{problems}"));
    let tokio = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let tokio = tokio.unwrap();
    group.throughput(Throughput::Elements(1));
    group.bench_function("a component, in an instance of its own", |bencher| {
        bencher.iter(|| tokio.block_on(run(&worker, black_box(call.clone()))));
    });
    group.finish();
}

async fn run(worker: &WasmComponents, call: ComponentCall) -> Value {
    let mut running = worker.call(call);
    match running
        .next()
        .await
        .unwrap_or_else(|error| panic!("{error}"))
    {
        CallStep::Done(output) => output.value,
        CallStep::Read(key) => panic!("an echo reads `{key}`"),
    }
}

/// A call that gives its payload back.
fn echo(code: &[u8], payload: Value) -> ComponentCall {
    ComponentCall {
        code: ComponentDigest::of(code),
        invocation: Invocation {
            component: "echo".to_owned(),
            operation: "run".to_owned(),
            flow: FlowId::new("main").unwrap(),
            node: "ask".to_owned(),
            payload,
            form: InvocationForm::Node,
            ordinal: 0,
        },
        grants: Arc::new(Grants {
            pack: PackId::of_archive(b"bench"),
            pack_name: "bench-pack".to_owned(),
            env: BTreeMap::new(),
            declared: BTreeMap::new(),
            config: json!({}),
        }),
        tenant: "bench".parse().unwrap(),
        env: "dev".to_owned(),
        team: None,
        user: "u1".to_owned(),
        session: "s1".to_owned(),
        caller: None,
        attempt: 1,
        log: LogBudget::default(),
        idempotency_key: "bench-0".to_owned(),
    }
}

criterion_group!(benches, component_call);
criterion_main!(benches);
