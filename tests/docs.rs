//! The docs say what is: what a program can check of them is checked here.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot read the tree fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use greentic_worker::turn::{DEAD_LETTER_CODES, ID_REUSED, REPLY_UNDELIVERABLE};
use serde_json::{Value, json};

fn file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    fs::read_to_string(file(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn worker(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_greentic-worker"))
        .args(args)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_schemas_are_those_of_the_types() {
    for body in ["inbound", "outbound"] {
        let path = format!("docs/schemas/{body}.json");
        let remedy = format!("cargo run -- schema {body} > {path}");
        assert_eq!(
            read(&path),
            worker(&["schema", body]),
            "out of step; run: {remedy}"
        );
    }
}

#[track_caller]
fn check_schema(body: &str, instance: &Value, valid: bool) {
    let schema: Value = serde_json::from_str(&read(&format!("docs/schemas/{body}.json"))).unwrap();
    assert_eq!(jsonschema::is_valid(&schema, instance), valid, "{instance}");
}

#[test]
fn the_inbound_schema_takes_what_the_worker_takes() {
    let lean = json!({"id": "1", "from": {"id": "u1"}, "reply_scope": {"conversation": "c1"}, "text": "hi"});
    check_schema("inbound", &lean, true);
    check_schema(
        "inbound",
        &json!({"id": "1", "metadata": {"n": 1, "b": true}, "extra": 1}),
        true,
    );
    check_schema("inbound", &json!({"id": "1", "text": 5}), false);
    check_schema("inbound", &json!({"id": "1", "reply_scope": {}}), false);
    check_schema("inbound", &json!([]), false);
}

#[test]
fn every_code_of_a_dead_letter_is_explained_to_providers() {
    let docs = read("docs/providers.md");
    let mut codes = BTreeSet::new();
    for source in [
        "src/model/decode.rs",
        "src/registry/entry.rs",
        "src/flow/error.rs",
        "src/turn/failure.rs",
    ] {
        let text = read(source);
        let (_, body) = text.split_once("fn code(&self)").unwrap();
        let (body, _) = body.split_once("\n    }\n").unwrap();
        for code in body
            .split("=> \"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
        {
            assert!(
                docs.contains(&format!("`{code}`")),
                "docs/providers.md does not explain `{code}` of {source}"
            );
            codes.insert(code.to_owned());
        }
    }
    // Handed back, and never dead-lettered.
    for code in ["refused", "tenant_not_bound"] {
        assert!(codes.remove(code), "`{code}` is not found where it was");
    }
    for code in [ID_REUSED, REPLY_UNDELIVERABLE] {
        assert!(
            docs.contains(&format!("`{code}`")),
            "`{code}` is not explained"
        );
        codes.insert(code.to_owned());
    }
    let counted: BTreeSet<String> = DEAD_LETTER_CODES
        .iter()
        .map(|&code| code.to_owned())
        .collect();
    assert_eq!(
        counted, codes,
        "the codes that are counted from zero (src/turn/codes.rs)"
    );
}
