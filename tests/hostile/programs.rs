//! Programs that nobody has thought about: loops inside loops, helpers inside helpers, conditions, calls, state and jumps,
//! over large inputs. Each ends within its steps, whatever the slices that it is given; steps are counted, not seconds.

use std::collections::BTreeMap;
use std::sync::Arc;

use greentic_types::pack_manifest::PackFlowEntry;
use greentic_worker::flow::{
    Ask, Context, Effects, Event, FlowError, Inventory, Limits, Program, Run, RunMonitor, Snapshot,
    Step, advance,
};
use greentic_worker::model::{FlowId, StateLimits};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

const LIMITS: Limits = Limits {
    nodes: 200,
    jumps: 3,
    calls: 4,
    rendered_bytes: 1_000_000,
    steps_per_node: 20_000,
    steps_per_turn: 60_000,
    replies: 300,
    state: StateLimits {
        keys: 300,
        bytes: 200_000,
        key_bytes: 20_000,
    },
};

/// The most steps that a piece of work takes at once, before the limits are looked at again: a text of a megabyte.
const LARGEST_PIECE: u64 = 8 * 1_048_576 / 64;

/// What a turn came to, in a form that two turns can be compared in.
#[derive(Debug, PartialEq)]
struct Outcome {
    result: Result<(Option<Snapshot>, Effects), FlowError>,
    steps: u64,
}

/// Plays a turn with slices of this many steps.
fn play(program: &Program, run: Run, payload: &Arc<Value>, slice: u64) -> (Outcome, u32) {
    let (env, monitor) = (BTreeMap::new(), RunMonitor::default());
    let cx = Context {
        program,
        env: &env,
        now: OffsetDateTime::UNIX_EPOCH,
        slice,
        monitor: &monitor,
    };
    let (mut run, mut event) = (Box::new(run), Event::Activity(Arc::clone(payload)));
    let mut pauses = 0;
    let result = loop {
        match advance(&cx, run, event) {
            Err(error) => break Err(error),
            Ok(Step::Suspended(wait, effects)) => break Ok((Some(wait.snapshot), effects)),
            Ok(Step::Finished(effects)) => break Ok((None, effects)),
            Ok(Step::Paused(paused)) => {
                pauses += 1;
                assert!(pauses <= 4 * LIMITS.nodes, "it pauses for ever");
                (run, event) = (paused, Event::Continue);
            }
            Ok(Step::Ask(asking, Ask::State { key, .. })) => {
                let stored = (!key.contains('n')).then(|| json!({"a": ["{{in.l}}", key]}));
                (run, event) = (asking, Event::State(stored));
            }
            Ok(Step::Ask(asking, Ask::Component(invocation))) => {
                let state = vec![("k".to_owned(), Some(invocation.payload.clone()))];
                let output = invocation.payload;
                (run, event) = (asking, Event::Component { output, state });
            }
        }
    };
    let steps = monitor.steps();
    (Outcome { result, steps }, pauses)
}

fn place() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "in.l",
        "in.o",
        "in.text",
        "in",
        "prev",
        "vars.v",
        "node",
        "state",
        "this",
        "../this",
        "@root.in.l",
        "item",
        "item.a",
        "@index",
        "@key",
        "in.l.[0]",
        "node.a",
        "state.nodes",
        "env",
        "now.iso",
        "prev.value",
        "in.n",
    ])
}

fn value() -> impl Strategy<Value = String> {
    place()
        .prop_map(str::to_owned)
        .prop_recursive(3, 8, 2, |inner| {
            let test = prop::sample::select(vec!["eq", "ne", "gt", "lte", "and", "or", "lookup"]);
            prop_oneof![
                (test, inner.clone(), inner.clone()).prop_map(|(t, a, b)| format!("({t} {a} {b})")),
                inner.clone().prop_map(|a| format!("(not {a})")),
                inner.prop_map(|a| format!("(len {a})")),
            ]
        })
}

/// Blocks inside blocks.
fn template() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        place().prop_map(|p| format!("{{{{{p}}}}}")),
        value().prop_map(|v| format!("{{{{len {v}}}}}")),
        Just(String::new()),
        Just("text ".to_owned()),
    ];
    leaf.prop_recursive(5, 24, 3, |inner| {
        let block = prop::collection::vec(inner, 1..3).prop_map(|parts| parts.concat());
        prop_oneof![
            3 => (value(), block.clone()).prop_map(|(v, b)| format!("{{{{#each {v} as |item|}}}}{b}{{{{/each}}}}")),
            1 => (value(), block.clone(), value(), block.clone())
                .prop_map(|(v, b, w, c)| format!("{{{{#if {v}}}}}{b}{{{{else if {w}}}}}{c}{{{{/if}}}}")),
            1 => (value(), block.clone()).prop_map(|(v, b)| format!("{{{{#with {v} as |item|}}}}{b}{{{{/with}}}}")),
            1 => (value(), value(), block).prop_map(|(v, w, b)| format!("{{{{#eq {v} {w}}}}}{b}{{{{/eq}}}}")),
        ]
    })
}

fn condition() -> impl Strategy<Value = String> {
    let one = (
        prop::sample::select(vec![
            "in.text",
            "in",
            "in.l",
            "prev",
            "vars.v",
            "node",
            "state",
            "response.text",
            "value",
            "event",
        ]),
        prop::sample::select(vec!["==", "!=", ">", " contains "]),
        prop::sample::select(vec!["x", "1", "\"a b\"", "on_success"]),
    );
    let one = one.prop_map(|(path, op, text)| format!("{path} {op} {text}"));
    prop::collection::vec(one, 1..12).prop_map(|all| all.join(" or "))
}

fn routing() -> impl Strategy<Value = Value> {
    let node = || prop::sample::select(vec!["a", "b", "c", "d"]);
    let route =
        (condition(), node()).prop_map(|(condition, to)| json!({"condition": condition, "to": to}));
    prop_oneof![
        3 => node().prop_map(|to| json!({"next": {"node_id": to}})),
        1 => Just(json!("end")),
        3 => (prop::collection::vec(route, 1..8), prop::option::of(node())).prop_map(|(mut routes, last)| {
            routes.extend(last.map(|to| json!({"to": to})));
            json!({"custom": routes})
        }),
    ]
}

fn node() -> impl Strategy<Value = Value> {
    let mapping = (template(), prop::option::of(template())).prop_map(|(value, bound)| {
        let mut mapping = json!({
            "input": value, "value": value, "key": "{{in.n}}k", "name": "v", "flow_id": "other", "reason": "r",
        });
        if let Some(bound) = bound {
            mapping["vars_out"] = json!({"v": bound, "w": "{{vars.v}}"});
        }
        mapping
    });
    let kind = prop::sample::select(vec![
        "emit.message",
        "emit.log",
        "var.set",
        "state.set",
        "state.get",
        "flow.call",
        "flow.goto",
        "session.wait",
        "qa.process",
    ]);
    (kind, mapping, routing()).prop_map(|(kind, mut mapping, routing)| {
        let known: &[&str] = match kind {
            "var.set" => &["name", "value", "vars_out"],
            "state.set" => &["key", "value", "vars_out"],
            "state.get" => &["key", "vars_out"],
            "flow.call" | "flow.goto" => &["flow_id", "input", "vars_out"],
            "session.wait" => &["reason", "value", "vars_out"],
            _ => &["input", "vars_out"],
        };
        if let Value::Object(fields) = &mut mapping {
            fields.retain(|name, _| known.contains(&name.as_str()));
        }
        json!({"component": {"id": kind, "operation": null}, "input": {"mapping": mapping}, "output": {"mapping": null}, "routing": routing})
    })
}

fn flow(id: &'static str) -> impl Strategy<Value = PackFlowEntry> {
    prop::collection::vec(node(), 4).prop_map(move |nodes| {
        let named = ["a", "b", "c", "d"].into_iter().zip(nodes);
        let nodes: Map<_, _> = named
            .map(|(id, mut node)| {
                node["id"] = id.into();
                (id.to_owned(), node)
            })
            .collect();
        let entry = json!({"id": id, "kind": "messaging", "tags": [], "flow": {
            "schema_version": "flow-v1", "id": id, "kind": "messaging", "entrypoints": {},
            "metadata": {"extra": {"vars_init": {"v": {"default": [1, 2, [3]]}}}}, "nodes": nodes}});
        serde_json::from_value(entry).unwrap()
    })
}

/// Lists of some thousands, objects of some hundreds, texts of some thousand letters.
fn payload() -> impl Strategy<Value = Value> {
    (0..3_000_usize, 0..300_usize, 0..5_000_usize, 0..9).prop_map(|(items, fields, letters, n)| {
        let object: Map<_, _> = (0..fields).map(|at| (format!("k{at}"), json!([at]))).collect();
        json!({"l": (0..items).collect::<Vec<_>>(), "o": object, "text": "a b ".repeat(letters / 4), "n": n})
    })
}

fn compile(flows: &[PackFlowEntry], limits: Limits) -> Option<Program> {
    let inventory = Inventory {
        components: ["qa".to_owned()].into(),
        ..Inventory::default()
    };
    Program::compile(flows, inventory, limits)
        .ok()
        .map(|(program, _)| program)
}

proptest! {
    #![proptest_config(super::cases(256))]

    #[test]
    fn any_program_ends_within_its_steps_whatever_its_slices(
        main in flow("main"), other in flow("other"), payloads in prop::collection::vec(payload(), 1..3),
        slices in prop::sample::select(vec![0_u64, 1, 50, 1_000, 10_000]),
    ) {
        let Some(program) = compile(&[main, other], LIMITS) else {
            return Ok(());
        };
        let mut parked: Option<Snapshot> = None;
        for payload in payloads {
            let payload = Arc::new(payload);
            let run = || match &parked {
                Some(snapshot) => Run::parked(snapshot.clone()),
                None => Run::fresh(FlowId::new("main").unwrap()),
            };
            let (whole, pauses) = play(&program, run(), &payload, u64::MAX);
            prop_assert_eq!(pauses, 0);
            prop_assert!(whole.steps <= LIMITS.steps_per_turn + LARGEST_PIECE, "{} steps", whole.steps);
            let (sliced, _) = play(&program, run(), &payload, slices);
            prop_assert_eq!(&sliced.result, &whole.result);
            if whole.result.is_ok() {
                prop_assert_eq!(sliced.steps, whole.steps);
            }
            match whole.result {
                Ok((Some(snapshot), _)) => parked = Some(snapshot),
                Ok((None, _)) | Err(_) => return Ok(()),
            }
        }
    }
}

/// Each thing that the end of a node changes is as it was when the end is abandoned, and done once when it is not.
#[test]
fn the_end_of_a_node_is_undone_and_done_again() {
    let heavy = "{{#each in.l}}{{#each @root.in.l}}{{/each}}{{/each}}x";
    let routes: Vec<_> = (0..40)
        .map(|n| json!({"condition": format!("in.text contains \"word{n}\""), "to": "a"}))
        .collect();
    let waits = json!({ "custom": routes });
    let bound = json!({"v": heavy, "w": "{{prev}}{{vars.v}}{{vars.w}}", "x": heavy});
    let node = |id: &str, kind: &str, mapping: Value, routing: Value| {
        let mut mapping = mapping;
        mapping["vars_out"] = bound.clone();
        json!({"id": id, "component": {"id": kind, "operation": null}, "input": {"mapping": mapping},
            "output": {"mapping": null}, "routing": routing})
    };
    let to = |to: &str| json!({"next": {"node_id": to}});
    let nodes = json!({
        "a": node("a", "emit.message", json!({"input": "first"}), to("b")),
        "b": node("b", "var.set", json!({"name": "v", "value": "{{prev}}!"}), to("c")),
        "c": node("c", "state.set", json!({"key": "k", "value": "{{vars.w}}"}), to("d")),
        "d": node("d", "emit.log", json!({"input": "{{state.nodes.a.payload}}"}), to("e")),
        "e": node("e", "state.get", json!({"key": "k"}), to("f")),
        "f": node("f", "emit.message", json!({"input": {"said": "{{prev}} {{node.a}} {{node.f.said}} {{vars.w}}"}}), waits),
    });
    let entry = json!({"id": "main", "kind": "messaging", "tags": [], "flow": {
        "schema_version": "flow-v1", "id": "main", "kind": "messaging", "entrypoints": {}, "nodes": nodes}});
    let flows = [serde_json::from_value(entry).unwrap()];
    let program = compile(&flows, Limits::default()).unwrap();
    let payload = Arc::new(
        json!({"l": (0..40).collect::<Vec<_>>(), "text": "x".repeat(500), "metadata": {"f": 1}}),
    );
    let mut parked = None;
    for turn in 0..3 {
        let run = || match &parked {
            Some(snapshot) => Run::parked(Snapshot::clone(snapshot)),
            None => Run::fresh(FlowId::new("main").unwrap()),
        };
        let (whole, _) = play(&program, run(), &payload, u64::MAX);
        for slice in [0, 1, 100, 1_000, 5_000, 10_000] {
            let (sliced, pauses) = play(&program, run(), &payload, slice);
            assert_eq!(sliced, whole, "turn {turn}, slices of {slice}");
            assert!(
                pauses > 0 || slice > 1_000,
                "turn {turn}, slices of {slice}"
            );
        }
        let (snapshot, effects) = whole.result.unwrap();
        assert_eq!(effects.logs.len(), usize::from(turn == 0));
        parked = Some(snapshot.expect("it waits"));
    }
}

/// Most of the programs must compile, and some of them come to each of their ends, or they show nothing.
#[test]
fn the_programs_do_something() {
    use proptest::strategy::{Strategy, ValueTree};
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut ends: BTreeMap<&str, u32> = BTreeMap::new();
    for _ in 0..300 {
        let mut new = |id| flow(id).new_tree(&mut runner).unwrap().current();
        let flows = [new("main"), new("other")];
        let payload = payload().new_tree(&mut runner).unwrap().current();
        let Some(program) = compile(&flows, LIMITS) else {
            *ends.entry("refused").or_default() += 1;
            continue;
        };
        let run = Run::fresh(FlowId::new("main").unwrap());
        let (outcome, _) = play(&program, run, &Arc::new(payload), u64::MAX);
        let end = match outcome.result {
            Ok((Some(_), _)) => "waits",
            Ok((None, _)) => "ends",
            Err(error) => error.code(),
        };
        *ends.entry(end).or_default() += 1;
    }
    for end in ["waits", "ends", "step_limit"] {
        assert!(ends.get(end).copied().unwrap_or_default() > 5, "{ends:?}");
    }
}

/// A flow of one node that says this.
fn says(template: &str) -> PackFlowEntry {
    routed(template, &json!("end"))
}

fn routed(template: &str, routing: &Value) -> PackFlowEntry {
    let node = json!({"id": "a", "component": {"id": "emit.message", "operation": null},
        "input": {"mapping": {"input": template}}, "output": {"mapping": null}, "routing": routing});
    let entry = json!({"id": "main", "kind": "messaging", "tags": [], "flow": {
        "schema_version": "flow-v1", "id": "main", "kind": "messaging", "entrypoints": {}, "nodes": {"a": node}}});
    serde_json::from_value(entry).unwrap()
}

fn run(flow: PackFlowEntry, payload: Value) -> Outcome {
    let limits = Limits::default();
    let program = compile(&[flow], limits).unwrap();
    let run = Run::fresh(FlowId::new("main").unwrap());
    play(&program, run, &Arc::new(payload), u64::MAX).0
}

/// Checks that a template does not get through, and that the failure says what it was.
#[track_caller]
fn check_stopped(flow: PackFlowEntry, payload: Value, named: &str) {
    let outcome = run(flow, payload);
    let error = outcome.result.expect_err("it does not get through");
    assert_eq!(error.code(), "step_limit", "{error}");
    assert!(error.is_hopeless(), "{error}");
    let said = error.to_string();
    for part in ["flow main, node a", named, "limits.steps_per_node"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let limit = Limits::default().steps_per_node;
    assert!(outcome.steps <= limit + LARGEST_PIECE, "{}", outcome.steps);
}

#[test]
fn loops_inside_loops_are_stopped() {
    let list = |items: u32| json!({"l": (0..items).collect::<Vec<_>>()});
    let (open, close) = ("{{#each @root.in.l}}", "{{/each}}");
    let four = format!("{}{}", open.repeat(4), close.repeat(4));
    check_stopped(says(&four), list(2_000), "{{#each @root.in.l}}");
    let two = format!("{}{}", open.repeat(2), close.repeat(2));
    check_stopped(says(&two), list(60_000), "{{#each @root.in.l}}");
    let compared = "{{#each in.l}}{{#if (eq @root.in.l @root.in.l)}}{{/if}}{{/each}}";
    check_stopped(says(compared), list(5_000), "(eq @root.in.l");
    let copied = "{{#each in.l}}{{#with (lookup @root \"in\")}}{{len (lookup this \"l\")}}{{/with}}{{#each @root.in.l}}{{/each}}{{/each}}";
    check_stopped(says(copied), list(5_000), "lookup");
}

#[test]
fn conditions_over_large_texts_are_stopped() {
    let routes: Vec<_> = (0..400)
        .map(|n| json!({"condition": format!("in.text contains \"word{n}\""), "to": "a"}))
        .collect();
    let text = json!({"text": "x".repeat(1_000_000)});
    check_stopped(
        routed("x", &json!({"custom": routes})),
        text.clone(),
        "in.text contains",
    );
    // A text of an ordinary size is no trouble.
    let outcome = run(
        routed("x", &json!({"custom": routes})),
        json!({"text": "x".repeat(4_000)}),
    );
    assert!(matches!(outcome.result, Ok((Some(_), _))));
    let whole: Vec<_> = (0..400)
        .map(|n| json!({"condition": format!("in == \"word{n}\""), "to": "a"}))
        .collect();
    check_stopped(routed("x", &json!({"custom": whole})), text, "in == ");
}

/// What a user's list of an ordinary size needs, a node may do.
#[test]
fn a_careful_flow_is_let_through() {
    let items: Vec<_> = (0..5_000)
        .map(|n| json!({"id": n, "name": format!("item {n}"), "price": 9.5, "tags": ["a", "b"]}))
        .collect();
    let template = "{{#each in.items}}{{@index}}. {{name}}: {{price}}{{#if (gt price 10)}} (dear){{/if}} \
                    {{#each tags}}{{this}} {{/each}}\n{{/each}}";
    let outcome = run(says(template), json!({ "items": items }));
    assert!(outcome.result.is_ok(), "{:?}", outcome.result);
    assert!(
        outcome.steps < Limits::default().steps_per_node / 2,
        "{}",
        outcome.steps
    );
}

/// An interrupt from another thread ends a run in the middle of its node.
#[test]
fn a_run_that_is_asked_to_stop_stops() {
    let limits = Limits {
        steps_per_node: u64::MAX,
        steps_per_turn: u64::MAX,
        ..Limits::default()
    };
    let template = format!(
        "{}{}",
        "{{#each @root.in.l}}".repeat(6),
        "{{/each}}".repeat(6)
    );
    let program = compile(&[says(&template)], limits).unwrap();
    let (env, monitor) = (BTreeMap::new(), RunMonitor::default());
    let cx = Context {
        program: &program,
        env: &env,
        now: OffsetDateTime::UNIX_EPOCH,
        slice: u64::MAX,
        monitor: &monitor,
    };
    assert!(monitor.position(&program).is_none());
    let payload = json!({"l": (0..2_000).collect::<Vec<_>>()});
    let run = Box::new(Run::fresh(FlowId::new("main").unwrap()));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| advance(&cx, run, Event::Activity(Arc::new(payload))));
        while monitor.steps() < 10_000 {
            std::thread::yield_now();
        }
        let place = monitor.position(&program).unwrap();
        assert_eq!(place.to_string(), "flow main, node a");
        monitor.interrupt();
        let error = running.join().unwrap().unwrap_err();
        assert!(matches!(error, FlowError::Interrupted { .. }), "{error}");
        assert!(!error.is_hopeless());
    });
}

/// What a pack is refused for.
#[track_caller]
fn check_refused(flows: &[PackFlowEntry], parts: &[&str]) {
    let refused = Program::compile(flows, Inventory::default(), Limits::default());
    let problems = refused.map(|_| ()).unwrap_err().to_string();
    for part in parts {
        assert!(problems.contains(part), "{part}: {problems}");
    }
}

#[test]
fn packs_that_would_take_long_to_look_through_are_refused() {
    let named = |flow: usize, nodes: usize| {
        let node = |n: usize| {
            let id = format!("n{n}");
            let node = json!({"id": id, "component": {"id": "emit.message", "operation": null},
                "input": {"mapping": {"input": "x"}}, "output": {"mapping": null}, "routing": "end"});
            (id, node)
        };
        let nodes: Map<_, _> = (0..nodes).map(node).collect();
        let id = format!("f{flow}");
        let entry = json!({"id": id, "kind": "messaging", "tags": [], "flow": {
            "schema_version": "flow-v1", "id": id, "kind": "messaging", "entrypoints": {}, "nodes": nodes}});
        serde_json::from_value(entry).unwrap()
    };
    let flows: Vec<_> = (0..1_001).map(|flow| named(flow, 1)).collect();
    check_refused(&flows, &["1001 flows, and may have 1000", "several packs"]);
    check_refused(&[named(0, 20_001)], &["20001 nodes, and may have 20000"]);
    let routes = |count: usize, condition: &str| {
        let routes: Vec<_> = (0..count)
            .map(|_| json!({"condition": condition, "to": "a"}))
            .collect();
        routed("x", &json!({ "custom": routes }))
    };
    check_refused(
        &[routes(1_001, "in.x == 1")],
        &["flow main, node a: it has 1001 routes, and a node may have 1000"],
    );
    let long = format!("in.x == {}", "x".repeat(4_096));
    let named = "flow main, node a: condition `in.x == xxx";
    check_refused(
        &[routes(2, &long)],
        &[named, "of route 1 is not valid", "may have 4096"],
    );
    let deep = format!("{}in.x == 1", "(".repeat(65));
    check_refused(
        &[routes(1, &deep)],
        &["of route 0", "deeper than 64 levels"],
    );
    let large = says(&format!("{{{{in.x}}}}{}", "x".repeat(64 * 1024)));
    check_refused(&[large], &["flow main, node a: template", "may have 65536"]);
}
