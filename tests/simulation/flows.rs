//! The pack that all simulated conversations run: what its flows say depends on everything that could go wrong.

use std::collections::BTreeMap;
use std::sync::Arc;

use greentic_types::pack_manifest::PackFlowEntry;
use greentic_worker::flow::{Inventory, Limits, Program};
use greentic_worker::model::{ComponentDigest, Declared, FlowId, Grants, PackId, TenantId};
use greentic_worker::registry::{BoundPack, Live, Registry};
use serde_json::{Map, Value, json};

/// The tenants. What is sent to both has the same ids, users and conversations.
pub const TENANTS: [&str; 2] = ["north", "south"];

/// The flows. `main` waits twice, and again for as long as it is told `again`; each of its turns reads what the user's
/// conversations have said so far and adds to it, under one key that is known beforehand and one that the message names.
/// `side` does so once, and waits for an answer that it only repeats. `echo` touches nothing, `call` asks the backend, and `broken`
/// fails.
fn flows() -> Vec<PackFlowEntry> {
    let remember = |part: &str, then: &str| {
        let named = json!("{{in.metadata.slot}}");
        let node = |n: &str| format!("{part}_{n}");
        let added = |n: &str| format!("{{{{node.{part}_{n}.value}}}} {{{{in.text}}}}");
        let get = |n: &str, key: &Value, next: &str| {
            (node(n), "state.get", json!({ "key": key }), to(next))
        };
        let set = |n: &str, key: &Value, value: String, next: &str| {
            let mapping = json!({"key": key, "value": value});
            (node(n), "state.set", mapping, to(next))
        };
        vec![
            get("0", &named, &node("1")),
            get("1", &json!("all"), &node("2")),
            set("2", &json!("all"), added("1"), &node("3")),
            set("3", &named, added("0"), then),
        ]
    };
    let say = |name: &str, text: &str, routing: Value| {
        let text = format!(
            "{text}; in all {{{{node.{name}_2.value}}}}; here {{{{node.{name}_3.value}}}}; began {{{{entry.input.text}}}}"
        );
        (
            format!("{name}_say"),
            "emit.response",
            json!({ "text": text }),
            routing,
        )
    };
    let ask = |part: &str| {
        let question = json!({"text": format!("{part}?")});
        let wait = format!("{part}_wait");
        (format!("{part}_ask"), "emit.response", question, to(&wait))
    };
    let wait =
        |part: &str, then: &str| (format!("{part}_wait"), "session.wait", json!({}), to(then));
    let again =
        json!({"custom": [{"condition": "in.text == again", "to": "b_ask"}, {"out": true}]});
    let mut main = remember("a", "a_say");
    main.extend([
        say("a", "heard {{in.text}}", to("a_ask")),
        ask("a"),
        wait("a", "b_0"),
    ]);
    main.extend(remember("b", "b_say"));
    main.extend([
        say("b", "first {{in.text}}", to("b_ask")),
        ask("b"),
        wait("b", "c_0"),
    ]);
    main.extend(remember("c", "c_say"));
    main.push(say("c", "then {{in.text}}", again));
    let mut side = remember("d", "d_say");
    side.extend([
        say("d", "aside {{in.text}}?", to("d_wait")),
        wait("d", "e_say"),
    ]);
    let text = "was {{in.text}}; began {{entry.input.text}}";
    side.push(last("e_say", "emit.response", json!({ "text": text })));
    let echo = last("f", "emit.response", json!({"text": "echo {{in.text}}"}));
    let text = "called by {{in.text}}";
    let call = vec![
        ("h_call".to_owned(), BACKEND, json!({}), to("h_say")),
        last("h_say", "emit.response", json!({ "text": text })),
    ];
    let broken = last("g", "state.get", json!({"key": "{{in.nothing}}"}));
    vec![
        flow("main", main),
        flow("side", side),
        flow("echo", vec![echo]),
        flow("call", call),
        flow("broken", vec![broken]),
    ]
}

/// The component that stands for a backend outside.
pub const BACKEND: &str = "backend";

/// A node: its name, kind, mapping and routing.
type Node = (String, &'static str, Value, Value);

/// The last node of a flow.
fn last(name: &str, kind: &'static str, mapping: Value) -> Node {
    (name.to_owned(), kind, mapping, json!("end"))
}

fn to(node: &str) -> Value {
    json!({"next": {"node_id": node}})
}

fn flow(id: &str, nodes: Vec<Node>) -> PackFlowEntry {
    let node = |(id, kind, mapping, routing): Node| {
        let node = json!({
            "id": id,
            "component": {"id": kind, "operation": (kind == BACKEND).then_some("ask")},
            "input": {"mapping": mapping},
            "output": {"mapping": null},
            "routing": routing,
        });
        (id, node)
    };
    let nodes: Map<_, _> = nodes.into_iter().map(node).collect();
    let entry = json!({
        "id": id,
        "kind": "messaging",
        "tags": [],
        "flow": {
            "schema_version": "flow-v1",
            "id": id,
            "kind": "messaging",
            "entrypoints": {"default": nodes.keys().next()},
            "metadata": {},
            "nodes": nodes,
        },
    });
    serde_json::from_value(entry).expect("it is a flow")
}

/// The pack, in the version that all workers have, and in the one that a roll-out brings.
pub const VERSIONS: [&[u8]; 2] = [b"simulated", b"simulated anew"];

/// What workers have bound. Both versions have the same flows.
pub struct Registries {
    /// One version and nothing else, as workers have them.
    pub alone: [Arc<Live>; 2],
    /// Both versions, of which only this one is started: where nothing goes wrong.
    pub beside: [Arc<Live>; 2],
}

impl Registries {
    pub fn new() -> Self {
        let inventory = Inventory {
            components: [BACKEND.to_owned()].into(),
            ..Inventory::default()
        };
        let (program, problems) = Program::compile(&flows(), inventory, Limits::default())
            .unwrap_or_else(|problems| panic!("the flows do not compile: {problems}"));
        assert!(!problems.has_errors(), "{problems}");
        let program = Arc::new(program);
        Self {
            alone: [0, 1].map(|started| registry(&program, &[started], started)),
            beside: [0, 1].map(|started| registry(&program, &[0, 1], started)),
        }
    }
}

/// The id of a version.
pub fn version(number: usize) -> PackId {
    PackId::of_archive(VERSIONS[number])
}

/// These versions for both tenants, of which one can be started.
fn registry(program: &Arc<Program>, versions: &[usize], started: usize) -> Arc<Live> {
    let starts = |number: usize| {
        let flows = ["main", "side", "echo", "call", "broken"];
        let flows = flows.map(|flow| FlowId::new(flow).expect("a flow"));
        flows.into_iter().filter(move |_| number == started)
    };
    let reaches_out = &Declared {
        http: true,
        ..Declared::default()
    };
    let bound = TENANTS.iter().flat_map(|tenant| {
        versions.iter().map(move |number| BoundPack {
            tenant: TenantId::new(tenant).expect("a tenant"),
            id: version(*number),
            name: "simulated".to_owned(),
            version: semver::Version::new(1, 0, 0),
            reference: None,
            program: Arc::clone(program),
            flows: starts(*number).collect(),
            components: [(BACKEND.to_owned(), ComponentDigest::of(b"backend"))].into(),
            grants: Arc::new(Grants {
                pack: version(*number),
                pack_name: "simulated".to_owned(),
                env: BTreeMap::new(),
                // So that a turn which calls it claims its conversation from the first delivery on.
                declared: [(BACKEND.to_owned(), *reaches_out)].into(),
                config: serde_json::Value::Null,
            }),
        })
    });
    let (registry, errors) = Registry::new(bound, &BTreeMap::new());
    assert!(errors.is_empty(), "{errors:?}");
    Arc::new(Live::from(registry))
}
