use std::time::{Duration, Instant};

use super::*;

#[track_caller]
fn check(error: &ComponentError, limit: &str) {
    let ComponentError::Limit { limit: said, .. } = error else {
        panic!("{error}");
    };
    assert!(said.contains(limit), "{said}");
}

#[tokio::test]
async fn every_limit_is_told_from_every_other() {
    let tight = Config {
        call_timeout: Duration::from_millis(200),
        output_bytes: 100_000.try_into().unwrap(),
        ..config()
    };
    let mut bench = Bench::with("misbehave", &tight);
    for (operation, limit) in [
        ("loop", "call time of 200ms (`components.call_timeout`)"),
        (
            "memory",
            "16777216 bytes of memory (`components.memory_bytes`)",
        ),
        (
            "recurse",
            "a stack of 1048576 bytes (`components.stack_bytes`)",
        ),
        (
            "output",
            "an output of 100000 bytes (`components.output_bytes`)",
        ),
        ("deep", "an output of 64 levels"),
    ] {
        check(&bench.run(operation, json!(1)).await.unwrap_err(), limit);
    }
    let error = bench.run("trap", json!(1)).await.unwrap_err();
    let trap = "component `misbehave` trapped: wasm trap: wasm `unreachable` instruction executed";
    assert_eq!(error.to_string(), trap);
}

#[tokio::test]
async fn a_guest_that_computes_for_ever_leaves_room_for_the_rest() {
    let patient = Config {
        call_timeout: Duration::from_secs(60),
        ..config()
    };
    let mut bench = Bench::with("misbehave", &patient);
    // One thread: what does not yield would hold it.
    let looping = bench.run("loop", json!(1));
    let cut = tokio::time::timeout(Duration::from_millis(100), looping);
    let since = Instant::now();
    assert!(cut.await.is_err());
    assert!(
        since.elapsed() < Duration::from_secs(10),
        "it held the thread"
    );
}

#[tokio::test]
async fn calls_beyond_the_slots_wait_for_one() {
    let few = Config {
        instances: 2.try_into().unwrap(),
        call_timeout: Duration::from_millis(300),
        ..config()
    };
    let bench = Bench::with("misbehave", &few);
    let run = |operation: &str| {
        let mut call = bench.call.clone();
        call.invocation.operation = operation.to_owned();
        let mut running = bench.worker.call(call);
        async move { running.next().await.map(|_| ()) }
    };
    let (a, b, c) = tokio::join!(run("loop"), run("loop"), run("trap"));
    check(&a.unwrap_err(), "call time");
    check(&b.unwrap_err(), "call time");
    assert!(matches!(c, Err(ComponentError::Trap { .. })), "{c:?}");
}

#[test]
fn what_can_never_run_is_told_at_load_all_at_once() {
    let worker = worker(&config());
    let (stranger, module) = (component("stranger"), components::core_module());
    let large = components::from_text("", "(memory (export \"memory\") 300)");
    let named = [
        ("stranger", &stranger),
        ("module", &module),
        ("large", &large),
    ];
    let codes = named.map(|(name, bytes)| Code {
        digest: ComponentDigest::of(bytes),
        name,
        bytes,
    });
    let problems = worker.prepare(codes).unwrap_err().to_string();
    for expected in [
        "error: component stranger: it imports `tests:stranger/first`, which this worker does not have",
        "error: component stranger: it imports `tests:stranger/second`, which this worker does not have",
        "error: component module: it is a core module, not a component",
        "error: component large: it cannot be compiled: module memory does not fit in pooling allocator requirements",
    ] {
        assert!(problems.contains(expected), "no {expected:?} in {problems}");
    }
    let idle = component("idle");
    let stats = worker
        .prepare([Code {
            digest: ComponentDigest::of(&idle),
            name: "idle",
            bytes: &idle,
        }])
        .unwrap();
    assert!(
        stats
            .warnings
            .to_string()
            .contains("exports none of the interfaces"),
        "{}",
        stats.warnings
    );
}
