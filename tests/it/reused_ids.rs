//! Providers whose ids are unique only inside a chat: no message of theirs disappears, and true copies stay copies.

use async_nats::HeaderMap;
use greentic_worker::model::header;
use serde_json::json;

use crate::dead_letters::well;
use crate::harness::{
    FixturePack, Message, Provider, Servers, Tenant, WorkerProcess, fresh_tenant,
};

const MESSAGES: &str = "greentic_worker_messages_total";
const DEAD_LETTERS: &str = "greentic_worker_dead_letters_total";

fn tenant() -> Tenant {
    let flow = r#"a: {emit.message: {text: "You said {{in.text}}"}, routing: out}"#;
    let pack = FixturePack::of("says", &[("main", flow)]);
    fresh_tenant().runs(&pack, &["main"], "")
}

/// The log lines that tell of a reused id.
fn told(worker: &WorkerProcess) -> Vec<String> {
    let log = worker.log();
    let lines = log.lines().filter(|line| line.contains("id_reused"));
    lines.map(str::to_owned).collect()
}

#[tokio::test]
async fn another_message_under_the_same_id_is_put_aside_and_replayed_under_its_own() {
    let servers = Servers::shared().await;
    let (nats, tenant) = (servers.nats_url.as_str(), tenant());
    let worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    provider.send(&Message::new("c1", "hi").id("7")).await;
    provider.expect_text("You said hi").await;
    // Another chat, another user, another text, another button of the same card.
    let others = [
        Message::new("c2", "hi").id("7"),
        Message::new("c1", "hi").id("7").from("user2"),
        Message::new("c1", "ho").id("7"),
        Message::new("c1", "hi")
            .id("7")
            .field("metadata", json!({"action": "yes"})),
    ];
    for other in &others {
        provider.send(other).await;
        let dead = provider.expect_dead().await;
        assert_eq!(dead.code(), "id_reused", "{}", dead.reason());
        assert!(dead.reason().contains("Greentic-Idempotency-Key"));
    }
    worker.expect_metric(DEAD_LETTERS, "id_reused", 4.0).await;
    // Its provider sends the last one once more: as long as nobody replays it, that is another dead letter.
    provider.send(&others[3]).await;
    assert_eq!(provider.expect_dead().await.code(), "id_reused");
    provider.settled().await;
    let told = told(&worker);
    assert_eq!(told.len(), 1, "once a minute: {told:?}");
    assert!(told[0].contains("Greentic-Idempotency-Key"), "{told:?}");

    let select = ["replay", "--tenant", &tenant.id, "--code", "id_reused"];
    let would = well(nats, &[&select[..], &["--dry-run"]].concat()).await;
    assert_eq!(would.matches(" as 7:").count(), 5, "{would}");
    well(nats, &select).await;
    let mut texts = Vec::new();
    for reply in provider.expect_replies(4).await {
        assert!(reply.in_reply_to().unwrap().starts_with("7:"), "{reply:?}");
        texts.push(reply.text().to_owned());
    }
    texts.sort();
    let expected = ["hi", "hi", "hi", "ho"].map(|text| format!("You said {text}"));
    assert_eq!(texts, expected);
    provider.settled().await;
    worker.expect_metric(MESSAGES, "duplicate", 1.0).await;
    assert_eq!(provider.published().await, (5, 0));
}

#[tokio::test]
async fn a_true_copy_stays_a_copy_whatever_its_headers_and_its_layout() {
    let servers = Servers::shared().await;
    let tenant = tenant();
    let worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    let body = r#"{"id":"7","from":{"id":"u"},"reply_scope":{"conversation":"c"},"text":"hi","metadata":{"a":1,"b":2}}"#;
    let again = r#"{ "metadata": {"b": 2, "a": 1}, "text": "\u0068i", "attachments": [], "from": {"id": "u"},
                     "reply_scope": {"thread": null, "conversation": "c"}, "id": "7" }"#;
    let headers = |attempt: u32, key: Option<&str>| {
        let mut headers = HeaderMap::new();
        let trace = format!("00-0af7651916cd43dd8448eb211c80319c-00000000000000{attempt:02}-01");
        headers.insert(header::TRACEPARENT, trace.as_str());
        headers.insert("X-Sent-At", attempt.to_string().as_str());
        if let Some(key) = key {
            headers.insert(header::IDEMPOTENCY_KEY, key);
        }
        headers
    };
    for (attempt, (key, body)) in [(None, body), (None, body), (Some("7"), body), (None, again)]
        .into_iter()
        .enumerate()
    {
        let headers = headers(attempt as u32 + 1, key);
        provider
            .send_raw(&tenant.id, headers, body.as_bytes().to_vec())
            .await;
        if attempt == 0 {
            provider.expect_text("You said hi").await;
        }
    }
    provider.settled().await;
    worker.expect_metric(MESSAGES, "duplicate", 3.0).await;
    assert_eq!(provider.published().await, (1, 0));
}

#[tokio::test]
async fn an_id_that_was_dead_lettered_first_goes_to_the_message_that_is_applied() {
    let servers = Servers::shared().await;
    let (nats, tenant) = (servers.nats_url.as_str(), tenant());
    let _worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    let lost = Message::new("c1", "lost")
        .id("7")
        .header(header::FLOW_ID, "nowhere");
    provider.send(&lost).await;
    assert_eq!(provider.expect_dead().await.code(), "no_such_flow");
    provider.send(&Message::new("c2", "hi").id("7")).await;
    provider.expect_text("You said hi").await;
    // The id is taken by now, so a replay of the first one gets its own, and then its own reason again.
    well(nats, &["replay", "--tenant", &tenant.id, "--all"]).await;
    assert_eq!(provider.expect_dead().await.code(), "id_reused");
    well(nats, &["replay", "--tenant", &tenant.id, "--all"]).await;
    let dead = provider.expect_dead().await;
    assert_eq!(dead.code(), "no_such_flow");
    assert!(
        dead.header(header::IDEMPOTENCY_KEY)
            .is_some_and(|key| key.starts_with("7:"))
    );
    assert_eq!(provider.published().await, (1, 1));
}
