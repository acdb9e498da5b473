//! Components that take too much to compile: given up within the limits, with the reason, and nothing else is.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use greentic_worker::adapters::wasm::{CompileConfig, Compiler, Job};
use greentic_worker::model::Problems;

use super::*;

fn program() -> Compiler {
    Compiler::Process(PathBuf::from(env!("CARGO_BIN_EXE_greentic-worker")))
}

fn with(compile: CompileConfig) -> WasmComponents {
    let config = Config {
        compile,
        ..config()
    };
    WasmComponents::new(&config, ComponentMetrics::default()).compiled_by(program())
}

fn code<'a>(name: &'a str, bytes: &'a [u8]) -> Code<'a> {
    Code {
        digest: ComponentDigest::of(bytes),
        name,
        bytes,
    }
}

#[track_caller]
fn refused(worker: &WasmComponents, bytes: &[u8], expected: &str) -> Problems {
    let problems = worker.prepare([code("bomb", bytes)]).unwrap_err();
    let said = problems.to_string();
    assert!(said.contains("component bomb"), "{said}");
    assert!(said.contains(expected), "{said}");
    problems
}

/// A component of functions that take a compiler long, all of them within the bounds of their size.
fn slow() -> Vec<u8> {
    components::from_text("", &components::heavy_functions(40))
}

#[tokio::test]
async fn what_another_process_compiles_runs_as_ever() {
    let mut bench = Bench::new("echo");
    bench.worker = with(CompileConfig::default());
    let bytes = component("echo");
    let stats = bench.worker.prepare([code("echo", &bytes)]).unwrap();
    assert_eq!(stats.compiled, 1);
    assert_eq!(bench.run("run", json!([1])).await.unwrap(), json!([1]));
}

#[test]
fn a_component_that_takes_too_long_is_given_up() {
    let worker = with(CompileConfig {
        timeout: Duration::from_millis(300),
        ..CompileConfig::default()
    });
    let (bomb, since) = (slow(), Instant::now());
    let problems = refused(
        &worker,
        &bomb,
        "compiling it takes longer than 300ms (`components.compile.timeout`)",
    );
    assert!(since.elapsed() < Duration::from_secs(20));
    // It is not tried again at once.
    let known = code("bomb", &bomb);
    let since = Instant::now();
    assert_eq!(worker.prepare([known]).unwrap_err(), problems);
    assert!(since.elapsed() < Duration::from_millis(250));
}

#[test]
fn a_component_that_takes_too_much_memory_is_given_up() {
    let worker = with(CompileConfig {
        memory_bytes: (64 * 1024 * 1024).try_into().unwrap(),
        ..CompileConfig::default()
    });
    refused(
        &worker,
        &slow(),
        "compiling it takes more than 67108864 bytes of memory (`components.compile.memory_bytes`)",
    );
}

#[test]
fn types_that_nest_without_an_end_are_no_end_of_the_worker() {
    let worker = with(CompileConfig::default());
    refused(
        &worker,
        &components::nested_types(1_000_000),
        "nests deeper than it can follow",
    );
}

#[test]
fn a_mistake_is_told_as_the_compiler_tells_it() {
    let worker = with(CompileConfig::default());
    let large = components::from_text("", "(memory (export \"memory\") 300)");
    refused(
        &worker,
        &large,
        "it cannot be compiled: module memory does not fit in pooling allocator requirements",
    );
    refused(&worker, b"\0asm\x0d\0\x01\0\x09", "it is not a component");
}

#[test]
fn one_that_takes_long_is_in_no_other_ones_way() {
    let worker = with(CompileConfig::default());
    let job = |owner: &str, name: &str, bytes: Vec<u8>| Job {
        owner: Some(owner.parse().unwrap()),
        digest: ComponentDigest::of(&bytes),
        name: name.to_owned(),
        bytes: bytes.into(),
    };
    let bombs = [40, 41, 42].map(|n| {
        let bytes = components::from_text("", &components::heavy_functions(n));
        job("attacker", "bomb", bytes)
    });
    let soon = Instant::now() + Duration::from_millis(200);
    let found = worker.prepare_until(bombs.into(), Some(soon)).unwrap();
    assert_eq!(found.pending.len(), 3);
    let echo = job("neighbour", "echo", component("echo"));
    let later = Instant::now() + Duration::from_secs(30);
    let found = worker
        .prepare_until(vec![echo.clone()], Some(later))
        .unwrap();
    assert_eq!(found.stats.compiled, 1);
    assert!(found.pending.is_empty() && found.failed.is_empty());
}
