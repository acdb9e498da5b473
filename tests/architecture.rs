//! What the compiler does not check: which module may name which, and what the repository may hold.
#![allow(
    clippy::unwrap_used,
    reason = "a test that cannot read the tree fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Each module of `src/` and the modules that it may name; the order is that of the layers, the lowest first. Settings
/// are the sum of what each part says that it can be told, so they name parts, and no part names them.
const MAY_NAME: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("yaml", &["model"]),
    ("flow", &["model", "yaml"]),
    ("pack", &["model", "yaml", "flow"]),
    ("bindings", &["model", "yaml", "pack"]),
    ("registry", &["model", "flow", "pack", "bindings"]),
    (
        "catalog",
        &["model", "flow", "pack", "bindings", "registry"],
    ),
    ("ports", &["model"]),
    ("budget", &["model"]),
    ("telemetry", &["model", "budget"]),
    (
        "turn",
        &["model", "flow", "registry", "ports", "budget", "telemetry"],
    ),
    (
        "worker",
        &["model", "registry", "ports", "budget", "telemetry", "turn"],
    ),
    ("adapters", &["model", "ports", "budget", "telemetry"]),
    ("chat", &["model", "ports", "adapters"]),
    (
        "rehearsal",
        &[
            "model",
            "yaml",
            "registry",
            "catalog",
            "ports",
            "telemetry",
            "turn",
            "adapters",
        ],
    ),
    (
        "settings",
        &[
            "model",
            "yaml",
            "pack",
            "bindings",
            "budget",
            "telemetry",
            "flow",
            "registry",
            "catalog",
            "turn",
            "worker",
            "adapters",
        ],
    ),
];

/// The modules that put all others together, and so may name any.
const COMPOSITION: &[&str] = &["app", "cli", "main", "purge", "lib"];

/// What modules that do no I/O may not name: client libraries, the clock, random sources, the environment.
const IMPURE: &[&str] = &[
    "tokio",
    "async_nats",
    "redis",
    "wasmtime",
    "std::env",
    "env!(",
    "now_utc",
    "SystemTime",
    "Instant",
    "new_v4",
    "fastrand",
    "std::net",
    "std::process",
    "std::thread",
];
const PURE: &[&str] = &["model", "yaml", "flow", "pack", "bindings"];

/// The most lines that a file of `src/` may have.
const MAX_LINES: usize = 500;

#[test]
fn modules_name_only_what_lies_below_them() {
    let mut wrong = Vec::new();
    for file in sources() {
        let module = file.module.as_str();
        if COMPOSITION.contains(&module) {
            continue;
        }
        let Some((_, allowed)) = MAY_NAME.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!(
                "{}: module `{module}` has no place in MAY_NAME in tests/architecture.rs",
                file.path
            ));
            continue;
        };
        for (number, named) in modules_named(&file.production()) {
            let is_module = MAY_NAME.iter().any(|(name, _)| *name == named)
                || COMPOSITION.contains(&named.as_str());
            if is_module && named != module && !allowed.contains(&named.as_str()) {
                let path = &file.path;
                wrong.push(format!(
                    "{path}:{number}: `{module}` may not name `{named}`"
                ));
            }
        }
    }
    report("imports against the arrows of the code map", wrong);
}

#[test]
fn pure_modules_know_no_client_library_no_clock_and_no_random_source() {
    let mut wrong = Vec::new();
    for file in sources()
        .into_iter()
        .filter(|file| PURE.contains(&file.module.as_str()))
    {
        for (index, line) in file.production().lines().enumerate() {
            for name in IMPURE.iter().filter(|name| names(line, name)) {
                wrong.push(format!("{}:{}: names `{name}`", file.path, index + 1));
            }
        }
    }
    report("pure modules that are not", wrong);
}

/// A name that is built elsewhere has no prefix.
#[test]
fn names_on_nats_are_built_in_one_place() {
    let mut wrong = Vec::new();
    for file in sources() {
        if file.path == "src/adapters/nats/names.rs" {
            continue;
        }
        for (index, line) in file.production().lines().enumerate() {
            let is_name = |start: &str, word: &str| line.contains(&format!("{start}{word}"));
            let words = ["inbound", "outbound", "deadletter"].into_iter();
            let mut starts =
                words.flat_map(|word| ["\"", "`"].map(|quote| (quote, format!("{word}."))));
            let is_subject = starts.any(|(quote, word)| is_name(quote, &word));
            let streams = ["INBOUND", "OUTBOUND", "DEADLETTER"];
            let is_stream = streams.iter().any(|word| is_name("GREENTIC_", word));
            if is_subject || is_stream || line.contains("\"worker-{") {
                wrong.push(format!("{}:{}: {}", file.path, index + 1, line.trim()));
            }
        }
    }
    report(
        "names on NATS built outside of adapters/nats/names.rs",
        wrong,
    );
}

#[test]
fn no_source_file_is_two_things() {
    let wrong = sources()
        .into_iter()
        .filter(|file| file.text.lines().count() > MAX_LINES);
    report(
        &format!(
            "files of more than {MAX_LINES} lines: find the second purpose and give it a file"
        ),
        wrong.map(|file| format!("{}: {} lines", file.path, file.text.lines().count())),
    );
}

/// The compiler denies the rest; this is about who may make an exception.
#[test]
fn only_the_cache_of_compiled_components_and_the_allocator_are_unsafe() {
    let wrong = sources().into_iter().filter(|file| {
        !["src/adapters/wasm/cache.rs", "src/purge.rs"].contains(&file.path.as_str())
            && file.text.lines().any(|line| names(line, "unsafe_code"))
    });
    report(
        "exceptions from `unsafe_code = \"deny\"`",
        wrong.map(|file| file.path),
    );
}

#[test]
fn no_build_output_is_tracked() {
    let built = |path: &String| {
        let parts: Vec<&str> = path.split('/').collect();
        parts
            .iter()
            .any(|part| ["target", ".dev", "dist", "node_modules", "__pycache__"].contains(part))
            || [".rlib", ".o", ".so", ".log", ".pid", ".snap.new"]
                .iter()
                .any(|end| path.ends_with(end))
    };
    report("build output in git", tracked().into_iter().filter(built));
}

/// Profiles are read by the LLVM that wrote them and by later ones; a compiler that cannot read it says no more than a
/// warning, and builds a slower release.
#[test]
fn the_compiler_reads_the_profile_of_the_release() {
    let scratch = tempfile::tempdir().unwrap();
    let mut empty_crate = Command::new("rustc");
    empty_crate
        .args(["--crate-type=lib", "--emit=obj", "--out-dir"])
        .arg(scratch.path())
        .args(["-Cprofile-use=release.profdata", "-"])
        .stdin(Stdio::null());
    let built = empty_crate.output().unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(
        built.status.success() && said.is_empty(),
        "{said}\nmake it anew: ./dev profile"
    );
}

#[test]
fn every_path_that_the_docs_name_exists() {
    let files = tracked();
    let roots: BTreeSet<_> = files
        .iter()
        .filter_map(|path| path.split_once('/'))
        .map(|(root, _)| root)
        .collect();
    let mut wrong = Vec::new();
    for doc in files.iter().filter(|path| path.ends_with(".md")) {
        let Ok(text) = fs::read_to_string(doc) else {
            continue;
        };
        for word in text.split('`').skip(1).step_by(2) {
            let path = word.trim_start_matches("./").trim_end_matches('/');
            let plain = path
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"./_-".contains(&b));
            let of_ours = path
                .split_once('/')
                .is_some_and(|(root, _)| roots.contains(root));
            if plain && of_ours && !Path::new(path).exists() {
                wrong.push(format!("{doc}: `{word}`"));
            }
        }
    }
    report("paths in the docs that are not there", wrong);
}

struct Source {
    path: String,
    module: String,
    text: String,
}

impl Source {
    /// The text without comments and tests, each line where it was.
    fn production(&self) -> String {
        if self.path.ends_with("tests.rs") || self.path.contains("/tests/") {
            return String::new();
        }
        let lines = self.text.lines().map(|line| line.split("//").next());
        let lines = lines.map(Option::unwrap_or_default);
        let lines = lines.take_while(|line| line.trim() != "#[cfg(test)]");
        lines.collect::<Vec<_>>().join("\n")
    }
}

fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    let mut folders = vec![PathBuf::from("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let module = path
                    .components()
                    .nth(1)
                    .unwrap()
                    .as_os_str()
                    .to_string_lossy();
                let module = module.trim_end_matches(".rs").to_owned();
                let text = fs::read_to_string(&path).unwrap();
                files.push(Source {
                    path: path.display().to_string(),
                    module,
                    text,
                });
            }
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files
}

/// What follows `crate::`, braces included, with its line.
fn modules_named(text: &str) -> Vec<(usize, String)> {
    let word = |text: &str| -> String {
        let text = text.trim_start().chars();
        text.take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let mut named = Vec::new();
    for (at, found) in text.match_indices("crate::") {
        let line = text[..at].lines().count().max(1);
        let rest = &text[at + found.len()..];
        let list = rest
            .strip_prefix('{')
            .and_then(|list| list.split(';').next());
        match list {
            Some(list) => named.extend(list.split(',').map(|item| (line, word(item)))),
            None => named.push((line, word(rest))),
        }
    }
    named
}

/// Whether a line names this path: not as a part of a longer word.
fn names(line: &str, name: &str) -> bool {
    let of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name).any(|(at, _)| {
        !line[..at].ends_with(of_word)
            && (name.ends_with('(') || !line[at + name.len()..].starts_with(of_word))
    })
}

fn tracked() -> Vec<String> {
    // New files count before they are committed, as they do for whoever runs this before a commit.
    let args = ["ls-files", "--cached", "--others", "--exclude-standard"];
    let listed = Command::new("git").args(args).output().unwrap();
    assert!(
        listed.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&listed.stderr)
    );
    String::from_utf8(listed.stdout)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[track_caller]
fn report(what: &str, wrong: impl IntoIterator<Item = String>) {
    let wrong: Vec<_> = wrong.into_iter().collect();
    assert!(wrong.is_empty(), "{what}:\n  {}", wrong.join("\n  "));
}
