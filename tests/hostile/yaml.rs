//! What operators and authors write, in the hands of someone else: gtbinds, flows, pack.yaml and settings.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use greentic_worker::bindings::GtBind;
use greentic_worker::pack;
use greentic_worker::settings::{self, Flags};
use proptest::prelude::*;
use tempfile::TempDir;

/// Every door that YAML comes in by; whether it was taken. None may panic.
fn read_all(text: &str) -> [bool; 4] {
    let dir = TempDir::new().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("settings.yaml"), text).unwrap();
    fs::create_dir(at("flows")).unwrap();
    fs::write(at("pack.yaml"), text).unwrap();
    fs::write(
        at("flows/main.ygtc"),
        "id: main\ntype: messaging\nnodes: {a: {emit.message: hi}}\n",
    )
    .unwrap();
    let settings = at("settings.yaml");
    [
        GtBind::parse(Path::new("t.gtbind"), text).is_ok(),
        pack::parse_flow(Path::new("main.ygtc"), text).is_ok(),
        pack::build(dir.path()).is_ok(),
        settings::load(Some(&settings), &BTreeMap::new(), &Flags::default()).is_ok(),
    ]
}

/// Pieces of the documents that are meant, and of YAML's own grammar.
fn piece() -> impl Strategy<Value = String> {
    prop_oneof![
        8 => prop::sample::select(vec![
            "tenant: t\n", "pack_id: sha256:00\n", "pack_ref: store://a@1\n", "flows:\n", "  - id: main\n",
            "env_passthrough: [A]\n", "id: main\n", "type: messaging\n", "nodes:\n", "  a:\n",
            "    emit.message: \"{{in.text}}\"\n", "    routing: [{to: b}]\n", "    routing:\n", "      - out: true\n",
            "version: 1.0.0\n", "kind: application\n", "publisher: p\n", "nats:\n", "  url: x\n", "worker: {attempts: 0}\n",
            "limits: {nodes: -1}\n", "&a ", "*a ", "<<: *a\n", "? ", "!!binary ", "--- ", "...", "|\n", ">-\n", "{", "}", "[", "]",
            "- ", ": ", "#", "\t", "  ", "\n", "'", "\"", "\u{feff}", "~", "1e999", ".inf", "0x", "!tag ", "%YAML 9\n",
        ]).prop_map(str::to_owned),
        1 => ".{0,8}",
    ]
}

proptest! {
    #![proptest_config(super::cases(300))]

    #[test]
    fn any_text(text in "\\PC{0,80}") {
        read_all(&text);
    }

    #[test]
    fn texts_of_the_right_words(pieces in prop::collection::vec(piece(), 0..25)) {
        read_all(&pieces.concat());
    }
}

#[track_caller]
fn check_bomb(name: &str, text: &str) {
    let began = Instant::now();
    assert_eq!(read_all(text), [false; 4], "{name} was taken");
    // Even on a machine that does ten other things; a bomb that goes off takes for ever, or the machine.
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "{name} took {:?}",
        began.elapsed()
    );
}

#[test]
fn bombs_do_not_go_off() {
    let mut laughs = "a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol]\n".to_owned();
    let mut merges = "m0: &m0 {x: 1}\n".to_owned();
    for n in 1..30 {
        let of = |name: &str| vec![format!("*{name}{}", n - 1); 9].join(",");
        laughs += &format!("a{n}: &a{n} [{}]\n", of("a"));
        merges += &format!(
            "m{n}: &m{n} {{p: *m{0}, q: *m{0}, <<: [*m{0}, *m{0}]}}\n",
            n - 1
        );
    }
    check_bomb("a billion laughs", &laughs);
    check_bomb("a billion merges", &merges);
    check_bomb("an alias of itself", "a: &a [*a]\n");
    check_bomb("deep lists", &"[".repeat(100_000));
    check_bomb(
        "deep lists that end",
        &("[".repeat(10_000) + &"]".repeat(10_000)),
    );
    check_bomb("deep maps", &"{a: ".repeat(100_000));
    check_bomb(
        "deep blocks",
        &(0..2_000)
            .map(|n| " ".repeat(n) + "a:\n")
            .collect::<String>(),
    );
    check_bomb("deep sequences", &"- ".repeat(100_000));
    check_bomb("many anchors", &"- &a b\n".repeat(50_000));
    check_bomb("a long key", &"k".repeat(1_000_000));
}
