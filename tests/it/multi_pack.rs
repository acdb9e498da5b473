//! One tenant, two packs, both with a flow `main`: both load, both run, and neither is taken for the other.

use greentic_worker::model::header;

use crate::harness::{Message, Provider, Servers, WorkerProcess, fresh_tenant, pack_id};

#[tokio::test]
async fn multi_pack() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant()
        .binds("hello-pack", &["main"])
        .binds("approval-pack", &["main"]);
    let _worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;

    for pack in ["hello-pack", "approval-pack"] {
        let id = pack_id(pack).to_string();
        provider
            .send(&Message::new(pack, "hi").header(header::PACK_ID, &id))
            .await;
        let question = provider.expect_reply().await;
        assert_eq!(question.header(header::PACK_ID), Some(id.as_str()));
        assert_eq!(question.header(header::FLOW_ID), Some("main"));
        assert!(question.expects_reply());
    }

    // Each answer goes on in the pack that asked, though both flows have the same name and the same user.
    provider
        .send(&Message::new("approval-pack", "a new chair"))
        .await;
    let second = provider.expect_reply().await;
    assert_eq!(
        second.header(header::PACK_ID),
        Some(pack_id("approval-pack").to_string().as_str())
    );
    assert!(second.text().contains("a new chair"), "{second:?}");
    provider.send(&Message::new("hello-pack", "Ada")).await;
    let greeting = provider.expect_reply().await;
    assert_eq!(
        greeting.header(header::PACK_ID),
        Some(pack_id("hello-pack").to_string().as_str())
    );
    assert!(greeting.text().contains("Ada"), "{greeting:?}");
}

#[tokio::test]
async fn a_message_that_names_no_flow_starts_the_one_tagged_default() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant()
        .binds("hello-pack", &["main"])
        .binds("approval-pack", &["main"]);
    let _worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;

    provider.send(&Message::new("c1", "hi")).await;
    let question = provider.expect_reply().await;
    assert_eq!(
        question.header(header::PACK_ID),
        Some(pack_id("hello-pack").to_string().as_str())
    );
}

#[tokio::test]
async fn the_settings_choose_the_default_flow_of_a_tenant() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant()
        .binds("hello-pack", &["main"])
        .binds("approval-pack", &["main"]);
    let settings = format!(
        "tenants:\n  {}:\n    default_flow: approval-pack/main\n",
        tenant.id
    );
    let config = tenant.dir().join("settings.yaml");
    std::fs::write(&config, settings).unwrap();
    let worker = WorkerProcess::of(&servers)
        .bindings(&tenant)
        .arg("--config")
        .arg(config.to_str().unwrap());
    let _worker = worker.start().await;
    let mut provider = Provider::connect(&servers, &tenant).await;

    provider.send(&Message::new("c1", "hi")).await;
    let question = provider.expect_reply().await;
    assert_eq!(
        question.header(header::PACK_ID),
        Some(pack_id("approval-pack").to_string().as_str())
    );
}
