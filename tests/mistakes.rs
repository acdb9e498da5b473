//! An operator's mistakes: each gives one clear message that names the place, and exit code 64, from the real binary.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails by panicking"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The gtbind of the demo, with one line replaced or appended.
fn gtbind(line: &str, by: &str) -> String {
    let text = fs::read_to_string(Path::new(ROOT).join("bindings/hello-pack.gtbind")).unwrap();
    if line.is_empty() {
        format!("{text}{by}\n")
    } else {
        text.replace(line, by)
    }
}

fn check(dir: &TempDir, args: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_greentic-worker"));
    command
        .env_clear()
        .envs(variables.iter().copied())
        .current_dir(dir.path());
    command
        .args(["check", "--packs-store", &format!("{ROOT}/packs/store")])
        .args(args)
        .output()
        .unwrap()
}

/// The problems that standard error tells of must be these, each with what it says.
#[track_caller]
fn expect(output: &Output, says: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{text}");
    let errors = text
        .lines()
        .filter(|line| line.starts_with("error: "))
        .count();
    assert_eq!(errors, says.len(), "{text}");
    for words in says {
        assert!(text.contains(words), "nothing says `{words}`:\n{text}");
    }
    assert!(
        !text.contains("panicked") && !text.contains("RUST_BACKTRACE"),
        "{text}"
    );
}

#[track_caller]
fn check_gtbind(text: &str, says: &[&str]) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("x.gtbind"), text).unwrap();
    expect(&check(&dir, &["--bindings", "x.gtbind"], &[]), says);
}

#[track_caller]
fn check_settings(yaml: &str, variables: &[(&str, &str)], says: &[&str]) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("settings.yaml"), yaml).unwrap();
    let bindings = format!("{ROOT}/bindings");
    let args = [
        "--config",
        "settings.yaml",
        "--bindings-dir",
        bindings.as_str(),
    ];
    expect(&check(&dir, &args, variables), says);
}

#[test]
fn broken_gtbinds() {
    let id = gtbind("", "")
        .lines()
        .find(|line| line.starts_with("pack_id"))
        .unwrap()
        .to_owned();
    let other = "pack_id: sha256:0000000000000000000000000000000000000000000000000000000000000000";
    check_gtbind(&gtbind(&id, ""), &["the field `pack_id` is missing"]);
    check_gtbind(
        &gtbind(&id, "pack_id: sha256:abc"),
        &["line 2, pack_id: `sha256:abc` is not a pack id"],
    );
    check_gtbind(&gtbind(&id, other), &["is refused: the archive is sha256:"]);
    check_gtbind(
        &gtbind("", "env_passthru: []"),
        &["unknown field `env_passthru`"],
    );
    check_gtbind(
        &gtbind("", "channels: []"),
        &["a gtbind has no `channels` section"],
    );
    check_gtbind(
        &gtbind("dev.local", "dev local"),
        &["line 1, tenant: `dev local` is no tenant"],
    );
    check_gtbind(
        &gtbind("dev.local", "dev..local"),
        &["an empty part between, before or after its dots"],
    );
    check_gtbind(
        &gtbind("main", "nowhere"),
        &["line 5, flows[0].id: the pack `store://hello-pack@1.0.0` has no flow"],
    );
    check_gtbind(
        &gtbind("  - id: main", "  []"),
        &["lists none, so nothing could ever be started"],
    );
    check_gtbind(&gtbind("@1.0.0", "@9.0.0"), &["the pack store has no"]);
    check_gtbind(
        &gtbind("store://", "gopher://"),
        &["`gopher://` is not a known place for packs"],
    );
    check_gtbind("tenant: [dev.local", &["this is not valid YAML"]);
    check_gtbind("", &["expected fields"]);
    check_gtbind(
        &gtbind("", "env_passthrough: [SECRET]"),
        &["the variable `SECRET` is not allowed"],
    );
    let own = "env_passthrough: [GREENTIC_WORKER__REDIS__URL]";
    check_gtbind(
        &gtbind("", own),
        &["is a setting of the worker itself, which no pack may see"],
    );
}

#[test]
fn all_mistakes_of_a_file_are_told_at_once() {
    let text = gtbind("dev.local", "dev local").replace("@1.0.0", "");
    check_gtbind(
        &(text + "channels: []\n"),
        &["line 1, tenant", "line 3, pack_ref", "line 6, channels"],
    );
}

#[test]
fn files_that_contradict_each_other() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.gtbind"), gtbind("", "")).unwrap();
    let other = "sha256:0000000000000000000000000000000000000000000000000000000000000000";
    let id = gtbind("", "")
        .lines()
        .find_map(|line| line.strip_prefix("pack_id: "))
        .unwrap()
        .to_owned();
    fs::write(dir.path().join("b.gtbind"), gtbind(&id, other)).unwrap();
    let output = check(&dir, &["--bindings-dir", "."], &[]);
    expect(
        &output,
        &["b.gtbind: line 2, pack_id: for tenant `dev.local` this file says"],
    );
    assert!(String::from_utf8_lossy(&output.stderr).contains("a.gtbind"));
}

#[test]
fn nothing_to_run() {
    let dir = TempDir::new().unwrap();
    expect(&check(&dir, &[], &[]), &["no bindings were given"]);
    expect(
        &check(&dir, &["--bindings-dir", "nowhere"], &[]),
        &["nowhere: there is no such file"],
    );
    expect(
        &check(&dir, &["--bindings-dir", "."], &[]),
        &["the folder holds no `*.gtbind` file"],
    );
    expect(
        &check(&dir, &["--config", "nowhere.yaml"], &[]),
        &["nowhere.yaml: the settings cannot be read"],
    );
}

#[test]
fn broken_settings() {
    check_settings("nats:\n  urll: x\n", &[], &["nats.urll: no such setting"]);
    check_settings(
        "worker:\n  slots: many\n",
        &[],
        &["worker.slots: expected a whole number above 0"],
    );
    check_settings("worker:\n  slots: 0\n", &[], &["worker.slots"]);
    check_settings("worker:\n  wait_ttl: soon\n", &[], &["worker.wait_ttl"]);
    check_settings(
        "redis: 5\n",
        &[],
        &["`redis` is a section, not a single value"],
    );
    check_settings("redis:\n  url: http://x\n", &[], &["redis.url"]);
    check_settings(
        "http:\n  listen: everywhere\n",
        &[],
        &["`everywhere` is nowhere to listen"],
    );
    check_settings("nats: [\n", &[], &["settings.yaml"]);
    check_settings("environment: my env\n", &[], &["environment"]);
    check_settings(
        "tenants:\n  dev.local:\n    default_flow: main\n",
        &[],
        &["`main` is no flow"],
    );
    let missing = "tenants:\n  dev.local:\n    default_flow: hello-pack/nowhere\n";
    check_settings(
        missing,
        &[],
        &["the default flow `hello-pack/nowhere` of tenant `dev.local` is not there"],
    );
    check_settings(
        "",
        &[("GREENTIC_WORKER_NATS_URL", "x")],
        &["did you mean GREENTIC_WORKER__NATS__URL?"],
    );
    check_settings(
        "",
        &[("GREENTIC_WORKER__NATS__URLL", "x")],
        &["GREENTIC_WORKER__NATS__URLL: no such setting"],
    );
    let three = "nats:\n  urll: x\nredis: 5\nworker:\n  slots: many\n";
    check_settings(
        three,
        &[],
        &["nats.urll", "`redis` is a section", "worker.slots"],
    );
}
