//! Flows that nobody has thought about, with payloads that nobody has: compiling and running them ends, within the limits.

use std::collections::BTreeMap;
use std::sync::Arc;

use greentic_types::pack_manifest::PackFlowEntry;
use greentic_worker::flow::{
    Ask, Context, Effects, Event, FlowError, Inventory, Limits, Program, Run, Snapshot, Step,
    advance,
};
use greentic_worker::model::{FlowId, Invocation, StateLimits, is_too_deep};
use proptest::prelude::*;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use super::json;

const LIMITS: Limits = Limits {
    nodes: 300,
    jumps: 3,
    calls: 4,
    rendered_bytes: 200_000,
    replies: 300,
    state: StateLimits {
        keys: 300,
        bytes: 200_000,
        key_bytes: 20_000,
    },
};

/// Texts of templates: good ones, near misses and nonsense.
fn template() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "{{in.text}}",
        "{{in}}",
        "{{entry}}",
        "{{prev}}",
        "{{prev.a}}",
        "{{node.a}}",
        "{{node.b.value}}",
        "{{vars.v}}",
        "{{env.SECRET}}",
        "{{now}}",
        "{{{in.text}}}",
        "{{#each in.l}}{{this}}{{/each}}",
        "{{#if in.text}}x{{else}}y{{/if}}",
        "{{#each in}}{{@key}}{{#each ../in}}{{.}}{{/each}}{{/each}}",
        "{{",
        "}}",
        "{{#each",
        "{{/if}}",
        "{{> x}}",
        "{{!-- c --}}",
        "{{in.l.[0]}}",
        "{{in.l.0}}",
        "{{../in}}",
        "{{lookup in \"a\"}}",
        "/in/text",
        "text",
        " ",
        "\"",
        "==",
        "in.text == \"a\"",
        "&&",
        "||",
        "!",
        "(",
        ")",
        "contains",
    ]);
    prop_oneof![
        4 => prop::collection::vec(piece, 1..4).prop_map(|pieces| pieces.concat()),
        1 => ".{0,20}",
    ]
}

fn mapping() -> impl Strategy<Value = Value> {
    let names = prop::sample::select(vec![
        "text",
        "input",
        "payload",
        "key",
        "value",
        "name",
        "flow_id",
        "node",
        "reason",
        "max_redirects",
        "vars_out",
        "timeout",
        "metadata",
        "a",
        "component",
        "operation",
        "config",
        "card_spec",
    ]);
    let leaf = prop_oneof![
        4 => template().prop_map(Value::from),
        1 => prop::sample::select(vec![json!("main"), json!("other"), json!("qa"), json!("v"), json!(1), json!(null), json!(true)]),
    ];
    leaf.prop_recursive(2, 8, 4, move |inner| {
        prop_oneof![
            3 => prop::collection::vec((names.clone().prop_map(str::to_owned), inner.clone()), 0..4)
                .prop_map(|fields| fields.into_iter().collect::<Map<_, _>>().into()),
            1 => prop::collection::vec(inner, 0..3).prop_map(Value::from),
        ]
    })
}

fn node_id() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "b", "c", "d", "e"])
}

fn routing() -> impl Strategy<Value = Value> {
    let route =
        (prop::option::of(template()), prop::option::of(node_id())).prop_map(|(condition, to)| {
            let mut route = Map::new();
            if let Some(condition) = condition {
                route.insert("condition".to_owned(), condition.into());
            }
            match to {
                Some(to) => route.insert("to".to_owned(), to.into()),
                None => route.insert("out".to_owned(), true.into()),
            };
            Value::from(route)
        });
    prop_oneof![
        4 => node_id().prop_map(|to| json!({"next": {"node_id": to}})),
        2 => Just(json!("end")),
        2 => prop::collection::vec(route, 0..3).prop_map(|routes| json!({ "custom": routes })),
    ]
}

fn node() -> impl Strategy<Value = Value> {
    let kind = prop::sample::select(vec![
        "emit.message",
        "emit.response",
        "emit.log",
        "session.wait",
        "flow.call",
        "flow.goto",
        "state.get",
        "state.set",
        "var.set",
        "qa.process",
        "x.adaptive-card.card",
        "component.exec",
        "nonsense",
    ]);
    (kind, mapping(), routing()).prop_map(|(kind, mapping, routing)| {
        json!({
            "component": {"id": kind, "operation": null},
            "input": {"mapping": mapping},
            "output": {"mapping": null},
            "routing": routing,
        })
    })
}

fn flow(id: &'static str) -> impl Strategy<Value = PackFlowEntry> {
    prop::collection::btree_map(node_id(), node(), 1..5).prop_map(move |nodes| {
        let nodes: Map<_, _> = nodes
            .into_iter()
            .map(|(id, mut node)| {
                node["id"] = id.into();
                (id.to_owned(), node)
            })
            .collect();
        let entry = json!({
            "id": id, "kind": "messaging", "tags": [],
            "flow": {
                "schema_version": "flow-v1", "id": id, "kind": "messaging", "entrypoints": {},
                "metadata": {"extra": {"vars_init": {"v": {"default": "{{in.text}}"}}}}, "nodes": nodes,
            },
        });
        serde_json::from_value(entry).unwrap()
    })
}

/// Plays a turn; the state answers with what the flow itself would have stored.
fn turn(
    program: &Program,
    run: Run,
    payload: Value,
) -> Result<(Option<Snapshot>, Effects), FlowError> {
    let env = BTreeMap::from([("SECRET".to_owned(), "s3cret".to_owned())]);
    let cx = Context {
        program,
        env: &env,
        now: OffsetDateTime::UNIX_EPOCH,
    };
    let (mut run, mut event) = (Box::new(run), Event::Activity(Arc::new(payload)));
    for asked in 0.. {
        assert!(asked <= LIMITS.nodes, "it asks for ever");
        match advance(&cx, run, event)? {
            Step::Suspended(wait, effects) => return Ok((Some(wait.snapshot), effects)),
            Step::Finished(effects) => return Ok((None, effects)),
            Step::Ask(asking, Ask::State { .. }) => {
                run = asking;
                event = Event::State(Some(json!({"a": ["{{in.text}}"]})));
            }
            Step::Ask(asking, Ask::Component(invocation)) => {
                run = asking;
                event = answer(&invocation);
            }
        }
    }
    unreachable!("the loop has no other end")
}

/// A component says back what it was given, or asks for more than it should, and stores what it was given.
fn answer(invocation: &Invocation) -> Event {
    let output = match invocation.ordinal % 4 {
        0 => {
            json!({"greentic_control": {"v": 1, "action": "jump", "flow": "other", "payload": invocation.payload}})
        }
        1 => json!({"ok": false, "error": {"code": "{{in.text}}"}, "outcome": "on_error"}),
        _ => invocation.payload.clone(),
    };
    let state = vec![
        ("k".to_owned(), Some(invocation.payload.clone())),
        ("gone".to_owned(), None),
    ];
    Event::Component { output, state }
}

/// A pack with the components that the flows call.
fn inventory() -> Inventory {
    Inventory {
        components: ["qa", "x.adaptive-card"].map(str::to_owned).into(),
        ..Inventory::default()
    }
}

fn payload() -> impl Strategy<Value = Value> {
    json::value(
        prop::sample::select(vec!["text", "metadata", "action", "input", "l", "a"])
            .prop_map(str::to_owned),
    )
}

proptest! {
    #![proptest_config(super::cases(3_000))]

    #[test]
    fn any_flow_ends(main in flow("main"), other in flow("other"), payloads in prop::collection::vec(payload(), 1..4)) {
        let Ok((program, _)) = Program::compile(&[main, other], inventory(), LIMITS) else {
            return Ok(());
        };
        let mut run = Run::fresh(FlowId::new("main").unwrap());
        for payload in payloads {
            let Ok((parked, effects)) = turn(&program, run, payload) else {
                return Ok(());
            };
            for write in &effects.state {
                prop_assert!(!write.value.as_ref().is_some_and(is_too_deep));
            }
            let Some(snapshot) = parked else {
                return Ok(());
            };
            let stored = serde_json::to_string(&snapshot).unwrap();
            let read: Snapshot = serde_json::from_str(&stored).unwrap();
            prop_assert_eq!(&read, &snapshot);
            run = Run::parked(read);
        }
    }

    #[test]
    fn data_is_never_a_template(text in json::text()) {
        let emit = |input: &str| json!({
            "component": {"id": "emit.message", "operation": null}, "input": {"mapping": {"input": input}},
            "output": {"mapping": null}, "routing": {"next": {"node_id": "b"}},
        });
        let mut nodes = json!({"a": emit("{{in.text}}"), "b": {}, "c": {}, "d": emit("{{vars.v}}|{{node.c.value}}|{{node.a}}")});
        nodes["b"] = json!({"component": {"id": "var.set", "operation": null},
            "input": {"mapping": {"name": "v", "value": "{{prev}}"}}, "output": {"mapping": null},
            "routing": {"next": {"node_id": "c"}}});
        nodes["c"] = json!({"component": {"id": "state.set", "operation": null},
            "input": {"mapping": {"key": "k{{in.text}}", "value": "{{vars.v}}"}}, "output": {"mapping": null},
            "routing": {"next": {"node_id": "d"}}});
        nodes["d"]["routing"] = json!("end");
        for id in ["a", "b", "c", "d"] {
            nodes[id]["id"] = id.into();
        }
        let entry = json!({"id": "main", "kind": "messaging", "tags": [], "flow": {
            "schema_version": "flow-v1", "id": "main", "kind": "messaging", "entrypoints": {}, "nodes": nodes}});
        let (program, _) = Program::compile(&[serde_json::from_value(entry).unwrap()], inventory(), LIMITS).unwrap();
        let run = Run::fresh(FlowId::new("main").unwrap());
        let (_, effects) = turn(&program, run, json!({ "text": text })).unwrap();
        let said: Vec<_> = effects.replies.iter().map(|reply| reply.payload.clone()).collect();
        prop_assert_eq!(said, [json!(text), json!(format!("{text}|{text}|{text}"))]);
        prop_assert_eq!(&effects.state[0].key, &format!("k{text}"));
        prop_assert_eq!(&effects.state[0].value, &Some(json!(text)));
    }
}

/// Most of the flows must run, or they show nothing.
#[test]
fn many_of_the_flows_compile() {
    use proptest::strategy::{Strategy, ValueTree};
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let compiled = (0..500).filter(|_| {
        let flow = flow("main").new_tree(&mut runner).unwrap().current();
        Program::compile(&[flow], inventory(), LIMITS).is_ok()
    });
    let compiled = compiled.count();
    assert!(compiled > 25, "{compiled} of 500");
}
