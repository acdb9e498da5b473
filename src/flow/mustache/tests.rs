use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Map, json};
use time::macros::datetime;

use super::*;
use crate::flow::scope::Outputs;
use crate::flow::{Limits, RunMonitor};

/// Hands a scope to a test, with something of every kind in it.
fn with_scope<T>(test: impl FnOnce(&Scope<'_>) -> T) -> T {
    let entry = json!({"text": "hi", "n": 4, "list": [1, {"a": "x"}], "metadata": {"f": "<&>"}});
    let prev = json!({"rows": [{"id": 1}, {"id": 2}], "none": null, "flag": true});
    let node = json!({"text": "out", "list": [1, 2]});
    let outputs = Outputs::from([("a".into(), node.into())]);
    let Value::Object(vars) = json!({"v": {"deep": [1]}, "name": "Ada"}) else {
        return test(&empty());
    };
    let env = BTreeMap::from([("REGION".to_owned(), "eu".to_owned())]);
    test(&Scope {
        entry: &entry,
        input: &entry,
        prev: &prev,
        outputs: &outputs,
        vars: &vars,
        jumps: 1,
        env: &env,
        now: datetime!(2026-09-09 10:00 UTC),
        given: None,
    })
}

fn empty() -> Scope<'static> {
    static NULL: Value = Value::Null;
    static VARS: LazyLock<Map<String, Value>> = LazyLock::new(Map::new);
    static ENV: BTreeMap<String, String> = BTreeMap::new();
    static OUTPUTS: Outputs = Outputs::new();
    Scope {
        entry: &NULL,
        input: &NULL,
        prev: &NULL,
        outputs: &OUTPUTS,
        vars: &VARS,
        jumps: 0,
        env: &ENV,
        now: datetime!(2026-09-09 10:00 UTC),
        given: None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever the source: no panic, and what is rendered from the parts of the scope that the survey found is what
    /// Handlebars renders from all of it.
    #[test]
    fn renders_as_handlebars_does(parts in prop::collection::vec(part(), 0..8)) {
        let source = parts.concat();
        let Ok(mustache) = Mustache::compile(&source) else {
            return Ok(());
        };
        with_scope(|scope| {
            let everything = scope.find(&Reference::Everything).ok().flatten().unwrap();
            let expected = HELPERS.render_template(&source, &*everything).ok();
            let found = mustache.render(scope, &mut Budget::new(Limits::default(), &RunMonitor::default())).ok();
            prop_assert_eq!(found, expected, "{}", source);
            Ok(())
        })?;
    }

    /// The same for sources that are hardly templates at all.
    #[test]
    fn no_source_makes_it_panic(parts in prop::collection::vec(shard(), 0..14)) {
        let source = parts.concat();
        if let Ok(mustache) = Mustache::compile(&source) {
            let _ = with_scope(|scope| mustache.render(scope, &mut Budget::new(Limits::default(), &RunMonitor::default())).is_ok());
        }
    }
}

fn path() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "in.text",
        "in.n",
        "in.list",
        "in.list.0",
        "in.list.[1].a",
        "in.list.x",
        "in.f",
        "in.input.text",
        "in",
        "prev.rows",
        "prev.none",
        "prev.flag",
        "prev.missing.deep",
        "node.a.text",
        "node.a.data.list",
        "node.b",
        "node",
        "vars.v.deep.0",
        "vars",
        "vars.name",
        "env.REGION",
        "env",
        "now.date",
        "now.epoch_ms",
        "state",
        "state.nodes.a.ok",
        "state.redirect_count",
        "this",
        "this.in.n",
        "./in.n",
        "@root/in.n",
        "@root",
        "id",
        "../in.n",
        "../this",
        "in/text",
        "entry.text",
        "unknown",
    ])
}

fn part() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        path().prop_map(|p| format!("{{{{{p}}}}}")),
        path().prop_map(|p| format!("{{{{{{{p}}}}}}}")),
        (path(), path()).prop_map(|(a, b)| format!("{{{{lookup {a} {b}}}}}")),
        path().prop_map(|p| format!("{{{{lookup {p} \"text\"}}}}")),
        path().prop_map(|p| format!("{{{{lookup (lookup {p} \"in\") \"n\"}}}}")),
        path().prop_map(|p| format!("{{{{len {p}}}}}")),
        path().prop_map(|p| format!("{{{{~{p}~}}}} ")),
        Just("plain text\n".to_owned()),
        Just("{{! comment }}".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let block = prop::collection::vec(inner, 1..3).prop_map(|parts| parts.concat());
        prop_oneof![
            (path(), block.clone()).prop_map(|(p, b)| format!("{{{{#if {p}}}}}{b}{{{{/if}}}}")),
            (path(), block.clone()).prop_map(|(p, b)| format!("{{{{#each {p}}}}}{b}{{{{/each}}}}")),
            (path(), block.clone()).prop_map(|(p, b)| format!("{{{{#with {p}}}}}{b}{{{{/with}}}}")),
            (path(), block.clone())
                .prop_map(|(p, b)| format!("{{{{#each {p} as |id|}}}}{b}{{{{/each}}}}")),
            (path(), block.clone(), block)
                .prop_map(|(p, b, c)| format!("{{{{#each {p}}}}}{b}{{{{else}}}}{c}{{{{/each}}}}")),
        ]
    })
}

fn shard() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "{{",
        "}}",
        "{{{",
        "}}}",
        "{{{{",
        "}}}}",
        "#if ",
        "/if",
        "else",
        "^",
        " ",
        "a",
        "in.text",
        "(",
        ")",
        "[",
        "]",
        "\"",
        "'",
        "~",
        "!",
        "--",
        ">",
        "*",
        "&",
        "as |x|",
        "@",
        "../",
        "this",
        "null",
        "=",
        "\\",
        "\n",
        "raw",
        "é",
        "#each ",
        "/each",
        "{{else}}",
        "{{/if}}",
        "{{#if in}}",
        "lookup ",
        ".",
        "/",
        "1",
        "{\"a\":1}",
        "[1,2]",
    ])
}

#[test]
fn deep_nesting_is_refused() {
    for (open, middle, close) in [
        ("{{#if in}}", "", "{{/if}}"),
        ("(", "not in", ")"),
        ("[", "1", "]"),
    ] {
        let source = match open {
            "{{#if in}}" => format!("{}{}", open.repeat(1_000), close.repeat(1_000)),
            _ => format!(
                "{{{{len {}{middle}{}}}}}",
                open.repeat(1_000),
                close.repeat(1_000)
            ),
        };
        assert!(
            Mustache::compile(&source)
                .unwrap_err()
                .contains("nests deeper"),
            "{open}"
        );
    }
    assert!(Mustache::compile(&"{".repeat(10_000)).is_err());
}
