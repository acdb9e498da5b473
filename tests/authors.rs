//! What authors of packs are told: by the examples of docs/packs.md, by the tests of the demo, and by `flow test` when
//! something is wrong.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// A component without any code: enough to build a pack whose tests play it.
const EMPTY_COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn worker(args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greentic-worker"));
    // The cache of compiled components goes there, too.
    let folder = env!("CARGO_TARGET_TMPDIR");
    command
        .env_clear()
        .current_dir(folder)
        .args(args)
        .output()
        .unwrap()
}

#[track_caller]
fn flow_test(dir: &Path) -> String {
    let output = worker(&["flow", "test", &dir.to_string_lossy()]);
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert_eq!(output.status.code(), Some(0), "{out}{err}");
    // The examples' components are empty: their tests play them.
    let is_warning =
        |line: &&str| line.starts_with("warning: ") && !line.contains("it exports none of");
    assert_eq!(err.lines().find(is_warning), None, "{out}");
    out
}

fn put(dir: &Path, path: &str, content: impl AsRef<[u8]>) {
    let file = dir.join(path);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, content).unwrap();
}

/// The files that a section shows: blocks of YAML whose first line names a file.
fn shown(section: &str) -> Vec<(&str, &str)> {
    let blocks = section.split("```yaml\n# ").skip(1);
    blocks
        .map(|block| {
            block
                .split_once("\n```")
                .unwrap()
                .0
                .split_once('\n')
                .unwrap()
        })
        .collect()
}

#[test]
fn every_example_of_the_docs_is_a_pack_that_passes_its_tests() {
    let docs = fs::read_to_string(root().join("docs/packs.md")).unwrap();
    let config = shown(&docs)[0];
    let mut examples = 0;
    for section in docs.split("\n## ") {
        let files = shown(section);
        if files.is_empty() {
            continue;
        }
        let dir = TempDir::new().unwrap();
        for (path, text) in [config].iter().chain(&files) {
            put(dir.path(), path, text);
            for line in text.lines() {
                if let Some(wasm) = line.trim().strip_prefix("wasm: ") {
                    put(dir.path(), wasm, EMPTY_COMPONENT);
                }
            }
            if path.ends_with(".json") {
                let card: serde_json::Value = serde_yaml::from_str(text).unwrap();
                put(dir.path(), path, card.to_string());
            }
        }
        assert!(
            flow_test(dir.path()).ends_with("1 passed, 0 failed\n"),
            "{section}"
        );
        examples += 1;
    }
    assert!(examples >= 8, "{examples} examples were found");
}

#[test]
fn the_demo_packs_pass_their_tests() {
    for pack in ["hello-pack", "approval-pack"] {
        flow_test(&root().join("packs").join(pack));
    }
}

/// A pack of one flow, with its test and perhaps a mistake in either.
fn check(flow: &str, test: &str, code: i32, says: &[&str]) {
    let dir = TempDir::new().unwrap();
    put(
        dir.path(),
        "pack.yaml",
        "pack_id: p\nversion: 1.0.0\nkind: application\npublisher: us\n",
    );
    put(
        dir.path(),
        "flows/main.ygtc",
        format!("id: main\ntype: messaging\nnodes:\n{flow}"),
    );
    put(
        dir.path(),
        "flows/other.ygtc",
        "id: other\ntype: messaging\nnodes:\n  o: {emit.message: {text: o}, routing: out}\n",
    );
    put(dir.path(), "flows/main.test.yaml", test);
    let output = worker(&["flow", "test", &dir.path().to_string_lossy()]);
    let [out, err] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert_eq!(output.status.code(), Some(code), "{out}{err}");
    for words in says {
        assert!(
            format!("{out}{err}").contains(words),
            "nothing says `{words}`:\n{out}{err}"
        );
    }
}

const HELLO: &str = "  a: {emit.message: {text: hello}, routing: out}\n";
const TEST: &str = "- case: greets\n  script:\n    - {flow: main, send: hi, replies: [hello]}\n";

#[test]
fn mistakes_in_a_flow_name_its_file_its_line_and_a_remedy() {
    check(HELLO, TEST, 0, &["1 passed, 0 failed"]);
    check(
        "  a: {emit.message: {text: x}, routing: [{to: b}]}\n  b: {component.exec: {component: no.such, operation: x}, routing: out}\n",
        TEST,
        64,
        &[
            "main.ygtc: line 5, nodes.b: it calls component `no.such`",
            "help: add the component to the pack",
        ],
    );
    check(
        "  a: {emit.message: {text: x}, routing: [{to: nowhere}]}\n",
        TEST,
        64,
        &["main.ygtc: line 4", "nowhere", "help: "],
    );
}

#[test]
fn a_case_that_fails_shows_what_was_expected_and_what_was_found() {
    let test =
        |turn: &str| format!("- case: fails\n  script:\n    - {{flow: main, send: hi, {turn}}}\n");
    for (turn, says) in [
        (
            "replies: [bye]",
            ["replies[0]", "expected: \"bye\"", "found:    \"hello\""],
        ),
        (
            "replies: [hello, more]",
            ["replies[1]", "expected: \"more\"", "found:    nothing"],
        ),
        (
            "replies: []",
            [
                "replies[0]",
                "expected: no more replies",
                "found:    \"hello\"",
            ],
        ),
        (
            "replies: [hello], waits: main/a",
            [
                "waits",
                "expected: main/a",
                "found:    the conversation is over",
            ],
        ),
        (
            "replies: [hello], state: {main/k: 1}",
            ["state main/k", "expected: 1", "found:    null"],
        ),
        (
            "replies: [{text: hello, metadata: {a: b}}]",
            ["replies[0].metadata.a", "expected: \"b\"", "found:    null"],
        ),
        (
            "error: no_such_flow",
            ["error", "expected: no_such_flow", "found:    no error"],
        ),
        (
            "replies: [hello], calls: [{call: main/a c op, answer: 1}]",
            ["calls", "expected: main/a c op", "found:    nothing"],
        ),
    ] {
        let says = [
            &says[..],
            &["main.test.yaml:3: fails, turn 1", "0 passed, 1 failed"],
        ]
        .concat();
        check(HELLO, &test(turn), 1, &says);
    }
}

#[test]
fn mistakes_in_a_test_are_no_failures() {
    for (test, says) in [
        (
            "- case: x\n  script: [{send: hi, repliez: []}]\n",
            "unknown field `repliez`",
        ),
        (
            "- case: x\n  script: [{send: hi, advance: soon}]\n",
            "this is no duration",
        ),
        (
            "- case: x\n  script: [{send: [hi]}]\n",
            "a message is a text",
        ),
        (
            "- case: x\n  script: [{send: hi, state: {k: 1}}]\n",
            "does not name its flow",
        ),
    ] {
        check(HELLO, test, 64, &[says, "line ", "help: "]);
    }
}

/// Runs `pack build` in a folder; its exit code and what it says.
fn build(dir: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greentic-worker"));
    let command = command.env_clear().current_dir(dir);
    let output = command
        .args(["pack", "build", "src"])
        .args(args)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

#[test]
fn a_pack_that_is_built_again_replaces_no_other_archive_and_no_other_binding() {
    let dir = TempDir::new().unwrap();
    let config = "pack_id: p\nversion: 1.0.0\nkind: application\npublisher: us\n";
    let flow = |text: &str| {
        format!(
            "id: main\ntype: messaging\nnodes:\n  a: {{emit.message: {{text: {text}}}, routing: out}}\n"
        )
    };
    put(dir.path(), "src/pack.yaml", config);
    put(dir.path(), "src/flows/main.ygtc", flow("one"));
    let (code, said) = build(dir.path(), &["--bind", "t1"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("wrote bindings/t1.p.gtbind"), "{said}");
    assert_eq!(build(dir.path(), &["--bind", "t2"]).0, Some(0));
    let bound = |name: &str| fs::read_to_string(dir.path().join("bindings").join(name)).unwrap();
    let by_hand = format!("# ours\n{}env_passthrough: [LANG]\n", bound("t1.p.gtbind"));
    put(dir.path(), "bindings/t1.p.gtbind", &by_hand);
    let (before, other) = (by_hand, bound("t2.p.gtbind"));
    let archive = fs::read(dir.path().join("packs/store/p-1.0.0.gtpack")).unwrap();

    // Other content under the same version.
    put(dir.path(), "src/flows/main.ygtc", flow("two"));
    let (code, said) = build(dir.path(), &["--bind", "t1"]);
    assert_eq!(code, Some(64), "{said}");
    assert!(
        said.contains(
            "packs/store/p-1.0.0.gtpack: the store holds another archive of version 1.0.0"
        ),
        "{said}"
    );
    assert_eq!(
        fs::read(dir.path().join("packs/store/p-1.0.0.gtpack")).unwrap(),
        archive
    );
    assert_eq!(bound("t1.p.gtbind"), before);

    put(
        dir.path(),
        "src/pack.yaml",
        config.replace("1.0.0", "1.1.0"),
    );
    let (code, said) = build(dir.path(), &["--bind", "t1"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("updated bindings/t1.p.gtbind"), "{said}");
    let after = bound("t1.p.gtbind");
    assert!(
        after.starts_with("# ours\n") && after.ends_with("env_passthrough: [LANG]\n"),
        "{after}"
    );
    assert!(
        after.contains("store://p@1.1.0") && after != before,
        "{after}"
    );
    assert_eq!(bound("t2.p.gtbind"), other);

    put(dir.path(), "src/flows/main.ygtc", flow("three"));
    assert_eq!(build(dir.path(), &[]).0, Some(64));
    assert_eq!(build(dir.path(), &["--force"]).0, Some(0));
}
