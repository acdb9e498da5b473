use serde_json::json;

use super::*;

fn flow(id: &str, nodes: Value) -> PackFlowEntry {
    let mut nodes = nodes;
    for (name, node) in nodes.as_object_mut().unwrap() {
        node["id"] = name.as_str().into();
        node["output"] = json!({"mapping": null});
    }
    let flow = json!({"schema_version": "flow-v1", "id": id, "kind": "messaging", "entrypoints": {}, "nodes": nodes});
    serde_json::from_value(json!({"id": id, "kind": "messaging", "tags": [], "flow": flow}))
        .unwrap()
}

fn node(kind: &str, mapping: Value, routing: Value) -> Value {
    json!({"component": {"id": kind}, "input": {"mapping": mapping}, "routing": routing})
}

/// A flow with every sort of edge, and one that it calls.
fn pack() -> [PackFlowEntry; 2] {
    let routes =
        json!([{"condition": "in.text == \"a\"", "to": "b"}, {"condition": "x == 1", "out": true}]);
    let main = json!({
        "a": node("emit.message", json!({"text": "?"}), json!({"custom": routes})),
        "b": node("flow.call", json!({"flow_id": "other"}), json!({"next": {"node_id": "c"}})),
        "c": node("flow.goto", json!({"flow_id": "{{in.flow}}"}), json!("end")),
    });
    let other = json!({"o": node("session.wait", json!({"reason": "r"}), json!({"next": {"node_id": "o"}}))});
    [flow("main", main), flow("other", other)]
}

#[test]
fn mermaid_shows_kinds_conditions_waits_and_ways_to_other_flows() {
    let text = Chart::of(&pack(), None).unwrap().render(Format::Mermaid);
    for line in [
        "f0n0([\"a<br/>emit.message<br/>waits\"]):::waits",
        "f0n1[\"b<br/>flow.call\"]",
        "f0n0 -->|\"in.text == #34;a#34;\"| f0n1",
        "f0n0 -->|\"x == 1\"| f0over((\" \"))",
        "f0n1 -.->|\"flow.call\"| f1n0",
        "f0n1 --> f0n2",
        "f0n2 -.->|\"flow.goto\"| f0n2to[/\"flow {{in.flow}}\"/]",
    ] {
        assert!(
            text.lines().any(|found| found.trim() == line),
            "{line}\n{text}"
        );
    }
}

#[test]
fn dot_escapes_what_would_end_a_label() {
    let text = Chart::of(&pack(), None).unwrap().render(Format::Dot);
    for line in [
        "f0n0 -> f0n1 [label=\"in.text == \\\"a\\\"\"];",
        "f0n1 -> f1n0 [label=\"flow.call\" style=dotted];",
        "f1n0 [label=\"o\\nsession.wait\\nwaits\" style=\"rounded,dashed\"];",
    ] {
        assert!(
            text.lines().any(|found| found.trim() == line),
            "{line}\n{text}"
        );
    }
}

#[test]
fn one_flow_alone_shows_the_others_as_names() {
    let only = FlowId::new("main").unwrap();
    let text = Chart::of(&pack(), Some(&only))
        .unwrap()
        .render(Format::Mermaid);
    assert!(text.contains("f1[[\"flow other\"]]"), "{text}");
    assert!(text.contains("f0n1 -.->|\"flow.call\"| f1\n"), "{text}");
    assert_eq!(
        Chart::of(&pack(), Some(&FlowId::new("none").unwrap())),
        None
    );
}
