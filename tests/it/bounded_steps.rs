//! A flow that computes without an end costs its own message, and nobody else's.

use greentic_worker::model::header;
use serde_json::{Value, json};

use crate::harness::{
    FixturePack, Message, Provider, Servers, Tenant, WorkerProcess, fresh_tenant,
};

/// A loop in a loop in a loop in a loop over a list of the message.
const FOUR_LOOPS: &str = r#"
a:
  emit.message:
    text: "{{#each in.metadata.list}}{{#each @root.in.metadata.list}}{{#each @root.in.metadata.list}}{{#each @root.in.metadata.list}}{{/each}}{{/each}}{{/each}}{{/each}}"
  routing: out
"#;

/// What a careless author writes.
const TWO_LOOPS: &str = r#"
a:
  emit.message:
    text: "{{#each in.metadata.list}}{{#each @root.in.metadata.list}}{{#if (eq this ../this)}}x{{/if}}{{/each}}{{/each}}"
  routing: out
"#;

/// Four hundred conditions over one text.
fn conditions() -> String {
    let routes: Vec<_> = (0..400)
        .map(|n| format!("{{condition: 'in.text contains \"word{n}\"', to: a}}"))
        .collect();
    let routes = routes.join(", ");
    format!("a: {{emit.message: {{text: hi}}, routing: [{routes}]}}")
}

fn list(items: usize) -> Value {
    json!({"list": (0..items).collect::<Vec<_>>()})
}

fn attacker() -> Tenant {
    let conditions = conditions();
    let flows = [
        ("four", FOUR_LOOPS),
        ("two", TWO_LOOPS),
        ("conditions", &*conditions),
    ];
    let pack = FixturePack::of("attack", &flows);
    fresh_tenant().runs(&pack, &flows.map(|(id, _)| id), "")
}

#[tokio::test]
async fn a_flow_that_computes_without_an_end_is_put_aside_at_once() {
    let servers = Servers::shared().await;
    let attacker = attacker();
    let echo = "a: {emit.message: {text: \"{{in.text}}\"}, routing: out}";
    let neighbour = fresh_tenant().runs(&FixturePack::of("echo", &[("main", echo)]), &["main"], "");
    let worker = WorkerProcess::of(&servers)
        .bindings(&attacker)
        .bindings(&neighbour);
    let _worker = worker.start().await;
    let mut provider = Provider::connect(&servers, &attacker).await;
    let mut neighbours = Provider::connect(&servers, &neighbour).await;

    let text = "x".repeat(900_000);
    let attacks = [
        (
            "four",
            Message::new("c1", "hi").field("metadata", list(2_000)),
            "#each",
        ),
        (
            "two",
            Message::new("c1", "hi").field("metadata", list(60_000)),
            "#each",
        ),
        ("conditions", Message::new("c1", &text), "in.text contains"),
    ];
    for (flow, message, named) in attacks {
        provider.send(&message.header(header::FLOW_ID, flow)).await;
        // Somebody else is served meanwhile and afterwards.
        for said in ["meanwhile", "afterwards"] {
            neighbours.send(&Message::new("n1", said)).await;
            neighbours.expect_text(said).await;
        }
        let dead = provider.expect_dead().await;
        assert_eq!(dead.code(), "step_limit", "{flow}: {}", dead.reason());
        assert_eq!(dead.header(header::ATTEMPTS), Some("1"), "{flow}");
        let place = format!("flow {flow}, node a");
        for part in [&*place, named, "limits.steps_per_node"] {
            assert!(dead.reason().contains(part), "{part}: {}", dead.reason());
        }
    }
    provider.settled().await;
}
