//! Workers that are held up between COMMIT and publish for longer than the stream recognises a copy of a reply: no reply is doubled,
//! and none is lost.

use std::time::Duration;

use tokio::time::sleep;

use crate::harness::{
    DEADLINE, FixturePack, Message, NatsServer, Provider, RedisServer, Servers, Tenant,
    WorkerBuilder, WorkerProcess, fresh_tenant, poll,
};
use crate::proxy::{Mode, Proxy};

/// The stream's duplicate window. What it forgets is the matter of these tests, so they wait for it to pass.
const WINDOW: Duration = Duration::from_secs(2);

const REPLIES: [&str; 3] = ["one", "two", "three"];

struct Site {
    nats: NatsServer,
    redis: RedisServer,
    proxy: Proxy,
    tenant: Tenant,
}

impl Site {
    async fn start() -> Self {
        let (nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
        let proxy = Proxy::to(nats.port()).await.unwrap();
        let flow = r#"
one: {emit.message: {text: one}, routing: [{to: two}]}
two: {emit.message: {text: two}, routing: [{to: three}]}
three: {emit.message: {text: three}, routing: out}
"#;
        let pack = FixturePack::of("three", &[("main", flow)]);
        let tenant = fresh_tenant().runs(&pack, &["main"], "");
        Self {
            nats,
            redis,
            proxy,
            tenant,
        }
    }

    fn servers(&self) -> Servers {
        Servers::own(&self.nats, &self.redis)
    }

    fn worker(&self, servers: &Servers) -> WorkerBuilder {
        WorkerProcess::of(servers)
            .bindings(&self.tenant)
            .setting("NATS__DUPLICATE_WINDOW", "2s")
            .setting("NATS__ACK_WAIT", "1s")
            .setting("WORKER__TURN_TIMEOUT", "1s")
            .setting("COMPONENTS__CALL_TIMEOUT", "1s")
            .setting("COMPONENTS__HTTP__TIMEOUT", "1s")
    }

    /// A worker behind the proxy that stands still at this point of the message `m`, once it does.
    async fn standing_still(&self, point: &str, provider: &Provider) -> WorkerProcess {
        let servers = Servers {
            nats_url: format!("nats://{}", self.proxy.address()),
            ..self.servers()
        };
        let stop = format!("--kill-at={point}:stop:key=m");
        let worker = self.worker(&servers).arg(&stop).start().await;
        provider.send(&Message::new("c", "go").id("m")).await;
        let is_still = poll(DEADLINE, async || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", worker.pid())).ok()?;
            let (_, state) = stat.rsplit_once(") ")?;
            state.starts_with('T').then_some(())
        });
        assert!(is_still.await.is_some(), "it does not come to {point}");
        worker
    }

    async fn provider(&self) -> Provider {
        Provider::connect(&self.servers(), &self.tenant).await
    }

    /// All replies, each once and in order, and nothing else once these workers are done.
    async fn check(&self, provider: &mut Provider, workers: &[&WorkerProcess]) {
        provider.settled().await;
        for worker in workers {
            assert_eq!(worker.stop().await, 0, "{}", worker.log());
        }
        let (replies, dead) = provider.published().await;
        let mut texts = Vec::new();
        for reply in provider.expect_replies(replies).await {
            texts.push(reply.text().to_owned());
        }
        assert_eq!((texts, dead), (REPLIES.map(str::to_owned).to_vec(), 0));
    }
}

#[tokio::test]
async fn a_worker_that_stood_still_while_another_one_published_and_noted() {
    let site = Site::start().await;
    let mut provider = site.provider().await;
    let first = site.standing_still("before-publish", &provider).await;
    let second = site.worker(&site.servers()).start().await;
    provider.settled().await;
    sleep(WINDOW).await;
    first.resume();
    site.check(&mut provider, &[&first, &second]).await;
}

#[tokio::test]
async fn a_worker_that_stood_still_while_another_one_published_and_died_before_its_note() {
    let site = Site::start().await;
    let mut provider = site.provider().await;
    let first = site.standing_still("before-publish", &provider).await;
    let second = site.worker(&site.servers());
    let second = second.arg("--kill-at=before-published-note:key=m");
    let second = second.without_waiting().start().await;
    second.exited(DEADLINE).await;
    assert_eq!(provider.published().await, (3, 0));
    sleep(WINDOW).await;
    first.resume();
    site.check(&mut provider, &[&first]).await;
}

#[tokio::test]
async fn a_worker_that_stood_still_between_two_replies() {
    let site = Site::start().await;
    let mut provider = site.provider().await;
    let worker = site.standing_still("before-publish:2", &provider).await;
    sleep(WINDOW).await;
    worker.resume();
    site.check(&mut provider, &[&worker]).await;
}

#[tokio::test]
async fn a_worker_that_was_cut_off_from_nats_while_another_one_published() {
    let site = Site::start().await;
    let mut provider = site.provider().await;
    let first = site.standing_still("before-publish", &provider).await;
    site.proxy.set(Mode::Refuse);
    first.resume();
    let second = site.worker(&site.servers()).start().await;
    provider.settled().await;
    sleep(WINDOW).await;
    site.proxy.set(Mode::Pass);
    let back = poll(DEADLINE, async || {
        (first.status("/readyz").await == 200).then_some(())
    });
    assert!(back.await.is_some(), "{}", first.log());
    site.check(&mut provider, &[&first, &second]).await;
}

#[tokio::test]
async fn an_outage_of_nats_after_an_acknowledgement_was_lost() {
    let mut site = Site::start().await;
    let provider = site.provider().await;
    let worker = site.standing_still("before-publish", &provider).await;
    site.proxy.set(Mode::SwallowAnswers);
    worker.resume();
    let stored = poll(DEADLINE, async || {
        (provider.published().await == (1, 0)).then_some(())
    });
    assert!(stored.await.is_some(), "{}", worker.log());
    site.nats.kill().await;
    sleep(WINDOW).await;
    site.nats.start_again().await;
    site.proxy.set(Mode::Pass);
    let mut provider = site.provider().await.patient(DEADLINE);
    site.check(&mut provider, &[&worker]).await;
}

/// The message waits for longer than the window before its worker dies: the next one cannot tell how old its replies are.
#[tokio::test]
async fn a_message_that_waited_for_long_before_its_worker_died() {
    let site = Site::start().await;
    let mut provider = site.provider().await;
    let before = site.worker(&site.servers()).start().await;
    before.stop().await;
    provider.send(&Message::new("c", "go").id("m")).await;
    sleep(WINDOW).await;
    for point in ["after-publish:2", "before-published-note"] {
        let kill_at = format!("--kill-at={point}:key=m");
        let dies = site.worker(&site.servers()).arg(&kill_at);
        let dies = dies.without_waiting().start().await;
        dies.exited(DEADLINE).await;
        sleep(WINDOW).await;
    }
    assert_eq!(provider.published().await, (3, 0));
    let last = site.worker(&site.servers()).start().await;
    site.check(&mut provider, &[&last]).await;
}
