//! The compiler of templates and conditions, and a turn of what it made.
#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use greentic_worker::flow::{Context, Event, Inventory, Limits, Program, Run, RunMonitor, advance};
use greentic_worker::model::FlowId;
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use time::OffsetDateTime;

fuzz_target!(|text: (&str, &str, &str)| {
    let (template, condition, said) = text;
    let node = json!({
        "id": "a", "component": {"id": "emit.message", "operation": null},
        "input": {"mapping": {"input": template}}, "output": {"mapping": null},
        "routing": {"custom": [{"condition": condition, "to": "a"}, {"out": true}]},
    });
    let flow = json!({"id": "main", "kind": "messaging", "tags": [], "flow": {
        "schema_version": "flow-v1", "id": "main", "kind": "messaging", "entrypoints": {}, "nodes": {"a": node}}});
    let limits = Limits { nodes: 100, rendered_bytes: 100_000, ..Limits::default() };
    let flows = [serde_json::from_value(flow).unwrap()];
    let Ok((program, _)) = Program::compile(&flows, Inventory::default(), limits) else {
        return;
    };
    let (env, monitor) = (BTreeMap::new(), RunMonitor::default());
    let cx = Context {
        program: &program,
        env: &env,
        now: OffsetDateTime::UNIX_EPOCH,
        slice: u64::MAX,
        monitor: &monitor,
    };
    let run = Box::new(Run::fresh(FlowId::new("main").unwrap()));
    let _stepped = advance(&cx, run, Event::Activity(Arc::new(json!({"text": said}))));
});
