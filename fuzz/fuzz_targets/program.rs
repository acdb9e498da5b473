//! Two nodes that lead to one another, with templates, bindings and conditions of the fuzzer's, over a payload of its own:
//! a turn ends within its steps, and to the same end whatever its slices are.
#![no_main]

use std::collections::BTreeMap;
use std::sync::Arc;

use greentic_worker::flow::{
    Context, Effects, Event, Inventory, Limits, Program, Run, RunMonitor, Step, advance,
};
use greentic_worker::model::{FlowId, MAX_DEPTH, too_deep_at};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use time::OffsetDateTime;

const LIMITS: Limits = Limits {
    nodes: 200,
    jumps: 3,
    calls: 4,
    rendered_bytes: 1_000_000,
    steps_per_node: 20_000,
    steps_per_turn: 60_000,
};

/// The most steps that one text takes at once.
const LARGEST_PIECE: u64 = 8 * 1_048_576 / 64;

fuzz_target!(|input: (&str, &str, &str, &[u8], u16)| {
    let (template, binding, condition, payload, slice) = input;
    if too_deep_at(payload, MAX_DEPTH - 4).is_some() {
        return;
    }
    let Ok(payload) = serde_json::from_slice::<Value>(payload) else {
        return;
    };
    let payload = Arc::new(payload);
    let node = |id: &str, to: &str, kind: &str, mapping: Value| {
        json!({"id": id, "component": {"id": kind, "operation": null}, "input": {"mapping": mapping},
            "output": {"mapping": null}, "routing": {"custom": [{"condition": condition, "to": to}, {"to": "a"}]}})
    };
    let nodes = json!({
        "a": node("a", "b", "emit.message", json!({"input": template, "vars_out": {"v": binding}})),
        "b": node("b", "a", "var.set", json!({"name": "w", "value": template})),
    });
    let flow = json!({"id": "main", "kind": "messaging", "tags": [], "flow": {
        "schema_version": "flow-v1", "id": "main", "kind": "messaging", "entrypoints": {}, "nodes": nodes}});
    let flows = [serde_json::from_value(flow).unwrap()];
    let Ok((program, _)) = Program::compile(&flows, Inventory::default(), LIMITS) else {
        return;
    };
    let (whole, steps) = play(&program, &payload, u64::MAX);
    assert!(steps <= LIMITS.steps_per_turn + LARGEST_PIECE, "{steps}");
    let (sliced, _) = play(&program, &payload, slice.into());
    assert_eq!(sliced, whole);
});

fn play(program: &Program, payload: &Arc<Value>, slice: u64) -> (Result<Effects, String>, u64) {
    let (env, monitor) = (BTreeMap::new(), RunMonitor::default());
    let cx = Context {
        program,
        env: &env,
        now: OffsetDateTime::UNIX_EPOCH,
        slice,
        monitor: &monitor,
    };
    let mut run = Box::new(Run::fresh(FlowId::new("main").unwrap()));
    let mut event = Event::Activity(Arc::clone(payload));
    let end = loop {
        match advance(&cx, run, event) {
            Ok(Step::Paused(paused)) => (run, event) = (paused, Event::Continue),
            Ok(Step::Suspended(_, effects) | Step::Finished(effects)) => break Ok(effects),
            Ok(Step::Ask(..)) => break Err("it asks".to_owned()),
            Err(error) => break Err(error.to_string()),
        }
    };
    (end, monitor.steps())
}
