use std::collections::BTreeMap;
use std::sync::LazyLock;

use handlebars::Handlebars;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use time::macros::datetime;

use super::*;
use crate::flow::scope::Outputs;

/// Handlebars itself.
static HANDLEBARS: LazyLock<Handlebars<'static>> = LazyLock::new(|| {
    let mut registry = Handlebars::new();
    registry.register_escape_fn(handlebars::no_escape);
    registry
});

/// Hands a scope to a test, with something of every kind in it.
fn with_scope<T>(test: impl FnOnce(&Scope<'_>) -> T) -> T {
    let entry = json!({"text": "hi", "n": 4, "list": [1, {"a": "x"}], "metadata": {"f": "<&>"},
        "zero": 0, "half": 4.5, "four": "4", "big": 18_446_744_073_709_551_615_u64, "minus": -1,
        "nested": [[1, [2, null]], {"id": "in"}], "empty": [], "bare": {}, "helper": "len", "other": "and"});
    let prev = json!({"rows": [{"id": 1, "list": ["p", "q"]}, {"id": 2}], "none": null, "flag": true,
        "same": [1, {"a": "x"}], "o": {"k": [1], "id": {"id": 7}}});
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

/// Some hundred cases, or as many as `PROPTEST_CASES` says.
fn cases() -> ProptestConfig {
    let usual = ProptestConfig::default();
    ProptestConfig {
        cases: usual.cases.max(300),
        failure_persistence: None,
        ..usual
    }
}

proptest! {
    #![proptest_config(cases())]

    /// Whatever the source: no panic, and what is rendered from the parts of the scope that the survey found is what
    /// Handlebars renders from all of it.
    #[test]
    fn renders_as_handlebars_does(parts in prop::collection::vec(part(), 0..8)) {
        let source = parts.concat();
        let Ok(mustache) = Mustache::compile(&source) else {
            return Ok(());
        };
        with_scope(|scope| {
            let everything = scope.find(&Reference::Everything, &mut Budget::default()).ok().flatten().unwrap();
            let expected = HANDLEBARS.render_template(&source, &*everything).ok();
            let found = mustache.render(scope, &mut Budget::default()).ok();
            prop_assert_eq!(found, expected, "{}", source);
            Ok(())
        })?;
    }

    /// The same for sources that are hardly templates at all.
    #[test]
    fn no_source_makes_it_panic(parts in prop::collection::vec(shard(), 0..14)) {
        let source = parts.concat();
        if let Ok(mustache) = Mustache::compile(&source) {
            let _ = with_scope(|scope| mustache.render(scope, &mut Budget::default()).is_ok());
        }
    }
}

/// What a run of random templates comes to only seldom.
#[test]
fn corner_cases_are_rendered_as_handlebars_does() {
    for source in [
        "{{#each prev.rows}}{{#with list}}{{@index}}{{@first}}{{@last}}{{this}}{{/with}}{{/each}}",
        "{{#each in.list}}{{#each @root.prev.rows}}{{@../index}}{{@index}}{{../a}}{{/each}}{{/each}}",
        "{{#each prev.rows as |id pos|}}{{id.id}}{{pos}}{{#with id as |pos|}}{{pos.id}}{{../id.id}}{{/with}}{{/each}}",
        "{{#each prev.rows as |id id|}}{{id}}{{/each}}",
        "{{#each prev.o as |id pos|}}{{@key}}{{pos}}{{id}}{{@index}}{{/each}}",
        "{{#with prev.o as |id pos|}}{{id.k}}{{pos}}{{k}}{{/with}}",
        "{{#each in.nested}}{{#each this}}{{this}}{{../../../../in.n}}{{/each}}{{/each}}",
        "{{#each in.empty}}x{{else}}{{in.text}}{{/each}}",
        "{{#each in.empty}}x{{/each}}{{#each in.bare}}x{{else}}y{{/each}}{{#each in.n}}x{{else}}z{{/each}}",
        "{{#each (lookup in \"list\")}}{{this}}{{a}}{{@root.in.n}}{{/each}}",
        "{{#with (lookup in \"metadata\")}}{{f}}{{@root.in.n}}{{../in.n}}{{/with}}",
        "{{#if in.zero}}a{{else if in.zero includeZero=true}}b{{else}}c{{/if}}",
        "{{#if in.zero includeZero=true}}a{{/if}}{{#unless in.zero includeZero=true}}b{{/unless}}",
        "{{#len in.list}}x{{/len}}{{#lookup prev \"flag\"}}x{{else}}y{{/lookup}}",
        "{{#eq in.n 4}}a{{else}}b{{/eq}}{{#not prev.flag}}a{{else}}b{{/not}}{{#and}}a{{/and}}{{#or}}a{{else}}b{{/or}}",
        "{{eq in.list prev.same}}{{ne in.list prev.same}}{{eq in.n in.four}}{{eq prev.o prev.o}}",
        "{{gt in.half in.n}}{{gte in.n in.four}}{{lt in.minus in.big}}{{lte in.big in.half}}{{gt in.four 3}}{{lt \"a\" \"b\"}}",
        "{{gt true false}}{{gt null 1}}{{lte \"x\" 1}}{{gt in.big 1.5}}{{lt -1.5 in.minus}}",
        "{{(lookup in \"helper\")}}",
        "{{(lookup in \"other\")}}{{(lookup in \"text\")}}",
        "{{len (if prev.flag)}}{{len (nothing)}}",
        "{{len (nothing)}}",
        "{{lookup in.list 1}}{{lookup in.list \"0\"}}{{lookup in \"text\"}}{{lookup in 0}}",
        "{{log in.text level=\"loud\"}}",
        "{{log in.text level=\"WARN\"}}{{raw in.text}}{{log}}",
        "{{{{raw}}}} {{in.text}} {{{{/raw}}}}",
        "{{in.list.x}} {{in.text}}",
        "{{#if false}}{{in.list.x}}{{/if}} {{in.text}}",
        "{{in.nested}} {{in.list}} {{prev}} {{prev.none}} {{in.half}} {{in.big}}",
        "{{#each this}}{{@key}} {{/each}}",
        "{{#each in.list}}{{in.n}}{{@root}}{{/each}}",
        "{{#unless missing}}{{#with missing}}x{{else}}{{this.in.n}}{{/with}}{{/unless}}",
        "a {{~in.text~}} b {{~#if prev.flag~}} c {{~/if~}} d",
        "x\n  {{#if prev.flag}}\n  y\n  {{/if}}\nz {{! c }}\n",
    ] {
        with_scope(|scope| {
            let everything = scope.find(&Reference::Everything, &mut Budget::default());
            let everything = everything.unwrap().unwrap();
            let expected = HANDLEBARS.render_template(source, &*everything).ok();
            let compiled = Mustache::compile(source);
            let found = compiled
                .ok()
                .and_then(|it| it.render(scope, &mut Budget::default()).ok());
            assert_eq!(found, expected, "{source}");
        });
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
        "in.zero",
        "in.half",
        "in.four",
        "in.big",
        "in.minus",
        "in.nested",
        "in.empty",
        "in.bare",
        "in.helper",
        "prev.same",
        "prev.o",
        "list",
        "this.list",
        "./id",
        ".",
        "../id",
        "../../id",
        "../../../../this",
        "id.id",
        "id.[0]",
        "pos",
        "../pos",
        "@index",
        "@key",
        "@first",
        "@last",
        "@../index",
        "@../../key",
        "@other",
    ])
}

fn value() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        4 => path().prop_map(str::to_owned),
        1 => prop::sample::select(vec![
            "1", "0", "-1", "4.5", "\"text\"", "\"4\"", "true", "null", "[1, {\"a\": \"x\"}]", "{\"id\": 1}", "\"\"",
        ])
        .prop_map(str::to_owned),
    ];
    leaf.prop_recursive(2, 6, 2, |inner| {
        prop_oneof![
            (test(), inner.clone(), inner.clone()).prop_map(|(t, a, b)| format!("({t} {a} {b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("(lookup {a} {b})")),
            inner.clone().prop_map(|a| format!("(not {a})")),
            inner.clone().prop_map(|a| format!("(len {a})")),
            inner.clone().prop_map(|a| format!("(if {a})")),
            inner.clone().prop_map(|a| format!("(each {a})")),
            inner.prop_map(|a| format!("(with {a} b=1)")),
            Just("(and)".to_owned()),
            Just("(raw)".to_owned()),
            Just("(lookup)".to_owned()),
            Just("(nothing)".to_owned()),
        ]
    })
}

fn test() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["eq", "ne", "gt", "gte", "lt", "lte", "and", "or"])
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
        (test(), value(), value()).prop_map(|(t, a, b)| format!("{{{{{t} {a} {b}}}}}")),
        value().prop_map(|v| format!("{{{{len {v}}}}}")),
        value().prop_map(|v| format!("{{{{not {v}}}}}")),
        (value(), value()).prop_map(|(a, b)| format!("{{{{lookup {a} {b}}}}}")),
        value().prop_map(|v| format!("{{{{if {v} includeZero=true}}}}")),
        value().prop_map(|v| format!("{{{{log {v} level=\"warn\"}}}}")),
        prop::sample::select(vec![
            "{{and}}",
            "{{or}}",
            "{{raw}}",
            "{{log}}",
            "{{len}}",
            "{{each}}",
            "{{(lookup in \"helper\")}}",
            "{{(lookup in \"other\")}}",
            "{{(lookup in \"text\")}}",
            "{{{{raw}}}} {{x}} {{{{/raw}}}}",
            "{{&in.f}}",
            "{{log \"x\" level=\"loud\"}}",
            "\\{{in.f}}",
            "{{eq 1}}",
        ])
        .prop_map(str::to_owned),
        Just("plain text\n".to_owned()),
        Just("{{! comment }}".to_owned()),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let block = prop::collection::vec(inner, 1..3).prop_map(|parts| parts.concat());
        prop_oneof![
            (path(), block.clone()).prop_map(|(p, b)| format!("{{{{#if {p}}}}}{b}{{{{/if}}}}")),
            (
                value(),
                block.clone(),
                value(),
                block.clone(),
                block.clone()
            )
                .prop_map(|(v, b, w, c, d)| {
                    format!("{{{{#if {v}}}}}{b}{{{{else if {w}}}}}{c}{{{{else}}}}{d}{{{{/if}}}}")
                }),
            (value(), block.clone(), value(), block.clone()).prop_map(|(v, b, w, c)| {
                format!("{{{{#each {v}}}}}{b}{{{{else with {w} as |id|}}}}{c}{{{{/each}}}}")
            }),
            (value(), block.clone(), block.clone()).prop_map(|(v, b, c)| {
                format!("{{{{#unless {v} includeZero=true}}}}{b}{{{{^}}}}{c}{{{{/unless}}}}")
            }),
            (test(), value(), value(), block.clone(), block.clone()).prop_map(
                |(t, v, w, b, c)| format!("{{{{#{t} {v} {w}}}}}{b}{{{{else}}}}{c}{{{{/{t}}}}}")
            ),
            (value(), block.clone())
                .prop_map(|(v, b)| format!("{{{{#each {v} as |id pos|}}}}{b}{{{{/each}}}}")),
            (value(), block.clone())
                .prop_map(|(v, b)| format!("{{{{#each {v} as |id id|}}}}{b}{{{{/each}}}}")),
            (value(), block.clone())
                .prop_map(|(v, b)| format!("{{{{#with {v} as |in|}}}}{b}{{{{/with}}}}")),
            (value(), block.clone())
                .prop_map(|(v, b)| format!("{{{{#with {v} as |id pos|}}}}{b}{{{{/with}}}}")),
            (value(), block.clone()).prop_map(|(v, b)| format!("{{{{#len {v}}}}}{b}{{{{/len}}}}")),
            (value(), block.clone())
                .prop_map(|(v, b)| format!("{{{{#lookup prev {v}}}}}{b}{{{{/lookup}}}}")),
            block
                .clone()
                .prop_map(|b| format!("{{{{#raw}}}}{b}{{{{/raw}}}}")),
            (value(), block.clone()).prop_map(|(v, b)| format!("{{{{#not {v}}}}}{b}{{{{/not}}}}")),
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
    assert!(Mustache::compile(&"{".repeat(1_000)).is_err());
    for block in ["{{\n#if in}}", "{{ \t#if in}}", "{{~#if in}}"] {
        let source = format!("{}{}", block.repeat(1_000), "{{/if}}".repeat(1_000));
        let fault = Mustache::compile(&source).unwrap_err();
        assert!(fault.contains("nests deeper"), "{block}: {fault}");
    }
    let objects = format!(
        "{{{{len {}1{}}}}}",
        "{\"a\":".repeat(1_000),
        "}".repeat(1_000)
    );
    assert!(
        Mustache::compile(&objects)
            .unwrap_err()
            .contains("nests deeper")
    );
    let chain = |links: usize| {
        format!(
            "{{{{#if in}}}}{}{{{{/if}}}}",
            "{{else if in}}".repeat(links)
        )
    };
    assert!(
        Mustache::compile(&chain(1_000))
            .unwrap_err()
            .contains("nests deeper")
    );
    assert!(Mustache::compile(&chain(200)).is_ok());
}

#[test]
fn long_templates_are_refused() {
    let fault = |source: String| Mustache::compile(&source).unwrap_err();
    assert!(fault(format!("{{{{in}}}}{}", "x".repeat(MAX_BYTES))).contains("65536"));
    assert!(fault("{{in}} ".repeat(MAX_MUSTACHES + 1)).contains("501 mustaches"));
}
