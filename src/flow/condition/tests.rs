use std::collections::BTreeMap;

use serde_json::{Map, json};
use time::macros::datetime;

use super::*;
use crate::flow::scope::Outputs;

/// Whether a condition holds for this output and payload, or what is wrong with it.
#[track_caller]
fn check(condition: &str, expected: Result<bool, &str>) {
    let output = json!({
        "n": 10, "text": "Red and Blue", "yes": true, "none": null, "list": [1, 2], "o": {"k": "v"},
        "tom": "tom and jerry", "smile": "fine :)", "call": "f(x)", "op": "a==b", "not": {"n": 1},
    });
    let entry = json!({"text": "Hello", "metadata": {"action": "go", "text": "hidden"}});
    let (outputs, vars, env) = (Outputs::new(), Map::new(), BTreeMap::new());
    let scope = Scope {
        entry: &entry,
        input: &entry,
        prev: &output,
        outputs: &outputs,
        vars: &vars,
        jumps: 0,
        env: &env,
        now: datetime!(2026-09-09 10:00 UTC),
        given: None,
    };
    let sight = Sight {
        scope: &scope,
        output: &output,
        event: "on_success",
    };
    let mut budget = Budget::default();
    let mut work = Work::new(&mut budget);
    let holds = |condition: Condition| condition.holds(&sight, &mut work).unwrap();
    let found = Condition::compile(condition).map(holds);
    assert_eq!(found, expected.map_err(str::to_owned), "{condition}");
}

#[test]
fn one_comparison() {
    check("n == 10", Ok(true));
    check("n==\"10\"", Ok(true));
    check("text == red AND blue", Ok(true));
    check("text == \"red and blue\"", Ok(true));
    check("text != \"red and blue\"", Ok(false));
    check("yes == TRUE", Ok(true));
    check("none == null", Ok(true));
    check("list == [1,2]", Ok(true));
    check("o.k == v", Ok(true));
    check("list.0 == 1", Ok(false));
    check("n > 9", Ok(true));
    check("n >= 10.0", Ok(true));
    check("n < 9", Ok(false));
    check("n <= ten", Ok(false));
    check("text > 1", Ok(false));
    check("text contains AND", Ok(true));
    check("text contains \"d a\"", Ok(true));
    check("op == \"a==b\"", Ok(true));
    check("op == a==b", Ok(true));
    check("event == on_success", Ok(true));
    check("response.action == go", Ok(true));
    check("response.text == hello", Ok(true));
    check("entry.metadata.action == go", Ok(true));
    check("in.input.text == hello", Ok(true));
}

#[test]
fn a_missing_path_equals_nothing() {
    check("missing == \"\"", Ok(false));
    check("missing != x", Ok(true));
    check("missing < 1", Ok(false));
    check("missing contains x", Ok(false));
    check("o.k.deeper != x", Ok(true));
    check("n", Ok(false));
    check("", Ok(false));
    check("not n", Ok(false));
}

#[test]
fn joined_comparisons() {
    check("n == 10 and yes == true", Ok(true));
    check("n == 10 and yes == false", Ok(false));
    check("n == 1 or yes == true", Ok(true));
    check("n == 10 or n == 1 and n == 2", Ok(true));
    check("(n == 10 or n == 1) and n == 2", Ok(false));
    check("not n == 1", Ok(true));
    check("not (n == 10 and yes == true)", Ok(false));
    check("not(n == 1)and(yes == true)", Ok(true));
    check("n == 10\n  and yes == true", Ok(true));
    check("((n == 10))", Ok(true));
    check("not not n == 10", Ok(true));
}

#[test]
fn words_and_brackets_inside_a_text() {
    check("tom == tom and jerry", Ok(true));
    check("tom == tom and jerry or n == 1", Ok(true));
    check("tom == tom and jerry and n == 1", Ok(false));
    check("(tom == tom and jerry) and n == 10", Ok(true));
    check("tom == \"tom and n == 10\"", Ok(false));
    check("smile == fine :)", Ok(true));
    check("call == f(x)", Ok(true));
    check("(call == f(x) and n == 10)", Ok(true));
    check("not.n == 1", Ok(true));
}

#[test]
fn what_cannot_be_read() {
    check("(n == 1", Err("a bracket is not closed"));
    check("== 1", Err("a comparison has no path on its left"));
    check("(n) == 1", Err("a bracket is not closed"));
    check("(n == 1) x", Err("`x` is left over"));
    check("(n == 1) and", Err("`and` is left over"));
    check("(n == 1) and ", Err("it ends where a comparison should be"));
    check(
        "(n == 1) or (n)",
        Err("`n)` is no comparison: it has no operator"),
    );
    let deep = format!("{}n == 1", "(".repeat(1_000));
    check(&deep, Err("it nests deeper than 64 levels"));
}

#[test]
fn a_condition_is_refused_that_is_longer_than_anybody_writes() {
    let longest = format!("n == 10 or text == {}", "x".repeat(4096 - 19));
    check(&longest, Ok(true));
    check(
        &format!("{longest}x"),
        Err("it has 4097 bytes, and a condition may have 4096"),
    );
}

#[test]
fn one_text_is_lowered_once_for_all_routes() {
    let text = Value::String("Red and Blue ".repeat(5_000));
    let conditions = (0..400).map(|n| format!("text contains route{n}"));
    let conditions: Vec<_> = conditions
        .map(|source| Condition::compile(&source).unwrap())
        .collect();
    let output = json!({ "text": text });
    let steps = |conditions: &[Condition]| {
        let monitor = crate::flow::RunMonitor::default();
        let mut budget = Budget::new(
            crate::flow::Limits {
                steps_per_node: u64::MAX,
                steps_per_turn: u64::MAX,
                ..Default::default()
            },
            &monitor,
        );
        let mut work = Work::new(&mut budget);
        let (outputs, vars, env) = (Outputs::new(), Map::new(), BTreeMap::new());
        let scope = Scope {
            entry: &output,
            input: &output,
            prev: &output,
            outputs: &outputs,
            vars: &vars,
            jumps: 0,
            env: &env,
            now: datetime!(2026-09-09 10:00 UTC),
            given: None,
        };
        let sight = Sight {
            scope: &scope,
            output: &output,
            event: "on_success",
        };
        for condition in conditions {
            assert!(!condition.holds(&sight, &mut work).unwrap());
        }
        budget.report();
        monitor.steps()
    };
    let (one, all) = (steps(&conditions[..1]), steps(&conditions));
    assert!(all < 100 * one, "{one} for one, {all} for 400");
    assert!(
        all > 50 * one,
        "what is searched is charged for: {one}, {all}"
    );
}
