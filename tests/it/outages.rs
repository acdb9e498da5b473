//! Servers that go away and come back while conversations run: nothing is lost, doubled or given up, and the worker says
//! how it is.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::harness::{
    DEADLINE, Message, NatsServer, Provider, RedisServer, Reply, Servers, Tenant, WorkerBuilder,
    WorkerProcess, fresh_tenant, poll,
};

const SLOTS: u32 = 8;
/// Conversations at once.
const USERS: usize = 12;

/// What happens to a server.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outage {
    Stopped,
    Killed,
    Paused,
}

/// Which server it happens to.
#[derive(Clone, Copy, Debug)]
enum Server {
    Nats,
    Redis,
}

struct Site {
    nats: NatsServer,
    redis: RedisServer,
}

impl Site {
    async fn start() -> Self {
        let (nats, redis) = tokio::join!(
            NatsServer::start_own(),
            RedisServer::start_own_with(&["--appendfsync", "always"])
        );
        Self { nats, redis }
    }

    async fn begin(&mut self, server: Server, outage: Outage) {
        match (server, outage) {
            (Server::Nats, Outage::Stopped) => self.nats.stop().await,
            (Server::Nats, Outage::Killed) => self.nats.kill().await,
            (Server::Nats, Outage::Paused) => self.nats.pause(),
            (Server::Redis, Outage::Stopped) => self.redis.stop().await,
            (Server::Redis, Outage::Killed) => self.redis.kill().await,
            (Server::Redis, Outage::Paused) => self.redis.pause(),
        }
    }

    async fn end(&mut self, server: Server, outage: Outage) {
        match (server, outage) {
            (Server::Nats, Outage::Paused) => self.nats.resume(),
            (Server::Nats, Outage::Stopped | Outage::Killed) => self.nats.start_again().await,
            (Server::Redis, Outage::Paused) => self.redis.resume(),
            (Server::Redis, Outage::Stopped | Outage::Killed) => self.redis.start_again().await,
        }
    }
}

fn worker(servers: &Servers, tenant: &Tenant) -> WorkerBuilder {
    WorkerProcess::of(servers)
        .bindings(tenant)
        .setting("WORKER__SLOTS", &SLOTS.to_string())
        // One attempt more than none: whatever an outage takes away is seen.
        .setting("WORKER__ATTEMPTS", "2")
        .setting("NATS__ACK_WAIT", "3s")
        .setting("NATS__PING_INTERVAL", "500ms")
        .setting("NATS__REQUEST_TIMEOUT", "2s")
        .setting("REDIS__RESPONSE_TIMEOUT", "500ms")
        .setting("HTTP__STALLED_AFTER", &format!("{}s", STALLED.as_secs()))
}

/// Long enough for messages to be delivered again that should have been settled.
const SHORT: Duration = Duration::from_secs(4);
/// After so long without the end of a pull a worker is taken for stalled; three times as long as one that waits for its
/// servers lets pass.
const STALLED: Duration = Duration::from_secs(15);
/// Long enough for that.
const LONG: Duration = Duration::from_secs(16);

#[tokio::test]
async fn redis_is_stopped_and_killed() {
    check(Server::Redis, &[Outage::Stopped, Outage::Killed], SHORT).await;
}

#[tokio::test]
async fn redis_is_paused() {
    check(Server::Redis, &[Outage::Paused], SHORT).await;
}

#[tokio::test]
async fn nats_is_stopped() {
    check(Server::Nats, &[Outage::Stopped], LONG).await;
}

#[tokio::test]
async fn nats_is_killed() {
    check(Server::Nats, &[Outage::Killed], SHORT).await;
}

#[tokio::test]
async fn nats_is_paused() {
    check(Server::Nats, &[Outage::Paused], LONG).await;
}

/// A worker whose servers are away does nothing but look for them: an outage is no reason to burn the cores of a cluster.
/// What it uses is read from /proc, so other systems do not have this test.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn an_outage_is_waited_for_idly() {
    for away in [
        &[Server::Nats][..],
        &[Server::Redis],
        &[Server::Nats, Server::Redis],
    ] {
        let mut site = Site::start().await;
        let servers = Servers::own(&site.nats, &site.redis);
        let tenant = fresh_tenant().binds("hello-pack", &["main"]);
        let worker = worker(&servers, &tenant).start().await;
        for server in away {
            site.begin(*server, Outage::Killed).await;
        }
        becomes(&worker, 503).await;
        let used = || crate::harness::cpu_seconds(worker.pid()).unwrap();
        let (before, since) = (used(), Instant::now());
        // What is watched: longer than any pause between two pulls that fail.
        tokio::time::sleep(SHORT).await;
        let used = used() - before;
        let share = used / since.elapsed().as_secs_f64();
        assert!(share < 0.2, "{share:.2} of a core, without {away:?}");
    }
}

/// Conversations run while a server goes away for so long and comes back, once for each outage.
async fn check(server: Server, outages: &[Outage], length: Duration) {
    let mut site = Site::start().await;
    let servers = Servers::own(&site.nats, &site.redis);
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let workers = [
        worker(&servers, &tenant).start().await,
        worker(&servers, &tenant).start().await,
    ];
    let provider = Provider::connect(&servers, &tenant)
        .await
        .patient(length + DEADLINE);
    let mut reader = Provider::connect(&servers, &tenant).await;
    let heard = RefCell::new(Vec::new());
    let over = Cell::new(false);
    let sent = async {
        let talking = (0..USERS).map(|user| talk(&provider, &heard, user, &over));
        join_all(talking).await
    };
    let disturbed = async {
        for (n, outage) in outages.iter().enumerate() {
            let talking = 3 * USERS * (n + 1);
            let talked = poll(DEADLINE, async || {
                (heard.borrow().len() >= talking).then_some(())
            });
            assert!(talked.await.is_some(), "the conversations stand still");
            site.begin(server, *outage).await;
            for worker in &workers {
                becomes(worker, 503).await;
            }
            let until = Instant::now() + length;
            while Instant::now() < until {
                for worker in &workers {
                    bounded(worker).await;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            site.end(server, *outage).await;
            for worker in &workers {
                becomes(worker, 200).await;
            }
        }
        over.set(true);
    };
    let reading = async {
        loop {
            if let Some(reply) = reader.reply_within(DEADLINE).await {
                heard.borrow_mut().push(reply);
            }
        }
    };
    let sent = tokio::select! {
        (sent, ()) = async { tokio::join!(sent, disturbed) } => sent,
        () = reading => unreachable!("it reads for ever"),
    };

    let has_killed_nats = matches!(server, Server::Nats) && outages.contains(&Outage::Killed);
    if has_killed_nats {
        provider.acked().await;
    } else {
        provider.settled().await;
    }
    let total: usize = sent.iter().sum();
    assert_eq!(provider.published().await, (total, 0));
    let mut fresh = Provider::connect(&servers, &tenant).await;
    let replies = fresh.expect_replies(total).await;
    for (user, said) in sent.into_iter().enumerate() {
        told_right(user, said, &replies);
    }
}

/// One user's conversation, each message after the reply to the one before, until the outages are over and an even
/// number is said. How many were said.
async fn talk(
    provider: &Provider,
    heard: &RefCell<Vec<Reply>>,
    user: usize,
    over: &Cell<bool>,
) -> usize {
    let (name, mut said) = (format!("user{user}"), 0);
    while !over.get() || said % 2 == 1 {
        let text = if said % 2 == 0 { "hi" } else { "Ada" };
        let id = format!("{name}-{said}");
        let message = Message::new("c1", text).from(&name).id(&id);
        provider.send(&message).await;
        let answered = poll(LONG + DEADLINE * 2, async || {
            let heard = heard.borrow();
            let mut answers = heard
                .iter()
                .filter(|reply| reply.in_reply_to() == Some(&id));
            answers.next().map(|_| ())
        });
        assert!(answered.await.is_some(), "{id} is not answered");
        said += 1;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(20..300))).await;
    }
    said
}

/// Each message got its reply, in order, and each visit was counted once.
fn told_right(user: usize, said: usize, replies: &[Reply]) {
    let prefix = format!("user{user}-");
    let own = replies.iter().filter(|reply| {
        let to = reply.in_reply_to().unwrap_or_default();
        to.starts_with(&prefix)
    });
    let own: Vec<_> = own.collect();
    assert_eq!(own.len(), said);
    for (n, reply) in own.iter().enumerate() {
        assert_eq!(reply.in_reply_to(), Some(format!("{prefix}{n}").as_str()));
        let expected = match n {
            n if n % 2 == 0 => "Hello! What is your name?".to_owned(),
            1 => "Nice to meet you, Ada! This is your first visit.".to_owned(),
            n => format!("Welcome back, Ada! This is visit number {}.", n.div_ceil(2)),
        };
        assert_eq!(reply.text(), expected, "{prefix}{n}");
    }
}

async fn becomes(worker: &WorkerProcess, status: u16) {
    let became = poll(DEADLINE, async || {
        bounded(worker).await;
        (worker.status("/readyz").await == status).then_some(())
    });
    assert!(became.await.is_some(), "/readyz does not become {status}");
}

/// The worker is alive, and has no more in its hands than its slots allow.
async fn bounded(worker: &WorkerProcess) {
    assert_eq!(worker.status("/livez").await, 200);
    let in_flight = worker.metric("greentic_worker_turns_in_flight", "").await;
    assert!(in_flight <= f64::from(SLOTS + 1), "{in_flight}");
}
