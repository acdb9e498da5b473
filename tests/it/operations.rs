//! What operators rely on: how a worker stops, what it is granted, what it tells.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use greentic_worker::model::header;
use serde_json::{Value, json};

use crate::harness::{
    DEADLINE, FixturePack, Message, NatsServer, Provider, RedisServer, Servers, Tenant,
    WorkerBuilder, WorkerProcess, fresh_tenant, poll, redis_connection,
};

const IN_FLIGHT: &str = "greentic_worker_turns_in_flight";

/// A worker whose turns stand still while Redis is paused, rather than to notice that it is away; and nothing that it has
/// in its hands goes to another worker unless it is handed back.
fn patient(servers: &Servers) -> WorkerBuilder {
    WorkerProcess::of(servers)
        .setting("REDIS__RESPONSE_TIMEOUT", "5m")
        .setting("WORKER__LEASE_TTL", "10m")
        .setting("NATS__ACK_WAIT", "5m")
}

#[tokio::test]
async fn a_worker_that_is_told_to_stop_finishes_what_it_has_begun() {
    let (nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let worker = patient(&servers).bindings(&tenant).start().await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    redis.pause();
    for n in 0..5 {
        let user = format!("user{n}");
        provider.send(&Message::new("c1", "hi").from(&user)).await;
    }
    worker.expect_metric(IN_FLIGHT, "", 5.0).await;
    worker.signal("TERM");
    let draining = poll(DEADLINE, async || {
        let (status, body) = worker.get("/readyz").await?;
        (status == 503 && body.contains("draining")).then_some(())
    });
    assert!(draining.await.is_some(), "readiness is not given up");
    assert_eq!(worker.status("/livez").await, 200);
    // What comes now is for others.
    provider.send(&Message::new("c1", "hi").from("later")).await;
    redis.resume();
    assert_eq!(worker.exited(DEADLINE).await, 0);
    assert!(worker.log().contains("every turn finished"));
    provider.expect_replies(5).await;
    provider.expect_unsettled(1).await;
    assert_eq!(provider.published().await, (5, 0));
}

#[tokio::test]
async fn what_is_unfinished_at_the_drains_deadline_goes_to_another_worker_at_once() {
    let (nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let worker = patient(&servers)
        .bindings(&tenant)
        .setting("WORKER__DRAIN_TIMEOUT", "1s")
        .start()
        .await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    // One turn of a message that is delivered for the first time, as most are.
    redis.pause();
    provider.send(&Message::new("c1", "hi").id("m1")).await;
    worker.expect_metric(IN_FLIGHT, "", 1.0).await;
    let told = Instant::now();
    worker.signal("TERM");
    // Nothing else would end it so soon: its one turn waits for minutes.
    assert_eq!(worker.exited(DEADLINE).await, 0);
    let took = told.elapsed();
    assert!(took >= Duration::from_secs(1), "{took:?}");
    assert!(worker.log().contains("handed back"));
    redis.resume();

    let second = patient(&servers).bindings(&tenant).start().await;
    assert_eq!(provider.expect_reply().await.in_reply_to(), Some("m1"));
    provider.settled().await;
    assert_eq!(provider.published().await, (1, 0));
    let redeliveries = "greentic_worker_redeliveries_total";
    second.expect_metric(redeliveries, "", 1.0).await;
}

#[tokio::test]
async fn a_second_signal_ends_a_worker_at_once() {
    let (nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let worker = patient(&servers)
        .bindings(&tenant)
        .setting("WORKER__DRAIN_TIMEOUT", "5m")
        .start()
        .await;
    let provider = Provider::connect(&servers, &tenant).await;
    redis.pause();
    provider.send(&Message::new("c1", "hi")).await;
    worker.expect_metric(IN_FLIGHT, "", 1.0).await;
    worker.signal("TERM");
    let draining = poll(DEADLINE, async || {
        (worker.status("/readyz").await == 503).then_some(())
    });
    draining.await.expect("it drains");
    worker.signal("INT");
    assert_eq!(worker.exited(DEADLINE).await, 1);
    assert_eq!(provider.unsettled().await, 1);
}

/// How many flows of a tenant are parked.
async fn parked(servers: &Servers, tenant: &Tenant) -> usize {
    let mut connection = redis_connection(&servers.redis_url).await;
    let sessions = format!("greentic:{{{}}}:session:*", tenant.id);
    let mut keys = redis::cmd("KEYS");
    let found = keys.arg(sessions).query_async(&mut connection);
    let found: Vec<String> = found.await.unwrap();
    found.len()
}

#[tokio::test]
async fn an_answer_that_comes_too_late_starts_the_flow_anew() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let worker = WorkerProcess::of(&servers)
        .bindings(&tenant)
        .setting("WORKER__WAIT_TTL", "3s")
        .start()
        .await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    provider.send(&Message::new("c1", "hi")).await;
    assert!(provider.expect_reply().await.expects_reply());
    let expired = poll(DEADLINE, async || {
        (parked(&servers, &tenant).await == 0).then_some(())
    });
    expired.await.expect("the wait has an end");
    assert_eq!(worker.stop().await, 0);
    // The next question has time for its answer.
    let _worker = WorkerProcess::start(&servers, &tenant).await;
    provider.send(&Message::new("c1", "Ada")).await;
    let question = provider.expect_reply().await;
    assert!(question.expects_reply(), "{question:?}");
    provider.send(&Message::new("c1", "Ada")).await;
    assert!(provider.expect_reply().await.text().contains("Ada"));
}

#[tokio::test]
async fn a_conversation_over_plain_nats() {
    let (nats, redis) = tokio::join!(
        NatsServer::start_without_jetstream(),
        RedisServer::start_own()
    );
    let servers = Servers::own(&nats, &redis);
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let start = async || {
        let worker = WorkerProcess::of(&servers).bindings(&tenant);
        worker.setting("NATS__DELIVERY", "core").start().await
    };
    let _workers = (start().await, start().await);
    let client = async_nats::connect(nats.url()).await.unwrap();
    let mut replies = client
        .subscribe(format!("outbound.{}", tenant.id))
        .await
        .unwrap();
    let mut say = async |id: &str, text: &str| -> Value {
        let body = json!({"id": id, "from": {"id": "u"}, "reply_scope": {"conversation": "c"}, "text": text});
        let inbound = format!("inbound.{}", tenant.id);
        // The queue subscriptions of a worker that is ready may still be on their way to the server.
        let reply = poll(DEADLINE, async || {
            let sent = client.publish(inbound.clone(), body.to_string().into());
            sent.await.unwrap();
            // One that is sent again while the first is still on its way may be answered twice.
            let answer = async {
                loop {
                    let reply = replies.next().await?;
                    let answers = reply.headers.as_ref()?.get(header::IN_REPLY_TO)?.as_str();
                    if answers == id {
                        return Some(reply);
                    }
                }
            };
            let answered = tokio::time::timeout(Duration::from_secs(1), answer);
            answered.await.ok().flatten()
        });
        serde_json::from_slice(&reply.await.expect("a reply").payload).unwrap()
    };
    assert_eq!(say("m1", "hi").await["text"], "Hello! What is your name?");
    let greeting = say("m2", "Ada").await;
    assert!(
        greeting["text"].as_str().unwrap().contains("Ada"),
        "{greeting}"
    );
}

#[tokio::test]
async fn a_pack_sees_the_variables_that_it_was_granted_and_no_other() {
    let servers = Servers::shared().await;
    let show = r#"
a: {emit.message: {text: "one={{env.IT_ONE}} two={{env.IT_TWO}} home={{env.HOME}}"}, routing: out}
"#;
    let first = FixturePack::of("first", &[("main", show)]);
    let second = FixturePack::of("second", &[("main", show)]);
    let tenant = fresh_tenant()
        .runs(&first, &["main"], "env_passthrough: [IT_ONE]\n")
        .runs(&second, &["main"], "");
    let granting = |allow: &str| {
        WorkerProcess::of(&servers)
            .bindings(&tenant)
            .env("IT_ONE", "first-secret")
            .env("IT_TWO", "second-secret")
            .setting("ENV__ALLOW", allow)
    };

    let refused = granting("[IT_TWO]").without_waiting().start().await;
    assert_eq!(refused.exited(DEADLINE).await, 64);
    let log = refused.log();
    assert!(log.contains("IT_ONE") && log.contains(".gtbind"), "{log}");
    assert!(!log.contains("secret"), "{log}");

    let _worker = granting("[\"IT_*\"]").start().await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    for (pack, sees) in [
        (&first, "one=first-secret two= home="),
        (&second, "one= two= home="),
    ] {
        let message = Message::new("c1", "hi").header("Greentic-Pack-Id", &pack.id.to_string());
        provider.send(&message).await;
        provider.expect_text(sees).await;
    }
}

#[tokio::test]
async fn the_settings_are_printed_without_their_secrets() {
    let servers = Servers {
        nats_url: "nats://127.0.0.1:1".to_owned(),
        redis_url: "redis://127.0.0.1:1/0".to_owned(),
    };
    let worker = WorkerProcess::of(&servers)
        .setting("NATS__TOKEN", "token-secret")
        .setting("REDIS__PASSWORD", "password-secret")
        .setting("WORKER__SLOTS", "17")
        .arg("--print-config")
        .without_waiting()
        .start()
        .await;
    assert_eq!(worker.exited(DEADLINE).await, 0);
    let printed = worker.log();
    assert!(printed.contains("slots: 17"), "{printed}");
    assert!(printed.contains("127.0.0.1:1"), "{printed}");
    assert!(!printed.contains("-secret"), "{printed}");
}

#[tokio::test]
async fn metrics_are_those_of_the_documentation_and_count_right() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    provider.send(&Message::new("c1", "hi").id("m1")).await;
    provider.expect_reply().await;
    provider.send(&Message::new("c1", "Ada").id("m2")).await;
    provider.expect_reply().await;
    provider.send(&Message::new("c1", "Ada").id("m2")).await;
    let nowhere = Message::new("c1", "hi").header("Greentic-Flow-Id", "nowhere");
    provider.send(&nowhere).await;
    provider.expect_dead().await;
    provider.settled().await;
    worker.expect_metric(IN_FLIGHT, "", 0.0).await;

    let (_, served) = worker.get("/metrics").await.unwrap();
    let documented = include_str!("../../docs/metrics.md")
        .lines()
        .filter_map(|line| {
            let name = line.strip_prefix("| `greentic_worker_")?;
            // The pack calls no components and no server refuses anything: these are served from the first time on.
            if name.starts_with("component_") || name.starts_with("tenant_refus") {
                return None;
            }
            Some(format!("greentic_worker_{}", name.split_once('`')?.0))
        });
    let documented: Vec<_> = documented.collect();
    assert!(documented.len() > 10, "{documented:?}");
    for name in &documented {
        assert!(
            served.contains(name.as_str()),
            "{name} is not served:\n{served}"
        );
    }
    for (name, labels, count) in [
        ("messages_total", r#"outcome="parked""#, 1.0),
        ("messages_total", r#"outcome="finished""#, 1.0),
        ("messages_total", r#"outcome="duplicate""#, 1.0),
        ("messages_total", r#"outcome="dead_lettered""#, 1.0),
        ("messages_total", "", 4.0),
        ("turn_duration_seconds_count", "", 4.0),
        ("dead_letters_total", r#"code="no_such_flow""#, 1.0),
        ("waits_parked_total", "", 1.0),
        ("waits_resumed_total", "", 1.0),
        ("replies_total", "", 2.0),
        ("redeliveries_total", "", 0.0),
        ("commit_conflicts_total", "", 0.0),
        ("ready", "", 1.0),
    ] {
        let name = format!("greentic_worker_{name}");
        worker.expect_metric(&name, labels, count).await;
    }
}

#[tokio::test]
async fn each_line_of_a_turn_names_it_and_holds_nothing_that_was_said() {
    let servers = Servers::shared().await;
    let talk = r#"
note: {emit.log: "asking", routing: [{to: ask}]}
ask: {emit.message: {text: "Yes?"}, routing: [{to: hear}]}
hear: {session.wait: {reason: anything}, routing: [{to: heard}]}
heard: {emit.log: "heard", routing: [{to: again}]}
again: {var.set: {name: n, value: "{{in.text}}"}, routing: [{to: again}]}
"#;
    let pack = FixturePack::of("talk", &[("main", talk)]);
    let tenant = fresh_tenant().runs(&pack, &["main"], "");
    let worker = WorkerProcess::of(&servers)
        .bindings(&tenant)
        .setting("WORKER__ATTEMPTS", "1")
        .arg("--log-format=json")
        .start()
        .await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    provider
        .send(&Message::new("c1", "private-hello").id("m1"))
        .await;
    let question = provider.expect_reply().await;
    let correlation = question.correlation().unwrap().to_owned();
    let answer = Message::new("c1", "private-answer").id("m2");
    provider.send(&answer.correlation(&correlation)).await;
    assert_eq!(provider.expect_dead().await.code(), "node_limit");
    provider.settled().await;
    assert_eq!(worker.stop().await, 0);

    let log = worker.log();
    assert!(!log.contains("private"), "{log}");
    // The guard of the process has the last word.
    let lines = log
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str::<Value>(line).unwrap());
    let turns: Vec<_> = lines.filter(|line| line.get("turn").is_some()).collect();
    let of = |message: &str| {
        let lines = turns
            .iter()
            .filter(|line| line["turn"]["message"] == message);
        lines.count()
    };
    assert!(of("m1") >= 1 && of("m2") >= 1, "{log}");
    for line in &turns {
        let turn = &line["turn"];
        assert_eq!(turn["tenant"], tenant.id.as_str(), "{line}");
        assert_eq!(turn["pack"], pack.id.to_string(), "{line}");
        assert_eq!(turn["flow"], "main", "{line}");
        assert_eq!(turn["correlation"], correlation.as_str(), "{line}");
    }
}
