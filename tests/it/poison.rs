//! Messages that can never be applied cost themselves, and nobody else.

use std::cell::Cell;

use async_nats::HeaderMap;
use greentic_worker::model::header;

use crate::dead_letters::well;
use crate::harness::{
    DEADLINE, FixturePack, Message, Provider, Servers, Tenant, WorkerBuilder, WorkerProcess,
    fresh_tenant,
};

const FLOWS: &[(&str, &str)] = &[
    (
        "main",
        r#"
ask: {emit.message: {text: "Yes?"}, routing: [{to: hear}]}
hear: {session.wait: {reason: anything}, routing: [{to: echo}]}
echo: {emit.message: {text: "You said {{in.text}}"}, routing: out}
"#,
    ),
    (
        "loop",
        r#"
a: {emit.message: {text: never}, routing: [{to: b}]}
b: {var.set: {name: n, value: 1}, routing: [{to: a}]}
"#,
    ),
    (
        "swell",
        r#"
a: {var.set: {name: v, value: "{{vars.v}}{{vars.v}}{{in.text}}"}, routing: [{to: a}]}
"#,
    ),
    (
        "large",
        r#"
a: {emit.message: {text: "{{in.text}}{{in.text}}{{in.text}}"}, routing: out}
"#,
    ),
];

fn tenant() -> Tenant {
    let pack = FixturePack::of("poison", FLOWS);
    let flows: Vec<&str> = FLOWS.iter().map(|(id, _)| *id).collect();
    fresh_tenant().runs(&pack, &flows, "")
}

fn worker(servers: &Servers, tenant: &Tenant) -> WorkerBuilder {
    WorkerProcess::of(servers)
        .bindings(tenant)
        .setting("WORKER__ATTEMPTS", "3")
        .setting("WORKER__RETRY__INITIAL", "20ms")
        .setting("WORKER__APOLOGY", "Sorry")
}

/// Starts a worker again and again that dies of each message whose id begins with `poison`.
async fn dying(servers: &Servers, tenant: &Tenant, deaths: &Cell<u32>) {
    loop {
        // What a dead worker held comes again soon; one that is merely held up must not be taken for dead.
        let worker = worker(servers, tenant)
            .setting("NATS__ACK_WAIT", "3s")
            .setting("WORKER__LEASE_TTL", "3s")
            .arg("--kill-at=before-commit:key=poison");
        let worker = worker.without_waiting().start().await;
        let code = worker.exited(DEADLINE * 10).await;
        assert_eq!(code, 128 + 6);
        deaths.set(deaths.get() + 1);
    }
}

#[tokio::test]
async fn a_message_that_kills_its_workers_is_put_aside_after_its_attempts() {
    let servers = Servers::shared().await;
    let tenant = tenant();
    let mut provider = Provider::connect(&servers, &tenant).await;
    let deaths = Cell::new(0);

    let talk = async {
        provider
            .send(&Message::new("c1", "hi").id("poison-1"))
            .await;
        // Another conversation goes on all the while.
        for turn in 0.. {
            let text = format!("turn {turn}");
            let id = provider
                .send(&Message::new("c2", &text).from("user2"))
                .await;
            let reply = provider.expect_reply().await;
            if reply.text() == "Sorry" {
                assert_eq!(reply.in_reply_to(), Some("poison-1"));
                assert!(turn > 0, "no other turn came through");
                provider.expect_reply().await;
                break;
            }
            assert_eq!(reply.in_reply_to(), Some(id.as_str()));
            if turn % 2 == 1 {
                assert_eq!(reply.text(), format!("You said {text}"));
            }
        }
        let dead = provider.expect_dead().await;
        assert_eq!(dead.code(), "attempts_exhausted");
        assert_eq!(dead.header(header::ATTEMPTS), Some("3"));
        assert!(dead.body.starts_with(b"{"), "{:?}", dead.body);
        assert_eq!(deaths.get(), 3, "each attempt killed one worker");
        // Its own conversation goes on too.
        provider.send(&Message::new("c1", "hello?").id("m1")).await;
        let reply = provider.expect_reply().await;
        assert_eq!((reply.text(), reply.in_reply_to()), ("Yes?", Some("m1")));
        provider.settled().await;
    };
    tokio::select! {
        () = talk => {}
        () = dying(&servers, &tenant, &deaths) => unreachable!("it goes on for ever"),
        () = dying(&servers, &tenant, &deaths) => unreachable!("it goes on for ever"),
    }
    assert_eq!(deaths.get(), 3);

    // What they died of is mended: a replay has all its attempts.
    let _worker = worker(&servers, &tenant).start().await;
    let select = ["replay", "--tenant", &tenant.id, "--key", "poison-1"];
    well(&servers.nats_url, &select).await;
    let reply = provider.expect_text("You said hi").await;
    assert_eq!(reply.in_reply_to(), Some("poison-1"));
    provider.settled().await;
    assert_eq!(provider.published().await.1, 0);
}

#[tokio::test]
async fn a_flow_without_an_end_is_tried_and_put_aside_with_its_code() {
    let servers = Servers::shared().await;
    let tenant = tenant();
    let worker = worker(&servers, &tenant)
        .setting("LIMITS__RENDERED_BYTES", "100000")
        .setting("LIMITS__NODES_PER_TURN", "500")
        .setting("LIMITS__REPLIES_PER_TURN", "500")
        .start()
        .await;
    let mut provider = Provider::connect(&servers, &tenant).await;

    for (flow, code, says) in [
        ("loop", "node_limit", "goes round"),
        ("swell", "rendered_limit", "100000"),
    ] {
        let message = Message::new("c1", "hi").header(header::FLOW_ID, flow);
        let id = provider.send(&message).await;
        let dead = provider.expect_dead().await;
        assert_eq!(dead.code(), code);
        assert!(dead.reason().contains(says), "{}", dead.reason());
        assert_eq!(dead.header(header::ATTEMPTS), Some("3"));
        let apology = provider.expect_text("Sorry").await;
        assert_eq!(apology.in_reply_to(), Some(id.as_str()));
    }
    let outcomes = "greentic_worker_messages_total";
    worker.expect_metric(outcomes, "dead_lettered", 2.0).await;
    worker.expect_metric(outcomes, "retried", 4.0).await;
    // The waits of the conversation are as they were: there is none.
    provider.send(&Message::new("c1", "hi")).await;
    provider.expect_text("Yes?").await;
}

#[tokio::test]
async fn what_is_too_large_or_unreadable_is_put_aside_at_once() {
    let servers = Servers::shared().await;
    let tenant = tenant();
    let _worker = worker(&servers, &tenant)
        .setting("LIMITS__PAYLOAD_BYTES", "600000")
        .setting("LIMITS__RENDERED_BYTES", "10000000")
        .start()
        .await;
    let mut provider = Provider::connect(&servers, &tenant).await;

    // A body over `limits.payload_bytes`; unread, it has no user to apologise to.
    provider
        .send(&Message::new("c1", &"x".repeat(700_000)))
        .await;
    let dead = provider.expect_dead().await;
    assert_eq!(dead.code(), "payload_too_large");
    assert!(dead.body.len() > 700_000);

    // A reply over the server's max_payload.
    let text = "x".repeat(500_000);
    let message = Message::new("c1", &text).header(header::FLOW_ID, "large");
    provider.send(&message).await;
    let dead = provider.expect_dead().await;
    assert_eq!(dead.code(), "reply_too_large", "{}", dead.reason());
    assert_eq!(dead.header(header::ATTEMPTS), Some("1"));
    provider.expect_text("Sorry").await;

    // A body that is no JSON.
    let body = b"\xff\xfe not json".to_vec();
    provider
        .send_raw(&tenant.id, HeaderMap::new(), body.clone())
        .await;
    let dead = provider.expect_dead().await;
    assert_eq!(dead.code(), "unreadable_body");
    assert_eq!(&dead.body[..], body);

    provider.send(&Message::new("c1", "hi")).await;
    provider.expect_text("Yes?").await;
    provider.settled().await;
}

#[tokio::test]
async fn a_wait_whose_pack_is_gone_goes_on_when_it_is_back() {
    let servers = Servers::shared().await;
    let other = FixturePack::of(
        "other",
        &[("main", "a: {emit.message: {text: other}, routing: out}")],
    );
    let pack = FixturePack::of("poison", FLOWS);
    let tenant = fresh_tenant().runs(&pack, &["main"], "");
    let first = worker(&servers, &tenant).start().await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    provider.send(&Message::new("c1", "hi")).await;
    provider.expect_text("Yes?").await;
    assert_eq!(first.stop().await, 0);

    let tenant = tenant.with_other_bindings().runs(&other, &["main"], "");
    pack.hide();
    let second = worker(&servers, &tenant).setting("PACKS__GONE_AFTER", "1s");
    let second = second.start().await;
    provider.send(&Message::new("c1", "Ada").id("m2")).await;
    let dead = provider.expect_dead().await;
    assert_eq!(dead.code(), "wait_pack_gone");
    let id = pack.id.to_string();
    assert!(dead.reason().contains(&id), "{}", dead.reason());
    provider.expect_text("Sorry").await;
    // Another conversation starts what is bound now.
    provider.send(&Message::new("c2", "hi")).await;
    provider.expect_text("other").await;
    assert_eq!(second.stop().await, 0);

    // Bound again and sent again under its own name, the answer finds its question.
    pack.show();
    let tenant = tenant.runs(&pack, &["main"], "");
    let _third = worker(&servers, &tenant).start().await;
    let mut headers = HeaderMap::new();
    headers.insert(header::IDEMPOTENCY_KEY, "m2");
    provider
        .send_raw(&tenant.id, headers, dead.body.to_vec())
        .await;
    let reply = provider.expect_text("You said Ada").await;
    assert_eq!(reply.in_reply_to(), Some("m2"));
}
