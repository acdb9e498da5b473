//! What a turn leaves in the log, for those who look for one conversation, and what it never does.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::components::component;
use crate::harness::{
    DEADLINE, FixturePack, Message, Provider, Servers, Tenant, WorkerBuilder, WorkerProcess,
    fresh_tenant, poll,
};

/// What the user writes, and what comes of it: answers of components, keys and values of state, rendered texts.
const CANARY: &str = "canary-7f3a91";
/// What the pack is granted.
const SECRET: &str = "s3cr3t-c0ffee";

const FLOW: &str = r#"
ask:
  emit.message: {text: "you wrote {{in.text}}, and we know {{env.IT_SECRET}}{{log in.text}}"}
  routing: [{to: remember}]
remember:
  state.set: {key: "k-{{in.text}}", value: {said: "{{in.text}}", secret: "{{env.IT_SECRET}}"}}
  routing: [{to: call}]
call:
  component.exec: {component: echo, operation: say, input: {text: "{{in.text}}", secret: "{{env.IT_SECRET}}"}}
  routing: [{to: known}]
known:
  state.get: {key: "k-{{in.text}}"}
  routing: [{to: wait}]
wait:
  session.wait: {reason: "after {{in.text}}"}
  routing: [{to: done}]
done:
  emit.message: {text: "heard {{in.text}}"}
  routing: out
"#;

fn tenant() -> Tenant {
    let code = component("echo");
    let needs = "{host: {secrets: {required: []}}}";
    let pack = FixturePack::with_component("told", &[("main", FLOW)], ("echo", &code, needs));
    fresh_tenant().runs(&pack, &["main"], "env_passthrough: [IT_SECRET]\n")
}

fn worker(servers: &Servers, tenant: &Tenant, filter: &str) -> WorkerBuilder {
    WorkerProcess::of(servers)
        .bindings(tenant)
        .env("IT_SECRET", SECRET)
        .setting("ENV__ALLOW", "[IT_SECRET]")
        .setting("COMPONENTS__CACHE_DIR", "off")
        .setting("WORKER__ATTEMPTS", "1")
        .setting("LOG__FORMAT", "json")
        .setting("LOG__FILTER", filter)
}

/// Has one conversation of two turns, and a message that is dead-lettered for what it holds.
async fn converse(servers: &Servers, tenant: &Tenant) {
    let mut provider = Provider::connect(servers, tenant).await;
    provider.send(&Message::new("c1", CANARY).id("m-1")).await;
    let asked = provider.expect_reply().await;
    assert!(asked.text().contains(CANARY) && asked.text().contains(SECRET));
    provider.send(&Message::new("c1", CANARY).id("m-2")).await;
    provider.expect_text(&format!("heard {CANARY}")).await;
    let unreadable = format!("{{\"id\": \"m-3\", \"{CANARY}\"");
    let headers = async_nats::HeaderMap::new();
    provider
        .send_raw(&tenant.id, headers, unreadable.into_bytes())
        .await;
    assert_eq!(provider.expect_dead().await.code(), "unreadable_body");
    provider.settled().await;
}

/// The lines of the log. Each is one JSON object.
fn lines(worker: &WorkerProcess) -> Vec<Value> {
    let log = worker.log();
    let read = |line: &str| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
    // What the shell that starts it says of its end.
    let own = log.lines().filter(|line| *line != "Terminated");
    own.map(read).collect()
}

/// The lines of a message with this text, once the one that ends its turn is there.
async fn said(worker: &WorkerProcess, text: &str, message: &str) -> Vec<Value> {
    let of_message = || {
        let all = lines(worker).into_iter();
        let own = all.filter(|line| line["message"] == text && line["turn"]["message"] == message);
        own.collect::<Vec<Value>>()
    };
    let ended = poll(DEADLINE, async || {
        let lines = of_message();
        let is_over = lines.iter().any(|line| line["kind"] == "end");
        (is_over || text == "turn" && !lines.is_empty()).then_some(lines)
    });
    ended.await.expect("the turn's last line")
}

fn column(lines: &[Value], name: &str) -> Vec<String> {
    let text = |line: &Value| line[name].as_str().map(str::to_owned);
    lines.iter().filter_map(text).collect()
}

/// The messages of a conversation, found as docs/metrics.md tells to.
fn messages_of(worker: &WorkerProcess, tenant: &Tenant, conversation: &str) -> BTreeSet<String> {
    let digest = format!("printf '%s\\n%s\\n%s\\n' {conversation} '' '' | sha256sum | cut -c1-16");
    let digest = Command::new("sh").args(["-c", &digest]).output().unwrap();
    let digest = String::from_utf8(digest.stdout).unwrap();
    let log = worker.log();
    let own = log.lines().filter(|line| line.contains(digest.trim()));
    let own = own.map(|line| serde_json::from_str::<Value>(line).unwrap());
    own.filter(|line| line["turn"]["tenant"] == tenant.id.as_str())
        .map(|line| line["turn"]["message"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn the_steps_of_a_turn_are_lines_at_debug_and_tell_nothing_of_what_was_said() {
    let servers = Servers::shared().await;
    let tenant = tenant();
    let worker = worker(&servers, &tenant, "trace").start().await;
    converse(&servers, &tenant).await;

    let first = said(&worker, "turn step", "m-1").await;
    let kinds = column(&first, "kind");
    let expected = [
        "begin",
        "node",
        "node",
        "component",
        "node",
        "node",
        "node",
        "commit",
        "wait_parked",
        "reply",
        "end",
    ];
    assert_eq!(kinds, expected, "{first:?}");
    let nodes: Vec<Value> = first
        .iter()
        .filter(|line| line["kind"] == "node")
        .cloned()
        .collect();
    assert_eq!(
        column(&nodes, "node"),
        ["ask", "remember", "call", "known", "wait"]
    );
    assert_eq!(column(&nodes, "flow"), ["main"; 5]);
    let elapsed = |line: &Value| line["elapsed_ms"].as_f64();
    let timed = first.iter().filter(|line| line["kind"] != "wait_parked");
    assert!(timed.clone().all(|line| elapsed(line).unwrap() >= 0.0));
    let parts: f64 = timed
        .clone()
        .filter(|line| !["component", "end"].contains(&line["kind"].as_str().unwrap()))
        .filter_map(elapsed)
        .sum();
    let whole = elapsed(first.last().unwrap()).unwrap();
    assert!(parts > 0.0 && parts <= whole, "{parts} of {whole}");
    let call = first.iter().find(|line| line["kind"] == "component");
    let call = call.unwrap();
    assert_eq!(call["component"], "echo");
    assert_eq!(
        (&call["node"], &call["outcome"]),
        (&"call".into(), &"done".into())
    );
    assert_eq!(first[0]["outcome"], "starts");
    let end = first.last().unwrap();
    assert_eq!(
        (&end["outcome"], &end["replies"]),
        (&"parked".into(), &1.into())
    );

    let second = said(&worker, "turn step", "m-2").await;
    assert_eq!(
        column(&second, "kind"),
        ["begin", "node", "commit", "wait_resumed", "reply", "end"]
    );
    assert_eq!(second[0]["outcome"], "resumes");
    let session = |lines: &[Value]| column(lines, "session");
    assert_eq!(session(&first), session(&second));
    assert_eq!(session(&first).len(), 1);

    let messages = messages_of(&worker, &tenant, "c1");
    assert_eq!(messages, ["m-1".to_owned(), "m-2".to_owned()].into());

    let log = worker.log();
    let all = lines(&worker);
    assert!(all.iter().any(|line| line["code"] == "unreadable_body"));
    // The client's trace of its connection begins with its password.
    assert!(!log.contains("write operation: CONNECT"), "{log}");
    for line in log.lines() {
        assert!(!line.contains(CANARY) && !line.contains(SECRET), "{line}");
    }
}

#[tokio::test]
async fn what_was_said_is_in_the_log_where_the_operator_wants_it_and_secrets_never_are() {
    let servers = Servers::shared().await;
    let tenant = tenant();
    let worker = worker(&servers, &tenant, "debug")
        .setting("LOG__PAYLOADS", "true")
        .start()
        .await;
    converse(&servers, &tenant).await;
    said(&worker, "turn step", "m-2").await;
    let first = lines(&worker)
        .into_iter()
        .filter(|line| line["message"] == "turn payload" && line["turn"]["message"] == "m-1");
    let first: Vec<Value> = first.collect();
    let kinds: BTreeSet<String> = column(&first, "kind").into_iter().collect();
    let expected = [
        "component_input",
        "component_operation",
        "component_output",
        "message",
        "reply",
        "state_written",
    ];
    assert_eq!(kinds, expected.map(str::to_owned).into());
    for line in &first {
        let payload = line["payload"].as_str().unwrap();
        let is_word = line["kind"] == "component_operation";
        assert!(is_word || payload.contains(CANARY), "{line}");
    }
    let reply = first.iter().find(|line| line["kind"] == "reply").unwrap();
    let reply = reply["payload"].as_str().unwrap();
    assert!(reply.contains("and we know ***"), "{reply}");
    let all = lines(&worker);
    assert!(all.iter().any(|line| line["message"] == "template log"));
    let why = all
        .iter()
        .find(|line| line["message"] == "why the message was dead-lettered");
    assert!(why.is_some());
    let log = worker.log();
    for line in log.lines() {
        assert!(!line.contains(SECRET), "{line}");
    }
}

#[tokio::test]
async fn a_turn_leaves_one_line_at_info_where_the_operator_wants_it() {
    let servers = Servers::shared().await;
    let tenant = tenant();
    let silent = worker(&servers, &tenant, "info").start().await;
    converse(&servers, &tenant).await;
    let of_turns = |worker: &WorkerProcess| {
        let all = lines(worker).into_iter();
        let own = all.filter(|line| {
            let text = line["message"].as_str().unwrap_or_default();
            text.starts_with("turn")
        });
        own.collect::<Vec<Value>>()
    };
    assert_eq!(silent.stop().await, 0);
    assert_eq!(of_turns(&silent), Vec::<Value>::new());

    let tenant = self::tenant();
    let telling = worker(&servers, &tenant, "info")
        .setting("LOG__TURNS", "true")
        .start()
        .await;
    converse(&servers, &tenant).await;
    assert_eq!(telling.stop().await, 0);
    let turns = of_turns(&telling);
    assert_eq!(column(&turns, "message"), ["turn"; 3]);
    // The lines of two messages that run at once come in any order.
    let (dead, turns): (Vec<&Value>, Vec<&Value>) = turns
        .iter()
        .partition(|turn| turn["outcome"] == "dead_lettered");
    assert_eq!(dead.len(), 1);
    assert_eq!(dead[0]["code"], "unreadable_body");
    let outcomes: Vec<&Value> = turns.iter().map(|turn| &turn["outcome"]).collect();
    assert_eq!(outcomes, ["parked", "finished"]);
    for turn in turns {
        assert_eq!(turn["level"], "INFO");
        assert!(turn["elapsed_ms"].as_f64().unwrap() > 0.0, "{turn}");
        assert_eq!(turn["turn"]["tenant"], tenant.id.as_str());
        assert!(turn["turn"]["conversation"].is_string(), "{turn}");
    }
    let log = telling.log();
    assert!(!log.contains(CANARY) && !log.contains(SECRET), "{log}");
}
