use greentic_types::Routing;
use serde_json::json;

use super::*;
use crate::model::Severity;
use crate::pack::{Limits, open};

mod components;

const PACK: &str = "pack_id: small\nversion: 1.0.0\nkind: application\npublisher: us\n";
const FLOW: &str = "id: main\ntype: messaging\nnodes:\n  hi:\n    emit.message: {text: Hi}\n";

fn sources(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join(FLOWS)).unwrap();
    for (path, text) in files {
        fs::write(dir.path().join(path), text).unwrap();
    }
    dir
}

/// All that is wrong with these sources, as `file: place: message`.
#[track_caller]
fn refused(files: &[(&str, &str)], expected: &[&str]) {
    let dir = sources(files);
    let problems = build(dir.path()).unwrap_err();
    let found: Vec<String> = problems
        .iter()
        .map(|p| {
            assert!(p.remedy.is_some(), "no remedy: {p}");
            let file = p.file.as_deref().unwrap().strip_prefix(dir.path()).unwrap();
            let place = p.place.as_deref().unwrap_or("file");
            format!("{}: {place}: {}", file.display(), p.message)
        })
        .collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (found, expected) in found.iter().zip(expected) {
        assert!(found.starts_with(expected), "{found}\nis not\n{expected}");
    }
}

/// The routing of node `a`, whose siblings are `b` and `c`.
#[track_caller]
fn routed(routing: &str) -> Result<Routing, String> {
    let text = format!(
        "id: main\ntype: messaging\nnodes:\n  a:\n    emit.message: {{}}\n    routing: {routing}\n  b:\n    emit.message: {{}}\n  c:\n    emit.message: {{}}\n"
    );
    parse_flow(Path::new("main.ygtc"), &text)
        .map(|(flow, _)| flow.nodes[0].routing.clone())
        .map_err(|problems| problems.to_string())
}

#[test]
fn the_same_sources_give_the_same_bytes_and_they_open() {
    let files = [("pack.yaml", PACK), ("flows/main.ygtc", FLOW)];
    let built = build(sources(&files).path()).unwrap();
    let commented = format!("# why\n{FLOW}\n");
    let again = build(sources(&[files[0], ("flows/main.ygtc", &commented)]).path()).unwrap();
    assert_eq!(built.bytes, again.bytes);
    assert_eq!(built.file_name(), "small-1.0.0.gtpack");
    assert_eq!(built.store_ref(), "store://small@1.0.0");

    let pack = open(&built.bytes, Some(&built.id), &Limits::default()).unwrap();
    assert_eq!(pack.manifest, built.manifest);
    assert_eq!(pack.manifest.flows[0].entrypoints, ["default"]);

    let other = FLOW.replace("Hi", "Ho");
    let other = build(sources(&[files[0], ("flows/main.ygtc", &other)]).path()).unwrap();
    assert_ne!(built.id, other.id);
}

#[test]
fn listed_flows_bring_their_tags_and_the_rest_stays_out() {
    let listing = format!(
        "{PACK}display_name: Small\ncomponents: []\nflows:\n  - id: main\n    file: flows/main.ygtc\n    tags: [default]\n    entrypoints: [web]\n"
    );
    let dir = sources(&[
        ("pack.yaml", &listing),
        ("flows/main.ygtc", FLOW),
        ("flows/draft.ygtc", "not yet"),
    ]);
    let manifest = build(dir.path()).unwrap().manifest;
    assert_eq!(manifest.name.as_deref(), Some("Small"));
    assert_eq!(manifest.flows.len(), 1);
    assert_eq!(manifest.flows[0].tags, ["default"]);
    assert_eq!(manifest.flows[0].entrypoints, ["web"]);
}

#[test]
fn pack_yaml_is_read_strictly() {
    refused(
        &[
            (
                "pack.yaml",
                "pack_id: a b\nversion: 1.0\nkind: app\nautor: x\nbootstrap: {install_flow: c}\n",
            ),
            ("flows/main.ygtc", FLOW),
        ],
        &[
            "pack.yaml: line 4, autor: unknown field `autor`",
            "pack.yaml: line 5, bootstrap: `bootstrap` cannot be built by this program",
            "pack.yaml: line 1, pack_id: `a b` is no pack id",
            "pack.yaml: line 2, version: expected text, found a number",
            "pack.yaml: line 3, kind: `app` is no kind of pack",
            "pack.yaml: line 1: the field `publisher` is missing",
        ],
    );
    let escaping = format!("{PACK}flows: [{{id: main, file: ../main.ygtc}}]\n");
    refused(
        &[("pack.yaml", &escaping), ("flows/main.ygtc", FLOW)],
        &["pack.yaml: line 5, flows[0].file: the path leads out"],
    );
    let renamed = format!("{PACK}flows: [{{id: other, file: flows/main.ygtc}}]\n");
    refused(
        &[("pack.yaml", &renamed), ("flows/main.ygtc", FLOW)],
        &["flows/main.ygtc: file: pack.yaml lists this file as flow `other`"],
    );
}

#[test]
fn missing_and_doubled_flows_are_told() {
    refused(
        &[],
        &[
            "pack.yaml: file: there is no such file",
            "flows: file: the folder holds no",
        ],
    );
    refused(
        &[
            ("pack.yaml", PACK),
            ("flows/a.ygtc", FLOW),
            ("flows/b.ygtc", FLOW),
        ],
        &["flows/b.ygtc: file: the pack has another flow `main`"],
    );
}

#[test]
fn all_problems_of_a_flow_come_at_once_with_their_lines() {
    let flow = "\
id: main
type: chat
start: nowhere
color: red
nodes:
  out:
    emit.message: {}
  empty:
    routing: out
  two:
    emit.message: {}
    session.wait: {}
  lost:
    emit.message: {}
    routing: [{to: gone}, {}]
";
    refused(
        &[("pack.yaml", PACK), ("flows/main.ygtc", flow)],
        &[
            "flows/main.ygtc: line 4, color: unknown field `color`",
            "flows/main.ygtc: line 2, type: `chat` is no type of flow",
            "flows/main.ygtc: line 6, nodes.out: `out` is no name for a node",
            "flows/main.ygtc: line 8, nodes.empty: the node does nothing",
            "flows/main.ygtc: line 10, nodes.two: the node has several operations: `emit.message`, `session.wait`",
            "flows/main.ygtc: line 15, nodes.lost.routing[0].to: the route leads to `gone`",
            "flows/main.ygtc: line 15, nodes.lost.routing[1]: the route leads nowhere",
            "flows/main.ygtc: line 3, start: the flow starts at `nowhere`",
        ],
    );
}

#[test]
fn a_document_becomes_the_flow_that_the_ecosystem_makes_of_it() {
    let text = "\
id: main
title: Main
type: events
start: second
parameters: {vars_init: {n: {default: 1}}}
tags: [default]
nodes:
  first:
    handle_message: {component: x, input: {a: 1}}
    telemetry: {span_name: s, attributes: {k: v}}
  second:
    component.exec: {component: x}
    operation: run
    when: {}
    routing: [{to: first}]
  third:
    template: hello
";
    let (flow, warnings) = parse_flow(Path::new("main.ygtc"), text).unwrap();
    let ids: Vec<_> = flow.nodes.keys().map(|id| id.as_str()).collect();
    assert_eq!(ids, ["second", "first", "third"]);
    assert_eq!(flow.entrypoints["default"], "second");
    assert_eq!(
        flow.metadata.extra,
        json!({"vars_init": {"n": {"default": 1}}})
    );
    assert!(flow.metadata.tags.contains("default"));
    let component = |n: usize| {
        let component = &flow.nodes[n].component;
        (component.id.as_str(), component.operation.as_deref())
    };
    assert_eq!(component(0), ("component.exec", Some("run")));
    assert_eq!(component(1), ("component.exec", Some("handle_message")));
    assert_eq!(component(2), ("template", None));
    assert_eq!(flow.nodes[1].telemetry.span_name.as_deref(), Some("s"));
    assert_eq!(flow.nodes[2].input.mapping, json!("hello"));
    let warnings: Vec<_> = warnings.iter().collect();
    assert_eq!(warnings.len(), 1);
    assert_eq!(warnings[0].severity, Severity::Warning);
    assert_eq!(
        warnings[0].place.as_deref(),
        Some("line 14, nodes.second.when")
    );
}

#[test]
fn a_node_that_is_marked_as_an_entry_becomes_an_entry_point() {
    let text = "id: main
type: messaging
nodes:
  default: {entry: true, emit.message: {text: a}, routing: [{to: late}]}
  hello: {entry: false, emit.message: {text: a}, routing: [{to: late}]}
  late: {emit.message: {text: b}, entry: true}
start: hello
";
    let (flow, warnings) = parse_flow(Path::new("main.ygtc"), text).unwrap();
    assert!(warnings.is_empty(), "{warnings}");
    let expected = [
        ("default", "hello"),
        ("entry.default", "default"),
        ("entry.late", "late"),
    ];
    let expected = expected.map(|(name, node)| (name.to_owned(), json!(node)));
    assert_eq!(flow.entrypoints, BTreeMap::from(expected));
    // An operation of that name is one as before.
    let text = "id: main\ntype: messaging\nnodes: {a: {entry: {component: x}}}\n";
    let (flow, _) = parse_flow(Path::new("main.ygtc"), text).unwrap();
    assert_eq!(flow.nodes[0].component.operation.as_deref(), Some("entry"));
}

#[test]
fn routing_has_the_forms_of_the_ecosystem() {
    let node = |id: &str| id.parse::<crate::model::NodeId>().unwrap();
    let next = Routing::Next { node_id: node("b") };
    for (text, expected) in [
        ("out", Routing::End),
        ("reply", Routing::Reply),
        ("[]", Routing::End),
        ("[{to: b}]", next),
        ("[{to: out}]", Routing::End),
        ("[{out: true}]", Routing::End),
        ("[{reply: true}]", Routing::Reply),
        (
            "[{status: ok, to: b}, {status: 500, to: c}]",
            Routing::Branch {
                on_status: BTreeMap::from([
                    ("ok".to_owned(), node("b")),
                    ("500".to_owned(), node("c")),
                ]),
                default: None,
            },
        ),
        (
            "[{status: ok, to: b}, {to: c}]",
            Routing::Branch {
                on_status: BTreeMap::from([("ok".to_owned(), node("b"))]),
                default: Some(node("c")),
            },
        ),
        (
            "[{status: true, to: b}]",
            Routing::Custom(json!([{"status": "true", "to": "b"}])),
        ),
        (
            "[{status: ok, to: b}, {out: true}]",
            Routing::Custom(json!([{"status": "ok", "to": "b"}, {"out": true}])),
        ),
        (
            "[{condition: a == 1, to: out}, {on_message: true, to: c}, {to: b}]",
            Routing::Custom(json!([
                {"condition": "a == 1", "out": true},
                {"on_message": true, "to": "c"},
                {"to": "b"},
            ])),
        ),
    ] {
        assert_eq!(routed(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn routing_that_says_too_much_or_too_little_is_refused() {
    for (text, part) in [
        ("stop", "this is no routing"),
        ("{to: b}", "this is no routing"),
        ("[{next: b}]", "unknown field `next`"),
        ("[{to: b, out: true}]", "leads to several places"),
        ("[{to: b}, {to: c}]", "second route without a status"),
        ("[{to: b, condition: 1}]", "expected text"),
    ] {
        let found = routed(text).unwrap_err();
        assert!(found.contains(part), "{text}: {found}");
    }
}
