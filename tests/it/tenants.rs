//! What belongs to one tenant reaches no other.

use serde_json::json;

use crate::harness::{Message, Provider, Servers, WorkerProcess, fresh_tenant};

#[tokio::test]
async fn tenant_isolation() {
    let servers = Servers::shared().await;
    let (ours, theirs) = (
        fresh_tenant().binds("hello-pack", &["main"]),
        fresh_tenant().binds("hello-pack", &["main"]),
    );
    let _worker = WorkerProcess::of(&servers)
        .bindings(&ours)
        .bindings(&theirs)
        .start()
        .await;
    let mut us = Provider::connect(&servers, &ours).await;
    let mut them = Provider::connect(&servers, &theirs).await;

    // The same user, conversation and message id in two tenants: two activities, two conversations.
    us.send(&Message::new("c1", "hi").id("m1")).await;
    assert!(us.expect_reply().await.expects_reply());
    them.send(&Message::new("c1", "hi").id("m1")).await;
    assert!(them.expect_reply().await.expects_reply());
    us.send(&Message::new("c1", "Ada").id("m2")).await;
    assert!(us.expect_reply().await.text().contains("Ada"));
    // Their flow still waits, and has seen nothing of ours: for them it is the first visit.
    them.send(&Message::new("c1", "Grace").id("m2")).await;
    let greeting = them.expect_reply().await;
    assert!(
        greeting.text().contains("Grace") && !greeting.text().contains('2'),
        "{greeting:?}"
    );

    // A body that names another tenant is never run.
    us.send(&Message::new("c1", "hi").field("tenant", json!({"tenant_id": theirs.id})))
        .await;
    let dead = us.expect_dead().await;
    assert_eq!(dead.code(), "tenant_mismatch");
    assert!(dead.reason().contains(&theirs.id), "{}", dead.reason());
    us.send(&Message::new("c1", "hi").field("tenant", json!({"env": "prod"})))
        .await;
    assert_eq!(us.expect_dead().await.code(), "tenant_mismatch");
}

#[tokio::test]
async fn messages_for_a_tenant_wait_until_a_worker_is_bound_to_it() {
    let servers = Servers::shared().await;
    let (bound, later) = (
        fresh_tenant().binds("hello-pack", &["main"]),
        fresh_tenant().binds("hello-pack", &["main"]),
    );
    let _worker = WorkerProcess::start(&servers, &bound).await;
    let mut provider = Provider::connect(&servers, &later).await;
    provider.send(&Message::new("c1", "hi")).await;

    let _bound_now = WorkerProcess::start(&servers, &later).await;
    assert!(provider.expect_reply().await.expects_reply());
}
