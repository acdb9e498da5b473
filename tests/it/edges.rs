//! What users, packs and components try at the edges: another start of a flow, servers that are not theirs, the log.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::components::component;
use crate::harness::{
    DEADLINE, FixturePack, Message, Provider, Servers, WorkerProcess, fresh_tenant, poll,
};

#[tokio::test]
async fn a_first_message_does_not_name_its_way_past_the_payment() {
    let servers = Servers::shared().await;
    let shop = r#"
ask: {emit.message: {text: "Please pay 1000 EUR"}, routing: [{to: wait}]}
wait: {session.wait: {reason: the money}, routing: [{to: paid}]}
paid: {emit.message: {text: PAID 1000 EUR}, routing: out}
help: {entry: true, emit.message: {text: Help}, routing: out}
"#;
    let pack = FixturePack::of("shop", &[("main", shop)]);
    let tenant = fresh_tenant().runs(&pack, &["main"], "");
    let _worker = WorkerProcess::start(&servers, &tenant).await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    for (n, key) in ["routeToCardId", "toCardId", "nextCardId"]
        .into_iter()
        .enumerate()
    {
        let message = Message::new(&format!("c{n}"), "")
            .field("metadata", json!({key: "paid", "action": "go"}));
        provider.send(&message).await;
        provider.expect_text("Please pay 1000 EUR").await;
    }
    let message = Message::new("c9", "").field("metadata", json!({"toCardId": "help"}));
    provider.send(&message).await;
    provider.expect_text("Help").await;
}

/// A server that answers every request with a page; its port.
async fn page() -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = vec![0; 4096];
            let _read = stream.read(&mut request).await;
            let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
            let _written = stream.write_all(answer.as_bytes()).await;
        }
    });
    port
}

#[tokio::test]
async fn a_component_reaches_neither_the_workers_servers_nor_metadata() {
    let servers = Servers::shared().await;
    let flow = r#"
ask:
  component.exec: {component: http, operation: get, input: "{{in.text}}"}
  routing: [{condition: event == "on_error", to: refused}, {to: got}]
refused: {emit.message: {text: "refused: {{node.ask.error.code}}"}, routing: out}
got: {emit.message: {text: got}, routing: out}
"#;
    let code = component("http");
    let needs = "{host: {http: {client: true, server: false}}}";
    let pack = FixturePack::with_component("reach", &[("main", flow)], ("http", &code, needs));
    let tenant = fresh_tenant().runs(&pack, &["main"], "");
    let closed = fresh_tenant().runs(&pack, &["main"], "");
    let allow = r#"["127.0.0.1", "localhost", "::1", "fd00:ec2::23", "fd20:ce::254", "::ffff:169.254.169.254", "168.63.129.16"]"#;
    let settings = format!(
        "tenants: {{{}: {{http: {{allow: ['127.0.0.1:1']}}}}}}\n",
        closed.id
    );
    let config = closed.dir().join("settings.yaml");
    std::fs::write(&config, settings).unwrap();
    let worker = WorkerProcess::of(&servers)
        .bindings(&tenant)
        .bindings(&closed)
        .setting("COMPONENTS__HTTP__ALLOW", allow)
        .setting("COMPONENTS__CACHE_DIR", "off")
        .arg("--config")
        .arg(config.to_str().unwrap())
        .start()
        .await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    let port = |url: &str| {
        url.rsplit(':')
            .next()
            .unwrap()
            .split('/')
            .next()
            .unwrap()
            .to_owned()
    };
    let (nats, redis) = (port(&servers.nats_url), port(&servers.redis_url));
    let endpoint = port(worker.http_address());
    let free = page().await;
    let mut conversations = 0..;
    for (url, answer) in [
        (format!("http://127.0.0.1:{free}/"), "got"),
        (
            format!("http://{}/metrics", worker.http_address()),
            "refused: denied",
        ),
        (format!("http://localhost:{endpoint}/"), "refused: denied"),
        (format!("http://127.0.0.1:{redis}/"), "refused: denied"),
        (format!("http://localhost:{redis}/"), "refused: denied"),
        (format!("http://127.0.0.1:{nats}/"), "refused: denied"),
        ("http://[fd00:ec2::23]/".to_owned(), "refused: denied"),
        ("http://[fd20:ce::254]/".to_owned(), "refused: denied"),
        (
            "http://[::ffff:169.254.169.254]/".to_owned(),
            "refused: denied",
        ),
        ("http://168.63.129.16/".to_owned(), "refused: denied"),
    ] {
        let conversation = conversations.next().unwrap();
        provider
            .send(&Message::new(&format!("c{conversation}"), &url))
            .await;
        let reply = provider.expect_reply().await;
        assert_eq!(reply.text(), answer, "{url}");
    }
    let refusals = worker
        .metric("greentic_worker_component_refusals_total", &tenant.id)
        .await;
    assert!((refusals - 9.0).abs() < 0.5, "{refusals}");

    let mut provider = Provider::connect(&servers, &closed).await;
    provider
        .send(&Message::new("c1", &format!("http://127.0.0.1:{free}/")))
        .await;
    provider.expect_text("refused: denied").await;
}

#[tokio::test]
async fn the_log_takes_so_many_lines_of_a_turn_and_shows_them_as_they_are() {
    const ASKED: usize = 150;
    const TAKEN: usize = 100;
    let servers = Servers::shared().await;
    let mut flow = String::new();
    for n in 0..ASKED {
        let next = n + 1;
        flow += &format!("n{n}: {{emit.log: \"{{{{in.text}}}}\", routing: [{{to: n{next}}}]}}\n");
    }
    flow += &format!("n{ASKED}: {{emit.message: done, routing: out}}\n");
    let pack = FixturePack::of("chatty", &[("main", &flow)]);
    let tenant = fresh_tenant().runs(&pack, &["main"], "");
    let mut provider = Provider::connect(&servers, &tenant).await;
    for format in ["human", "json"] {
        let worker = WorkerProcess::of(&servers)
            .bindings(&tenant)
            .setting("LOG__FORMAT", format)
            .start()
            .await;
        let text = format!("a\u{202e}b\u{2028}c\u{1b}[31m{}", "x".repeat(10_000));
        provider.send(&Message::new(format, &text)).await;
        provider.expect_text("done").await;
        let said = poll(DEADLINE, async || {
            let log = worker.log();
            log.contains("the others are left out").then_some(log)
        });
        let log = said.await.expect("it says what it left out");
        let lines: Vec<&str> = log
            .lines()
            .filter(|line| line.contains("flow log"))
            .collect();
        assert_eq!(lines.len(), TAKEN + 1, "{format}");
        assert!(log.contains(&(ASKED - TAKEN).to_string()));
        let longest = lines.iter().map(|line| line.len()).max().unwrap();
        assert!(longest < 5_000, "{format}: {longest}");
        for hidden in ['\u{202e}', '\u{2028}', '\u{1b}'] {
            assert!(!log.contains(hidden), "{format}: {hidden:?} is in the log");
        }
        assert_eq!(worker.stop().await, 0);
    }
}

#[tokio::test]
async fn undeclared_state_is_given_or_refused_and_warned_of() {
    let servers = Servers::shared().await;
    let flow = r#"
ask:
  component.exec: {component: state, operation: read, input: "x"}
  routing: [{condition: event == "on_error", to: refused}, {to: got}]
refused: {emit.message: {text: "refused: {{node.ask.error.code}}"}, routing: out}
got: {emit.message: {text: got}, routing: out}
"#;
    let code = component("state");
    let pack =
        FixturePack::with_component("memory", &[("main", flow)], ("state", &code, "{host: {}}"));
    let tenant = fresh_tenant().runs(&pack, &["main"], "");
    let mut provider = Provider::connect(&servers, &tenant).await;
    for (setting, code) in [("allow", "not_found"), ("deny", "denied")] {
        let worker = WorkerProcess::of(&servers)
            .bindings(&tenant)
            .setting("COMPONENTS__UNDECLARED_STATE", setting)
            .setting("COMPONENTS__CACHE_DIR", "off")
            .start()
            .await;
        let log = worker.log();
        assert!(
            log.contains("component `state` of pack `memory` uses the user's state and does not declare `host.state`"),
            "{log}"
        );
        provider.send(&Message::new(setting, "hi")).await;
        provider.expect_text(&format!("refused: {code}")).await;
        assert_eq!(worker.stop().await, 0);
    }
}
