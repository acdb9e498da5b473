//! The message contract of docs/providers.md, as a provider sees it.

use async_nats::HeaderMap;
use greentic_worker::model::header;
use serde_json::json;

use crate::harness::{Message, Provider, Reply, Servers, WorkerProcess, fresh_tenant};

#[tokio::test]
async fn the_same_activity_sent_twice_is_one() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let _worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;

    let (hi, ada) = (
        Message::new("c1", "hi").id("m1"),
        Message::new("c1", "Ada").id("m2"),
    );
    provider.send(&hi).await;
    provider.expect_reply().await;
    provider.send(&ada).await;
    let greeting = provider.expect_reply().await;
    assert_eq!(greeting.in_reply_to(), Some("m2"));
    for copy in [&hi, &ada, &ada] {
        provider.send(copy).await;
    }
    // What comes next answers what comes next: the copies brought nothing.
    provider.send(&Message::new("c2", "hi").id("m3")).await;
    assert_eq!(provider.expect_reply().await.in_reply_to(), Some("m3"));
    assert_eq!(provider.published().await, (3, 0));
}

#[tokio::test]
async fn a_reply_names_its_activity_as_the_provider_did() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let _worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    let (long, endless) = ("x".repeat(300), "y".repeat(5_000));
    let cases = [
        ("plain-1", "plain-1"),
        ("50%", "50%25"),
        ("a b", "a b"),
        (
            " Grüße: <1@müller.example> ",
            "%20Gr%C3%BC%C3%9Fe: <1@m%C3%BCller.example>%20",
        ),
        ("two\r\nlines", "two%0D%0Alines"),
        (long.as_str(), long.as_str()),
    ];
    for (n, (id, header)) in cases.into_iter().enumerate() {
        provider
            .send(&Message::new(&format!("c{n}"), "hi").id(id))
            .await;
        let reply = provider.expect_reply().await;
        assert_eq!(reply.in_reply_to(), Some(header));
        assert_eq!(reply.body["id"], format!("{id}:0"));
    }
    provider.send(&Message::new("c", "hi").id(&endless)).await;
    let reply = provider.expect_reply().await;
    let header = reply.in_reply_to().unwrap();
    assert!(header.starts_with("key-") && header.len() == 68, "{header}");
    assert_eq!(reply.body["id"], format!("{endless}:0"));
    // A header names the activity, and the body is the flow's own affair.
    let named = Message::new("h", "hi")
        .id("body")
        .header(header::IDEMPOTENCY_KEY, "in the header");
    provider.send(&named).await;
    let reply = provider.expect_reply().await;
    assert_eq!(reply.in_reply_to(), Some("in the header"));
    assert_eq!(reply.body["id"], "in the header:0");
}

#[tokio::test]
async fn a_backlog_is_answered_in_order() {
    const USERS: usize = 50;
    const EACH: usize = 40;
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    // The first one only makes the consumer.
    let worker = WorkerProcess::start(&servers, &tenant).await;
    assert_eq!(worker.stop().await, 0);
    let mut provider = Provider::connect(&servers, &tenant).await;
    for n in 0..EACH {
        let text = if n % 2 == 0 { "hi" } else { "Ada" };
        // The messages of one flood have no order among them.
        provider
            .flood((0..USERS).map(|user| {
                let message = Message::new(&format!("c{user}"), text);
                let message = message.from(&format!("user{user}"));
                message.id(&format!("{user}-{n}"))
            }))
            .await;
    }

    let _worker = WorkerProcess::start(&servers, &tenant).await;
    let mut heard = [0; USERS];
    for reply in provider.expect_replies(USERS * EACH).await {
        let (user, n) = reply.in_reply_to().unwrap().split_once('-').unwrap();
        let next = &mut heard[user.parse::<usize>().unwrap()];
        assert_eq!(n, next.to_string(), "of user {user}");
        *next += 1;
    }
}

/// A busy worker has two pulls at the server, which deals the messages out to them in turn.
#[tokio::test]
async fn what_a_busy_worker_finds_waiting_is_answered_in_order() {
    const OTHERS: usize = 300;
    const EACH: usize = 8;
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    for round in 0..10 {
        // Each of its own: one user may have only so many open waits.
        let others = (0..OTHERS).map(|n| {
            let user = format!("user{round}-{n}");
            Message::new(&format!("other{round}-{n}"), "hi").from(&user)
        });
        provider.flood(others).await;
        provider.expect_replies(OTHERS).await;
        // It stands still before its pulls are over, and finds all of these when it goes on.
        worker.pause();
        for n in 0..EACH {
            let text = if n % 2 == 0 { "hi" } else { "Ada" };
            let message = Message::new(&format!("c{round}"), text);
            provider.send(&message.id(&format!("{round}-{n}"))).await;
        }
        worker.resume();
        let replies = provider.expect_replies(EACH).await;
        let heard: Vec<_> = replies.iter().filter_map(Reply::in_reply_to).collect();
        let sent: Vec<_> = (0..EACH).map(|n| format!("{round}-{n}")).collect();
        assert_eq!(heard, sent);
    }
}

#[tokio::test]
async fn a_full_envelope_is_answered_like_a_lean_one() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let _worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;

    let context = json!({"env": "dev", "tenant": tenant.id, "tenant_id": tenant.id, "attempt": 0});
    let full = Message::new("c1", "hi")
        .field("tenant", context)
        .field("channel", json!("webchat"))
        .field("session_id", json!("s1"))
        .field("metadata", json!({"number": 1, "flag": true}))
        .header(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        );
    provider.send(&full).await;
    let question = provider.expect_reply().await;
    assert_eq!(question.body["channel"], "webchat");
    assert_eq!(question.body["session_id"], "s1");
    assert_eq!(question.body["tenant"]["tenant_id"], tenant.id.as_str());
    assert_eq!(question.header(header::TENANT), Some(tenant.id.as_str()));
    assert_eq!(question.header(header::ENV), Some("dev"));
    let trace = question.header(header::TRACEPARENT).unwrap();
    assert!(
        trace.contains("0af7651916cd43dd8448eb211c80319c"),
        "{trace}"
    );
    // The lean answer belongs to it.
    provider.send(&Message::new("c1", "Ada")).await;
    assert!(provider.expect_reply().await.text().contains("Ada"));
}

#[tokio::test]
async fn an_address_is_as_good_a_user_as_any() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let _worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;

    provider
        .send(&Message::new("c1", "hi").from("ada@example.com"))
        .await;
    provider.expect_reply().await;
    provider
        .send(&Message::new("c1", "Grace").from("grace@example.com"))
        .await;
    assert!(
        provider.expect_reply().await.expects_reply(),
        "another user took the answer's place"
    );
    provider
        .send(&Message::new("c1", "Ada").from("ada@example.com"))
        .await;
    assert!(provider.expect_reply().await.text().contains("Ada"));
}

#[tokio::test]
async fn what_cannot_be_applied_is_put_aside_untouched() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let _worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;

    let mut headers = HeaderMap::new();
    headers.insert("X-Mine", "kept");
    headers.insert(header::MSG_ID, "m1");
    provider
        .send_raw(&tenant.id, headers, b"{\"id\": nonsense".to_vec())
        .await;
    let dead = provider.expect_dead().await;
    assert_eq!(dead.code(), "unreadable_body");
    assert!(dead.reason().contains("byte 8"), "{}", dead.reason());
    assert_eq!(&dead.body[..], b"{\"id\": nonsense");
    assert_eq!(dead.header("X-Mine"), Some("kept"));
    assert_eq!(dead.header(header::IDEMPOTENCY_KEY), Some("m1"));

    provider
        .send(&Message::new("c1", "hi").without("reply_scope"))
        .await;
    let dead = provider.expect_dead().await;
    assert_eq!(dead.code(), "reply_scope_missing");
    assert_eq!(
        dead.reason(),
        "Cannot suspend: reply_scope missing; provider plugin must supply ReplyScope"
    );

    provider
        .send(&Message::new("c1", "hi").header(header::FLOW_ID, "nowhere"))
        .await;
    let dead = provider.expect_dead().await;
    assert_eq!(dead.code(), "no_such_flow");
    assert!(dead.reason().contains("nowhere"), "{}", dead.reason());

    // Everyone else is served.
    provider.send(&Message::new("c1", "hi")).await;
    assert!(provider.expect_reply().await.expects_reply());
}
