//! Conversations of one user that all change the same state.

use crate::harness::{
    DEADLINE, FixturePack, Message, Provider, Servers, WorkerProcess, fresh_tenant,
};

/// How many conversations the user has.
const CONVERSATIONS: usize = 150;
/// The most conflicts of a turn, on average: it takes a lease after three, and may meet one more while it waits for that.
const MOST_CONFLICTS: f64 = 4.0;

#[tokio::test]
async fn conversations_of_one_user_come_through_on_one_key() {
    let servers = Servers::shared().await;
    let flow = r#"
recall: {state.get: {key: tally}, routing: [{to: add}]}
add: {state.set: {key: tally, value: "{{node.recall.value}}|"}, routing: [{to: say}]}
say: {emit.message: {text: "{{node.recall.value}}|"}, routing: out}
"#;
    let pack = FixturePack::of("tally", &[("main", flow)]);
    let tenant = fresh_tenant().runs(&pack, &["main"], "");
    let worker = || WorkerProcess::of(&servers).bindings(&tenant).start();
    let (one, other) = tokio::join!(worker(), worker());
    let provider = Provider::connect(&servers, &tenant).await;
    let mut provider = provider.patient(DEADLINE * 3);
    let messages = (0..CONVERSATIONS).map(|n| Message::new(&format!("c{n}"), "add"));
    provider.flood(messages).await;
    let mut said: Vec<usize> = Vec::new();
    for reply in provider.expect_replies(CONVERSATIONS).await {
        said.push(reply.text().len());
    }
    said.sort_unstable();
    let expected: Vec<usize> = (1..=CONVERSATIONS).collect();
    assert_eq!(
        said, expected,
        "each turn has read what the one before it wrote"
    );
    provider.settled().await;
    let name = "greentic_worker_commit_conflicts_total";
    let conflicts = one.metric(name, &tenant.id).await + other.metric(name, &tenant.id).await;
    let each = conflicts / CONVERSATIONS as f64;
    assert!(each <= MOST_CONFLICTS, "{each} conflicts a turn");
}
