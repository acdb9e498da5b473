//! A replay of a dead letter has all the attempts that a message has.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use greentic_worker::model::header;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::components::component;
use crate::dead_letters::well;
use crate::harness::{FixturePack, Message, Provider, Servers, WorkerProcess, fresh_tenant};

const MANY: usize = 10;

/// Calls its backend, and fails for good where that is down.
const FLOW: &str = r#"
ask: {component.exec: {component: http, operation: get, input: "{{in.text}}"}, routing: [{condition: node.ask.state == down, to: round}, {to: say}]}
round: {var.set: {name: n, value: 1}, routing: [{to: round}]}
say: {emit.message: {text: "it is {{node.ask.state}}"}, routing: out}
"#;

/// A backend that counts its calls.
#[derive(Clone, Default)]
struct Backend {
    calls: Arc<AtomicUsize>,
    up: Arc<AtomicBool>,
}

impl Backend {
    /// Listens; its URL.
    async fn listen(&self) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let backend = self.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = vec![0; 4096];
                let _read = stream.read(&mut request).await;
                backend.calls.fetch_add(1, Ordering::SeqCst);
                let state = if backend.up.load(Ordering::SeqCst) {
                    "up"
                } else {
                    "down"
                };
                let body = format!(r#"{{"state":"{state}"}}"#);
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _written = stream.write_all(answer.as_bytes()).await;
            }
        });
        url
    }

    #[track_caller]
    fn check_calls(&self, expected: usize) {
        assert_eq!(self.calls.load(Ordering::SeqCst), expected);
    }
}

#[tokio::test]
async fn a_replay_of_a_flow_that_calls_a_backend_has_all_its_attempts() {
    let servers = Servers::shared().await;
    let code = component("http");
    let needs = "{host: {http: {client: true, server: false}}}";
    let pack = FixturePack::with_component("calls", &[("main", FLOW)], ("http", &code, needs));
    let tenant = fresh_tenant().runs(&pack, &["main"], "");
    let worker = WorkerProcess::of(&servers)
        .bindings(&tenant)
        .setting("WORKER__ATTEMPTS", "2")
        .setting("WORKER__RETRY__INITIAL", "20ms")
        .setting("LIMITS__NODES_PER_TURN", "50")
        .setting("COMPONENTS__HTTP__ALLOW", r#"["127.0.0.1"]"#)
        .setting("COMPONENTS__CACHE_DIR", "off")
        .start()
        .await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    let backend = Backend::default();
    let url = backend.listen().await;
    for n in 0..MANY {
        let user = format!("user{n}");
        let message = Message::new(&format!("c{n}"), &url).from(&user);
        provider.send(&message.id(&format!("m{n}"))).await;
    }
    let replay = ["replay", "--tenant", &tenant.id, "--all"];
    // The cause is not mended yet when they are replayed for the first time.
    for round in 1..=2 {
        for _ in 0..MANY {
            let dead = provider.expect_dead().await;
            assert_eq!(dead.code(), "node_limit", "{}", dead.reason());
            assert_eq!(dead.header(header::ATTEMPTS), Some("2"));
        }
        provider.settled().await;
        backend.check_calls(2 * MANY * round);
        if round == 2 {
            backend.up.store(true, Ordering::SeqCst);
        }
        well(&servers.nats_url, &replay).await;
    }
    for reply in provider.expect_replies(MANY).await {
        assert_eq!(reply.text(), "it is up");
    }
    provider.settled().await;
    backend.check_calls(5 * MANY);
    assert_eq!(provider.published().await, (MANY, 0));
    worker
        .expect_metric(
            "greentic_worker_dead_letters_total",
            &tenant.id,
            (2 * MANY) as f64,
        )
        .await;
}
