use std::path::Path;

use greentic_types::PackFlowEntry;

use super::*;
use crate::flow::{Inventory, Limits};

pub(crate) fn tenant(id: &str) -> TenantId {
    id.parse().unwrap()
}

/// A pack of tenant `t` that lists these flows; those tagged `default` end in `!`. Its archive is its name, less any
/// `'` at its end.
pub(crate) fn pack(name: &str, flows: &[&str]) -> BoundPack {
    let compiled = flows.iter().chain(&["unlisted"]).map(|flow| {
        let id = flow.trim_end_matches('!');
        let tags = if flow.ends_with('!') { "[default]" } else { "[]" };
        let text = format!(
            "id: {id}\ntype: messaging\ntags: {tags}\nnodes: {{hi: {{emit.message: {{text: Hi}}}}}}\n"
        );
        let (flow, _) = crate::pack::parse_flow(Path::new("x.ygtc"), &text).unwrap();
        PackFlowEntry {
            id: flow.id.clone(),
            kind: flow.kind,
            flow,
            tags: Vec::new(),
            entrypoints: Vec::new(),
        }
    });
    let compiled: Vec<_> = compiled.collect();
    let listed = compiled[..flows.len()].iter();
    BoundPack {
        tenant: tenant("t"),
        id: PackId::of_archive(name.as_bytes()),
        name: name.trim_end_matches('\'').to_owned(),
        version: Version::new(1, 0, 0),
        reference: None,
        flows: listed.map(|entry| entry.id.clone()).collect(),
        program: Arc::new(
            Program::compile(&compiled, Inventory::default(), Limits::default())
                .unwrap()
                .0,
        ),
        components: BTreeMap::new(),
        grants: Arc::new(Grants {
            pack: PackId::of_archive(name.as_bytes()),
            pack_name: name.to_owned(),
            env: BTreeMap::from([("SECRET".to_owned(), "value".to_owned())]),
            declared: BTreeMap::new(),
            config: serde_json::Value::Null,
        }),
    }
}

fn target(pack: Option<&str>, flow: Option<&str>) -> FlowTarget {
    FlowTarget {
        pack: pack.map(|name| PackId::of_archive(name.as_bytes())),
        flow: flow.map(|flow| flow.parse().unwrap()),
    }
}

fn defaults(default: Option<&str>) -> BTreeMap<TenantId, DefaultFlow> {
    let default = default.map(|text| (tenant("t"), text.parse().unwrap()));
    default.into_iter().collect()
}

/// What a message with these headers starts, as `pack/flow`, or the code of why it starts nothing.
#[track_caller]
fn check(packs: &[(&str, &[&str])], default: Option<&str>, target: FlowTarget, expected: &str) {
    let packs = packs.iter().map(|(name, flows)| pack(name, flows));
    let (registry, errors) = Registry::new(packs, &defaults(default));
    assert_eq!(errors, []);
    let found = match registry.entry(&tenant("t"), &target) {
        Ok(entry) => format!("{}/{}", entry.pack.name, entry.flow),
        Err(error) => error.code().to_owned(),
    };
    assert_eq!(found, expected);
}

#[test]
fn without_headers_it_is_the_default_the_only_one_the_tagged_one_or_main() {
    let plain = || target(None, None);
    check(&[("a", &["x"])], None, plain(), "a/x");
    check(&[("a", &["x", "y"])], None, plain(), "ambiguous_flow");
    check(&[("a", &["x", "y!"])], None, plain(), "a/y");
    check(&[("a", &["x!", "y!", "main"])], None, plain(), "a/main");
    check(&[("a", &["x", "main"])], None, plain(), "a/main");
    check(
        &[("a", &["main"]), ("b", &["main"])],
        None,
        plain(),
        "ambiguous_flow",
    );
    check(
        &[("a", &["main"]), ("b", &["main"])],
        Some("b/main"),
        plain(),
        "b/main",
    );
    check(
        &[("a", &["main"]), ("b", &["main", "x!"])],
        None,
        plain(),
        "b/x",
    );
    check(&[("a", &["main!", "x"])], Some("a/x"), plain(), "a/x");
}

#[test]
fn headers_narrow_the_choice() {
    let packs: &[(&str, &[&str])] = &[("a", &["main", "x"]), ("b", &["main", "y"])];
    check(packs, None, target(Some("a"), Some("x")), "a/x");
    check(packs, None, target(Some("b"), None), "b/main");
    check(packs, None, target(None, Some("y")), "b/y");
    check(packs, None, target(None, Some("main")), "ambiguous_flow");
    check(packs, Some("b/main"), target(None, Some("main")), "b/main");
    check(packs, Some("b/main"), target(Some("a"), None), "a/main");
    check(packs, None, target(Some("a"), Some("y")), "no_such_flow");
    check(packs, None, target(None, Some("unlisted")), "no_such_flow");
    check(packs, None, target(Some("other"), None), "no_such_flow");
}

#[test]
fn an_unbound_tenant_has_no_flow_and_errors_list_the_candidates() {
    let packs = [pack("a", &["main"]), pack("b", &["main"])];
    let (registry, _) = Registry::new(packs, &BTreeMap::new());
    let error = registry
        .entry(&tenant("u"), &target(None, None))
        .unwrap_err();
    assert_eq!(error.code(), "tenant_not_bound");
    let error = registry
        .entry(&tenant("t"), &target(None, None))
        .unwrap_err();
    let text = error.to_string();
    for part in [
        "a/main (sha256:",
        "b/main (sha256:",
        "Greentic-Flow-Id",
        "default_flow",
    ] {
        assert!(text.contains(part), "{text}");
    }
    assert!(
        !format!("{registry:?}").contains("value"),
        "a variable's value was printed"
    );
}

#[test]
fn a_default_must_name_one_flow_that_may_be_started() {
    let of = |default: &str| {
        let packs = [
            pack("a", &["main"]),
            pack("a'", &["main"]),
            pack("b", &["x"]),
        ];
        let (registry, errors) = Registry::new(packs, &defaults(Some(default)));
        let entry = registry.entry(&tenant("t"), &target(None, None));
        (entry.map(|entry| entry.pack.id).ok(), errors)
    };
    let second = PackId::of_archive(b"a'");
    assert_eq!(of(&format!("{second}/main")), (Some(second), vec![]));
    assert!(matches!(of("a/main").1[..], [DefaultError::Several { .. }]));
    assert!(matches!(of("b/main").1[..], [DefaultError::Missing { .. }]));
    assert!(matches!(of("c/x").1[..], [DefaultError::Missing { .. }]));
    for wrong in ["", "main", "/main", "a/", "a/b/c"] {
        assert!(wrong.parse::<DefaultFlow>().is_err(), "{wrong} was taken");
    }
}

#[test]
fn a_pack_is_found_by_tenant_and_id_only() {
    let (registry, _) = Registry::new([pack("a", &["main"])], &BTreeMap::new());
    let a = PackId::of_archive(b"a");
    assert!(registry.pack(&tenant("t"), &a).is_some());
    assert!(registry.pack(&tenant("u"), &a).is_none());
    assert_eq!(registry.tenants(), [&tenant("t")]);
    let key = |tenant: TenantId, flow: &str| FlowKey {
        tenant,
        pack: a,
        flow: flow.parse().unwrap(),
    };
    // A parked flow goes on though it cannot be started from outside.
    assert!(registry.find(&key(tenant("t"), "unlisted")).is_some());
    assert!(registry.find(&key(tenant("t"), "absent")).is_none());
    assert!(registry.find(&key(tenant("u"), "main")).is_none());
}

#[test]
fn the_table_marks_what_a_plain_message_starts() {
    let (registry, _) = Registry::new([pack("a", &["main", "x"])], &BTreeMap::new());
    let text = registry.table().to_string();
    let lines: Vec<Vec<_>> = text
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert_eq!(
        lines[0],
        [
            "TENANT",
            "PACK",
            "VERSION",
            "PACK",
            "ID",
            "FLOWS",
            "VARIABLES"
        ]
    );
    let id = PackId::of_archive(b"a").to_string();
    assert_eq!(lines[1], ["t", "a", "1.0.0", &id, "main*,", "x", "SECRET"]);
}
