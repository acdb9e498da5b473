//! Backends that hang, and turns that take long because of them: whose trouble that is, and what is left of a turn that is cut off.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

use crate::components::component;
use crate::harness::{
    DEADLINE, FixturePack, Message, Provider, Servers, Tenant, WorkerBuilder, WorkerProcess,
    fresh_tenant,
};

/// What a backend does with a request.
#[derive(Clone, Copy)]
enum Reaction {
    /// It answers when told to.
    Hangs,
    /// It answers.
    Answers,
}

/// A server that reacts to each request by its number, from 0.
struct Backend {
    url: String,
    requests: watch::Receiver<usize>,
    answer: Arc<Notify>,
}

impl Backend {
    async fn start(reaction: fn(usize) -> Reaction) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let answer = Arc::new(Notify::new());
        let (counted, requests) = watch::channel(0);
        let told = Arc::clone(&answer);
        let number = AtomicUsize::new(0);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = number.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(react(stream, reaction(number), Arc::clone(&told)));
                counted.send_replace(number + 1);
            }
        });
        Self {
            url,
            requests,
            answer,
        }
    }

    /// Waits for so many requests.
    async fn asked(&mut self, times: usize) {
        let enough = self.requests.wait_for(|requests| *requests >= times);
        let enough = tokio::time::timeout(DEADLINE, enough).await;
        enough.expect("the backend is asked").unwrap();
    }

    fn requests(&self) -> usize {
        *self.requests.borrow()
    }
}

async fn react(mut stream: TcpStream, reaction: Reaction, told: Arc<Notify>) {
    let mut request = vec![0; 4096];
    let _read = stream.read(&mut request).await;
    match reaction {
        Reaction::Hangs => told.notified().await,
        Reaction::Answers => {}
    }
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    let _written = stream.write_all(answer.as_bytes()).await;
}

/// A tenant whose flow asks the backend that the message names.
fn asking() -> Tenant {
    let flow = r#"
ask:
  component.exec: {component: http, operation: get, input: "{{in.text}}"}
  routing: [{to: got}]
got: {emit.message: {text: got}, routing: out}
"#;
    let code = component("http");
    let needs = "{host: {http: {client: true, server: false}}}";
    let pack = FixturePack::with_component("asking", &[("main", flow)], ("http", &code, needs));
    fresh_tenant().runs(&pack, &["main"], "")
}

/// A worker that waits for backends for longer than any test does.
fn patient(servers: &Servers) -> WorkerBuilder {
    WorkerProcess::of(servers)
        .setting("COMPONENTS__HTTP__ALLOW", r#"["127.0.0.1"]"#)
        .setting("COMPONENTS__HTTP__TIMEOUT", "5m")
        .setting("COMPONENTS__CALL_TIMEOUT", "5m")
        .setting("COMPONENTS__CACHE_DIR", "off")
        .setting("WORKER__TURN_TIMEOUT", "5m")
        .setting("WORKER__RETRY__INITIAL", "20ms")
}

#[tokio::test]
async fn messages_that_failed_often_hold_up_no_other_tenants() {
    let servers = Servers::shared().await;
    let (loud, quiet) = (asking(), asking());
    let worker = patient(&servers)
        .setting("WORKER__TURN_TIMEOUT", "2s")
        .setting("WORKER__ATTEMPTS", "20");
    let _worker = worker.bindings(&loud).bindings(&quiet).start().await;
    let mut hanging = Backend::start(|_| Reaction::Hangs).await;
    let third_answers = |number| match number {
        0 | 1 => Reaction::Hangs,
        _ => Reaction::Answers,
    };
    let [of_loud, of_quiet] = [(); 2].map(|()| Backend::start(third_answers));
    let (of_loud, of_quiet) = tokio::join!(of_loud, of_quiet);
    let mut attacker = Provider::connect(&servers, &loud).await;
    let mut provider = Provider::connect(&servers, &quiet).await;

    // One after the other they would take longer than anybody waits here.
    let messages = (0..20).map(|n| Message::new(&format!("c{n}"), &hanging.url));
    attacker.flood(messages).await;
    hanging.asked(20).await;
    provider.send(&Message::new("c", &of_quiet.url)).await;
    attacker.send(&Message::new("d", &of_loud.url)).await;
    provider.expect_text("got").await;
    attacker.expect_text("got").await;
    hanging.asked(60).await;
}

#[tokio::test]
async fn a_turn_that_a_drain_cuts_off_is_taken_up_at_once() {
    let servers = Servers::shared().await;
    let tenant = asking();
    let worker = || {
        patient(&servers)
            .bindings(&tenant)
            .setting("WORKER__DRAIN_TIMEOUT", "100ms")
            .setting("WORKER__LEASE_TTL", "10m")
    };
    let first_hangs = |number| match number {
        0 => Reaction::Hangs,
        _ => Reaction::Answers,
    };
    let mut backend = Backend::start(first_hangs).await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    let stopping = worker().start().await;
    provider.send(&Message::new("c", &backend.url)).await;
    backend.asked(1).await;
    assert_eq!(stopping.stop().await, 0);
    let _next = worker().start().await;
    provider.expect_text("got").await;
    assert_eq!(backend.requests(), 2);
}

#[tokio::test]
async fn a_turn_that_takes_longer_than_its_lease_is_run_once() {
    let servers = Servers::shared().await;
    let tenant = asking();
    let worker = || {
        let worker = patient(&servers).bindings(&tenant);
        worker
            .setting("WORKER__LEASE_TTL", "900ms")
            .setting("REDIS__RESPONSE_TIMEOUT", "500ms")
            .setting("WORKER__ATTEMPTS", "1")
            .setting("NATS__ACK_WAIT", "3s")
    };
    let (one, other) = tokio::join!(worker().start(), worker().start());
    let hangs = |number| match number {
        0 => Reaction::Hangs,
        _ => Reaction::Answers,
    };
    let mut backend = Backend::start(hangs).await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    provider.send(&Message::new("c", &backend.url)).await;
    backend.asked(1).await;
    // A second message of the conversation meets the lease, which is long over unless it is prolonged.
    provider.send(&Message::new("c", &backend.url)).await;
    provider.expect_silence(Duration::from_secs(5)).await;
    assert_eq!(backend.requests(), 1);
    backend.answer.notify_one();
    provider.expect_text("got").await;
    provider.expect_text("got").await;
    provider.settled().await;
    assert_eq!(backend.requests(), 2);
    let name = "greentic_worker_redeliveries_total";
    for worker in [one, other] {
        let redelivered = worker.metric(name, &tenant.id).await;
        assert_eq!(redelivered, 0.0, "the server took a worker for dead");
    }
}
