//! The compiler of templates and conditions, and a turn of what it made.
#![no_main]

use std::collections::BTreeMap;

use greentic_worker::flow::{Context, Event, Limits, Program, Run, advance};
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
    let Ok((program, _)) = Program::compile(&[serde_json::from_value(flow).unwrap()], limits) else {
        return;
    };
    let env = BTreeMap::new();
    let cx = Context { program: &program, env: &env, now: OffsetDateTime::UNIX_EPOCH };
    let run = Box::new(Run::fresh(FlowId::new("main").unwrap()));
    let _stepped = advance(&cx, run, Event::Activity(json!({"text": said})));
});
