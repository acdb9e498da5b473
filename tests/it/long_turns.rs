//! A turn that computes for long, or for ever, holds up its own tenant at the most, and never the process.

use std::cell::Cell;

use serde_json::json;

use crate::harness::{
    DEADLINE, FixturePack, MOST_SLOWDOWN, Message, Neighbour, Provider, Servers, Tenant,
    WorkerBuilder, WorkerProcess, fresh_tenant, poll,
};

const IN_FLIGHT: &str = "greentic_worker_turns_in_flight";
const STALLS: &str = "greentic_worker_stalls_total";
const MESSAGES: &str = "greentic_worker_messages_total";
const COMPUTE_RUNS: &str = "greentic_worker_compute_runs_total";

/// A pack whose flow never ends by itself: `turn_timeout` is what ends it, as long as nothing else does.
fn endless() -> FixturePack {
    let nodes = r#"
begin: {var.set: {name: n, value: "{{in.text}}"}, routing: [{to: turn}]}
turn: {var.set: {name: n, value: "{{vars.n}}"}, routing: [{to: turn}]}
"#;
    FixturePack::of("endless", &[("main", nodes)])
}

fn without_limits(servers: &Servers, tenant: &Tenant) -> WorkerBuilder {
    WorkerProcess::of(servers)
        .bindings(tenant)
        .setting("LIMITS__NODES_PER_TURN", "4000000000")
        .setting("LIMITS__STEPS_PER_TURN", "9000000000000000000")
        .setting("LIMITS__RENDERED_BYTES", "9000000000000000000")
        .setting("WORKER__ATTEMPTS", "1")
}

/// The lines of the log that hold all of these.
fn lines<'a>(log: &'a str, parts: &'a [&str]) -> impl Iterator<Item = &'a str> {
    let holds = |line: &&str| parts.iter().all(|part| line.contains(part));
    log.lines().filter(holds)
}

/// Four loops over the user's own list, each inside of another.
fn loops() -> FixturePack {
    let text = format!(
        "{}{{{{this}}}}{}",
        "{{#each @root.in.numbers}}".repeat(4),
        "{{/each}}".repeat(4)
    );
    let nodes = format!("a: {{emit.message: {{text: \"{text}\"}}, routing: out}}");
    FixturePack::of("loops", &[("main", &nodes)])
}

#[tokio::test]
async fn loops_over_a_users_own_list_hold_up_no_neighbour() {
    let servers = Servers::shared().await;
    let attacker = fresh_tenant().runs(&loops(), &["main"], "");
    let neighbour = Neighbour::new();
    let worker = WorkerProcess::of(&servers)
        .bindings(&attacker)
        .bindings(neighbour.tenant())
        .setting("WORKER__ATTEMPTS", "1")
        .setting("WORKER__TURN_TIMEOUT", "1s")
        .start()
        .await;
    let mut neighbour = neighbour.connect(&servers).await;
    let attack = Provider::connect(&servers, &attacker)
        .await
        .patient(DEADLINE * 4);
    let numbers: Vec<u32> = (0..2_000).collect();
    let sent = Cell::new(0_u32);
    let attacking = async || {
        let before = worker.metric(COMPUTE_RUNS, &attacker.id).await;
        // More than the worker has slots.
        let many = (0..300).map(|n| {
            let payload = json!({"payload": {"numbers": numbers}});
            let message = Message::new("c", "").from(&format!("user{n}"));
            message.field("extensions", payload)
        });
        attack.flood(many).await;
        sent.set(sent.get() + 300);
        let begun = poll(DEADLINE, async || {
            let now = worker.metric(COMPUTE_RUNS, &attacker.id).await;
            // The endpoint answers meanwhile.
            assert_eq!(worker.status("/livez").await, 200);
            assert_eq!(worker.status("/readyz").await, 200);
            (now > before).then_some(())
        });
        begun.await.expect("a run goes on apart from the turns");
    };
    let over = async || {
        let dealt_with = async || {
            let dead = worker.metric(MESSAGES, &attacker.id).await;
            (dead == f64::from(sent.get())).then_some(())
        };
        let all = poll(DEADLINE * 2, dealt_with).await;
        all.expect("each of them comes to its end");
    };
    let slowdown = neighbour.slowdown(attacking, over).await;
    assert!(slowdown <= MOST_SLOWDOWN, "{slowdown}");
    // None of them came to anything, and none was tried in vain for ever.
    attack.settled().await;
    assert_eq!(attack.published().await, (0, sent.get() as usize));
}

#[tokio::test]
async fn the_watchdog_names_a_turn_that_computes_for_long_and_its_time_ends_it() {
    let servers = Servers::shared().await;
    let pack = endless();
    let tenant = fresh_tenant().runs(&pack, &["main"], "");
    let worker = without_limits(&servers, &tenant)
        .setting("WORKER__TURN_TIMEOUT", "3s")
        .start()
        .await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    provider.send(&Message::new("c", "hi").id("m-long")).await;
    let (dead, pack) = (provider.expect_dead().await, pack.id.to_string());
    assert_eq!(dead.code(), "turn_timeout");
    assert!(dead.reason().contains("node `turn`"), "{}", dead.reason());
    worker.expect_metric(STALLS, &tenant.id, 1.0).await;
    let log = worker.log();
    let parts = [
        "a turn has computed for 1s",
        &tenant.id,
        "message=m-long",
        &pack,
        "at_flow=main",
        "at_node=turn",
        "thread=compute-",
    ];
    assert_eq!(lines(&log, &parts).count(), 1, "{log}");
}

#[tokio::test]
async fn a_drain_hands_back_what_computes_without_end() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().runs(&endless(), &["main"], "");
    let worker = without_limits(&servers, &tenant)
        .setting("WORKER__TURN_TIMEOUT", "10m")
        .setting("NATS__ACK_WAIT", "10m")
        .setting("WORKER__LEASE_TTL", "10m")
        .setting("WORKER__DRAIN_TIMEOUT", "500ms")
        .start()
        .await;
    let provider = Provider::connect(&servers, &tenant).await;
    provider.send(&Message::new("c", "hi")).await;
    worker.expect_metric(STALLS, &tenant.id, 1.0).await;
    assert_eq!(worker.stop().await, 0);
    assert!(worker.log().contains("handed back"), "{}", worker.log());
    assert_eq!(provider.unsettled().await, 1);
}

/// A worker whose only turn thread stands still in the turn of a message `m-hangs`.
async fn hanging(servers: &Servers, tenant: &Tenant) -> WorkerProcess {
    let worker = WorkerProcess::of(servers)
        .bindings(tenant)
        .setting("WORKER__DRAIN_TIMEOUT", "500ms")
        .setting("HTTP__STALLED_AFTER", "7s")
        .arg("--kill-at=before-commit:hang:key=m-hangs")
        .start()
        .await;
    let provider = Provider::connect(servers, tenant).await;
    provider.send(&Message::new("c", "hi").id("m-hangs")).await;
    // A thread that will never come round, and the process counts.
    worker.expect_metric(STALLS, &tenant.id, 1.0).await;
    worker
}

#[tokio::test]
async fn a_process_whose_turns_stand_still_answers_and_ends_at_the_drains_deadline() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let worker = hanging(&servers, &tenant).await;
    assert_eq!(worker.metric(IN_FLIGHT, &tenant.id).await, 1.0);
    let held_up = poll(DEADLINE, async || {
        let (status, body) = worker.get("/readyz").await?;
        (status == 503 && body.contains("held up")).then_some(())
    });
    held_up.await.expect("it takes no more work");
    let stalled = poll(DEADLINE, async || {
        let (status, body) = worker.get("/livez").await?;
        let says = body.contains("no pull") && body.contains("have not come round for");
        (status == 503 && says).then_some(())
    });
    stalled.await.expect("it is not alive any more");

    assert_eq!(worker.stop().await, 75);
    let log = worker.log();
    let named = ["given up", &tenant.id, "message=m-hangs", "thread=turns"];
    assert_eq!(lines(&log, &named).count(), 1, "{log}");
    assert!(log.contains("worker.drain_timeout = 500ms"), "{log}");
    // Another worker does it at once where this one is gone.
    let mut provider = Provider::connect(&servers, &tenant)
        .await
        .patient(DEADLINE * 2);
    let _second = WorkerProcess::start(&servers, &tenant).await;
    assert_eq!(provider.expect_reply().await.in_reply_to(), Some("m-hangs"));
}

#[tokio::test]
async fn a_second_signal_ends_a_process_whose_turns_stand_still_at_once() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let worker = WorkerProcess::of(&servers)
        .bindings(&tenant)
        .setting("WORKER__DRAIN_TIMEOUT", "10m")
        .arg("--kill-at=before-commit:hang:key=m-hangs")
        .start()
        .await;
    let provider = Provider::connect(&servers, &tenant).await;
    provider.send(&Message::new("c", "hi").id("m-hangs")).await;
    worker.expect_metric(STALLS, &tenant.id, 1.0).await;
    worker.signal("TERM");
    let draining = poll(DEADLINE, async || {
        let (status, body) = worker.get("/readyz").await?;
        (status == 503 && body.contains("draining")).then_some(())
    });
    draining.await.expect("it drains");
    worker.signal("INT");
    assert_eq!(worker.exited(DEADLINE).await, 1);
}

#[tokio::test]
async fn large_bodies_hold_up_no_neighbour() {
    let servers = Servers::shared().await;
    let echo = "a: {emit.message: {text: \"{{in.n}}\"}, routing: out}";
    let attacker = fresh_tenant().runs(&FixturePack::of("echo", &[("main", echo)]), &["main"], "");
    let neighbour = Neighbour::new();
    let worker = WorkerProcess::of(&servers)
        .bindings(&attacker)
        .bindings(neighbour.tenant())
        .start()
        .await;
    let mut neighbour = neighbour.connect(&servers).await;
    let mut attack = Provider::connect(&servers, &attacker)
        .await
        .patient(DEADLINE * 4);
    let small = vec![json!({"a": 1}); 30_000];
    let count = 20;
    let attacking = async || {
        let before = worker.metric(COMPUTE_RUNS, &attacker.id).await;
        let many = (0..count).map(|n| {
            let payload = json!({"payload": {"n": n, "rest": small}});
            Message::new("c", "").field("extensions", payload)
        });
        attack.flood(many).await;
        let begun = poll(DEADLINE, async || {
            let now = worker.metric(COMPUTE_RUNS, &attacker.id).await;
            (now > before).then_some(())
        });
        begun.await.expect("a body is read apart from the turns");
    };
    let over = async || attack.settled().await;
    let slowdown = neighbour.slowdown(attacking, over).await;
    assert!(slowdown <= MOST_SLOWDOWN, "{slowdown}");
    // All of one conversation, and in order.
    for n in 0..count {
        attack.expect_text(&n.to_string()).await;
    }
}

/// What computes holds up what computes, of each tenant in its turn.
#[tokio::test]
async fn a_long_turn_of_one_tenant_gets_its_share_beside_many_of_another() {
    let servers = Servers::shared().await;
    let flow = r#"
begin: {var.set: {name: n, value: "{{in.text}}"}, routing: [{to: turn}]}
turn: {var.set: {name: n, value: "{{vars.n}}"}, routing: [{to: turn}]}
"#;
    let pack = FixturePack::of("share", &[("main", flow)]);
    let (loud, quiet) = (
        fresh_tenant().runs(&pack, &["main"], ""),
        fresh_tenant().runs(&pack, &["main"], ""),
    );
    // Ended by the number of nodes, some time after it has become long.
    let worker = WorkerProcess::of(&servers)
        .bindings(&loud)
        .bindings(&quiet)
        .setting("LIMITS__NODES_PER_TURN", "100000")
        .setting("WORKER__ATTEMPTS", "1")
        .setting("WORKER__COMPUTE_THREADS", "1")
        .setting("WORKER__TURN_TIMEOUT", "5m")
        .start()
        .await;
    let flood = Provider::connect(&servers, &loud)
        .await
        .patient(DEADLINE * 4);
    let mut provider = Provider::connect(&servers, &quiet).await.patient(DEADLINE);
    let many = (0..40).map(|n| Message::new("c", "hi").from(&format!("user{n}")));
    flood.flood(many).await;
    let begun = poll(DEADLINE, async || {
        (worker.metric(COMPUTE_RUNS, &loud.id).await >= 40.0).then_some(())
    });
    begun.await.expect("all of them compute");
    provider.send(&Message::new("c", "hi")).await;
    assert_eq!(provider.expect_dead().await.code(), "node_limit");
    // With one after the other, whoever comes first, it would be the last.
    let before = 40 - flood.unsettled().await;
    assert!(before < 30, "{before} of 40 turns came before");
    flood.settled().await;
    assert_eq!(flood.published().await, (0, 40));
}
