use super::*;

#[track_caller]
fn check(answer: Result<Value, ComponentError>, expected: Value) {
    assert_eq!(answer.unwrap(), expected);
}

#[tokio::test]
async fn a_node_of_0_6_gets_its_payload_and_answers_in_cbor() {
    let mut bench = Bench::new("echo");
    for payload in [
        json!({"a": [1, -2, 3.5, "x", null, true], "b": {"c": u64::MAX}}),
        json!("text"),
        json!(null),
        json!([]),
    ] {
        check(bench.run("run", payload.clone()).await, payload);
    }
    let failed = json!({"ok": false, "error": {"code": "COMPONENT_INVOCATION_FAILED", "message": r#"{"a":1}"#, "retryable": false}});
    check(bench.run("not-ok", json!({"a": 1})).await, failed);
    let error =
        json!({"ok": false, "error": {"code": "bad", "message": "bad", "retryable": false}});
    check(bench.run("error", json!(1)).await, error);
}

#[tokio::test]
async fn a_node_of_0_6_learns_who_calls_and_which_call_it_is() {
    let mut bench = Bench::new("echo");
    check(bench.run("metadata", json!(1)).await, Value::Null);
    bench.call.caller = Some(json!({"sub": "u@x", "user_verified": true, "groups": ["a"]}));
    let known =
        json!({"caller.sub": "u@x", "caller.groups": r#"["a"]"#, "caller.user_verified": "true"});
    check(bench.run("metadata", json!(1)).await, known);
    check(bench.run("idempotency", json!(1)).await, json!("turn-0"));
}

#[tokio::test]
async fn nodes_of_0_4_and_0_5_get_json_in_an_envelope_and_cards_without() {
    for name in ["echo-0.4", "echo-0.5"] {
        let mut bench = Bench::new(name);
        let envelope = bench.run("run", json!({"a": 1})).await.unwrap();
        let bytes: Vec<u8> = serde_json::from_value(envelope["payload"].clone()).unwrap();
        assert_eq!(bytes, br#"{"a":1}"#, "{name}: {envelope}");
        assert_eq!(envelope["op"], "run");
        assert_eq!(envelope["flow_id"], "main");
        assert_eq!(envelope["node_id"], "ask");
        assert_eq!(envelope["ctx"]["tenant"], "dev.local");
        assert_eq!(envelope["ctx"]["env"], "dev");
        let mut bench = bench.form(InvocationForm::Card);
        check(bench.run("run", json!({"a": 1})).await, json!({"a": 1}));
    }
    let mut bench = Bench::new("echo-0.4");
    let error = json!({"ok": false, "error": {"code": "bad", "message": "bad", "retryable": true, "backoff_ms": 250, "details": {"a": 1}}});
    check(bench.run("error", json!(1)).await, error);
}

#[tokio::test]
async fn a_component_without_a_node_interface_is_run() {
    let mut bench = Bench::new("run");
    let envelope = bench.run("go", json!(5)).await.unwrap();
    assert_eq!(envelope["payload"], json!([b'5']), "{envelope}");
    let mut bench = bench.form(InvocationForm::Card);
    check(bench.run("go", json!({"a": 1})).await, json!({"a": 1}));
}

#[tokio::test]
async fn providers_are_called_under_each_of_their_names_and_only_as_such() {
    for name in ["provider-schema-core", "provider", "provider-core"] {
        let mut bench = Bench::new(name).form(InvocationForm::Provider);
        check(bench.run("send", json!({"a": 1})).await, json!({"a": 1}));
        let mut bench = bench.form(InvocationForm::Node);
        let error = bench.run("send", json!(1)).await.unwrap_err();
        assert!(matches!(error, ComponentError::Unusable { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_component_that_is_not_loaded_cannot_be_called() {
    let mut bench = Bench::new("echo");
    bench.worker.retain(&std::collections::HashSet::new());
    let error = bench.run("run", json!(1)).await.unwrap_err();
    let expected = "component `echo` cannot be called: its code is not loaded";
    assert_eq!(error.to_string(), expected);
}

#[tokio::test]
async fn nothing_is_left_of_a_call_for_the_next_one() {
    let count = "
        (global $calls (mut i32) (i32.const 0))
        (func (export \"greentic:component/node@0.6.0#invoke\") (param i32) (result i32)
          (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
          (i32.store8 (i32.const 4096) (i32.add (i32.load8_u (i32.const 4096)) (i32.const 1)))
          (i32.store8 (i32.const 4097) (i32.add (i32.const 0x30) (global.get $calls)))
          (i32.store8 (i32.const 4098) (i32.add (i32.const 0x30) (i32.load8_u (i32.const 4096))))
          (call $answer (i32.const 4097) (i32.const 2)))";
    let prelude = std::fs::read_to_string("tests/components/prelude.wat").unwrap();
    let code = components::from_text(
        "export greentic:component/node@0.6.0;",
        &format!("{count}\n{prelude}"),
    );
    let mut bench = Bench::of("count", &code, &config());
    for _ in 0..20 {
        check(bench.run("run", json!(1)).await, json!(11));
    }
}

/// Components that the ecosystem's tools built, from the sources of a dependency of these tests.
fn of_the_ecosystem(file: &str) -> Vec<u8> {
    // Only the packages of this platform are sure to be on this machine.
    let rustc = std::process::Command::new("rustc").arg("-vV").output();
    let about = String::from_utf8(rustc.unwrap().stdout).unwrap();
    let host = about.lines().find_map(|line| line.strip_prefix("host: "));
    let listed = std::process::Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--offline"])
        .args(["--filter-platform", host.unwrap()])
        .output()
        .unwrap();
    assert!(listed.status.success(), "{listed:?}");
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    let packages = listed["packages"].as_array().unwrap();
    let state = packages
        .iter()
        .find(|package| package["name"] == "greentic-state")
        .unwrap();
    let manifest = std::path::Path::new(state["manifest_path"].as_str().unwrap());
    std::fs::read(manifest.with_file_name(file)).unwrap()
}

#[tokio::test]
async fn components_that_were_built_by_others_run() {
    const PACK: &str = "packs/state-memory/components";
    let code = of_the_ecosystem(&format!("{PACK}/templates/templates.wasm"));
    let mut bench = Bench::of("templates", &code, &config());
    let answer = bench.run("text", json!({"name": "Ada"})).await.unwrap();
    let message = answer["message"].as_str().unwrap();
    let (_, envelope) = message.split_once(" => ").unwrap();
    let envelope: Value = serde_json::from_str(envelope).unwrap();
    assert_eq!(
        envelope["payload"],
        json!(br#"{"name":"Ada"}"#),
        "{message}"
    );
    assert_eq!(envelope["op"], "text");
    let code = of_the_ecosystem(&format!(
        "{PACK}/state-provider-memory/state-provider-memory.wasm"
    ));
    let mut bench =
        Bench::of("state-provider-memory", &code, &config()).form(InvocationForm::Provider);
    let refused = json!({"ok": false, "error": "unsupported op: read"});
    check(bench.run("read", json!({"key": "k"})).await, refused);
}
