//! A conversation survives its worker: whoever gets the answer goes on with it.

use crate::harness::{Message, Provider, Servers, WorkerProcess, fresh_tenant};

#[tokio::test]
async fn load_balancer_safety() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let first = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;

    // Asked by one worker, which dies; answered to another one.
    provider.send(&Message::new("c1", "hi")).await;
    assert!(provider.expect_reply().await.expects_reply());
    first.kill().await;
    let second = WorkerProcess::start(&servers, &tenant).await;
    provider.send(&Message::new("c1", "Ada")).await;
    let greeting = provider.expect_reply().await;
    assert!(greeting.text().contains("Ada"), "{greeting:?}");
    assert!(!greeting.expects_reply());

    // The state that the first visit wrote is there too, though its worker is gone as well.
    provider.send(&Message::new("c2", "hi again")).await;
    assert!(provider.expect_reply().await.expects_reply());
    second.kill().await;
    let _third = WorkerProcess::start(&servers, &tenant).await;
    provider.send(&Message::new("c2", "Ada")).await;
    let greeting = provider.expect_reply().await;
    assert!(
        greeting.text().contains('2'),
        "not the second visit: {greeting:?}"
    );
}

#[tokio::test]
async fn load_balancer_safety_with_both_workers_restarted() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let both = (
        WorkerProcess::start(&servers, &tenant).await,
        WorkerProcess::start(&servers, &tenant).await,
    );
    let mut provider = Provider::connect(&servers, &tenant).await;

    provider.send(&Message::new("c1", "hi")).await;
    assert!(provider.expect_reply().await.expects_reply());
    both.0.kill().await;
    both.1.kill().await;
    // The answer comes while nobody is there.
    provider.send(&Message::new("c1", "Grace")).await;
    let _again = (
        WorkerProcess::start(&servers, &tenant).await,
        WorkerProcess::start(&servers, &tenant).await,
    );
    let greeting = provider.expect_reply().await;
    assert!(greeting.text().contains("Grace"), "{greeting:?}");
}

#[tokio::test]
async fn two_workers_share_the_conversations_of_many_users() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let _both = (
        WorkerProcess::start(&servers, &tenant).await,
        WorkerProcess::start(&servers, &tenant).await,
    );
    let mut provider = Provider::connect(&servers, &tenant).await;

    let users: Vec<String> = (0..40).map(|n| format!("user-{n}")).collect();
    for user in &users {
        provider
            .send(&Message::new(&format!("c-{user}"), "hi").from(user))
            .await;
    }
    provider.expect_replies(users.len()).await;
    for user in &users {
        provider
            .send(&Message::new(&format!("c-{user}"), &format!("Name-{user}.")).from(user))
            .await;
    }
    let mut greeted: Vec<String> = Vec::new();
    for reply in provider.expect_replies(users.len()).await {
        let conversation = reply.body["reply_scope"]["conversation"].as_str().unwrap();
        let user = conversation.strip_prefix("c-").unwrap();
        assert!(reply.text().contains(&format!("Name-{user}.")), "{reply:?}");
        greeted.push(user.to_owned());
    }
    greeted.sort();
    let mut all = users.clone();
    all.sort();
    assert_eq!(greeted, all, "each is greeted once");
}
