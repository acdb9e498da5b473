//! Workers with different packs bound serve the same conversations: a roll-out is under way.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::harness::{
    DEADLINE, FixturePack, Message, Provider, Servers, Tenant, WorkerBuilder, WorkerProcess,
    fresh_tenant, poll, redis_connection, scratch,
};

const MESSAGES: &str = "greentic_worker_messages_total";
const RELOADS: &str = "greentic_worker_reloads_total";

/// A pack that asks and then says its name.
fn pack(says: &str) -> FixturePack {
    let nodes = format!(
        "ask: {{emit.message: {{text: '{says} asks'}}, routing: [{{to: wait}}]}}\n\
         wait: {{session.wait: {{reason: answer}}, routing: [{{to: done}}]}}\n\
         done: {{emit.message: {{text: '{says} heard {{{{in.text}}}}'}}, routing: out}}"
    );
    FixturePack::of("talker", &[("main", &nodes)])
}

/// A replica with gtbinds, a pack store and a cache of its own.
struct Replica {
    gtbinds: TempDir,
    store: TempDir,
    cache: TempDir,
}

impl Replica {
    fn new() -> Self {
        Self {
            gtbinds: scratch(),
            store: scratch(),
            cache: scratch(),
        }
    }

    /// Binds a pack of its own store.
    fn binds(&self, tenant: &Tenant, pack: &FixturePack) {
        fs::copy(&pack.file, self.store.path().join("talker-1.0.0.gtpack")).unwrap();
        self.bind(tenant, pack, "store://talker@1.0.0");
    }

    fn bind(&self, tenant: &Tenant, pack: &FixturePack, reference: &str) {
        let (tenant, id) = (&tenant.id, &pack.id);
        let text = format!(
            "tenant: {tenant}\npack_id: {id}\npack_ref: {reference}\nflows: [{{id: main}}]\n"
        );
        let whole = self.gtbinds.path().join(".gtbind");
        fs::write(&whole, text).unwrap();
        fs::rename(whole, self.gtbinds.path().join(format!("{tenant}.gtbind"))).unwrap();
    }

    fn worker(&self, servers: &Servers) -> WorkerBuilder {
        let path = |path: &Path| path.display().to_string();
        WorkerProcess::of(servers)
            .bindings_dir(self.gtbinds.path())
            .setting("PACKS__STORE", &path(self.store.path()))
            .setting("PACKS__CACHE_DIR", &path(self.cache.path()))
    }
}

/// A tenant with conversations that were parked by a replica with the new pack, which is at work no more.
struct Parked {
    servers: Servers,
    tenant: Tenant,
    new: Replica,
    provider: Provider,
}

impl Parked {
    async fn of(conversations: usize, pack: &FixturePack) -> Self {
        let servers = Servers::shared().await;
        let (tenant, new) = (fresh_tenant(), Replica::new());
        new.binds(&tenant, pack);
        let mut provider = Provider::connect(&servers, &tenant).await;
        let worker = new.worker(&servers).start().await;
        for n in 0..conversations {
            provider.send(&Message::new(&format!("c{n}"), "hi")).await;
        }
        for _ in 0..conversations {
            provider.expect_text("two asks").await;
        }
        provider.settled().await;
        assert_eq!(worker.stop().await, 0);
        Self {
            servers,
            tenant,
            new,
            provider,
        }
    }

    /// A replica with the old pack, ready.
    async fn old(&self, settings: &[(&str, &str)]) -> (Replica, WorkerProcess) {
        let old = Replica::new();
        old.binds(&self.tenant, &pack("one"));
        let mut worker = old.worker(&self.servers);
        for (name, value) in settings {
            worker = worker.setting(name, value);
        }
        (old, worker.start().await)
    }
}

async fn retried(worker: &WorkerProcess) {
    let retried = poll(DEADLINE, async || {
        (worker.metric(MESSAGES, "retried").await > 0.0).then_some(())
    });
    assert!(retried.await.is_some(), "nothing was left to others");
}

#[tokio::test]
async fn answers_that_come_to_a_worker_without_the_pack_are_left_to_one_that_has_it() {
    let mut parked = Parked::of(20, &pack("two")).await;
    let (_old, worker) = parked.old(&[]).await;
    for n in 0..20 {
        let answer = Message::new(&format!("c{n}"), &format!("Ada {n}"));
        parked.provider.send(&answer).await;
    }
    retried(&worker).await;
    let _new = parked.new.worker(&parked.servers).start().await;
    let mut heard: Vec<String> = Vec::new();
    for reply in parked.provider.expect_replies(20).await {
        heard.push(reply.text().to_owned());
    }
    heard.sort();
    let mut expected: Vec<_> = (0..20).map(|n| format!("two heard Ada {n}")).collect();
    expected.sort();
    assert_eq!(heard, expected);
    parked.provider.settled().await;
    assert_eq!(
        parked.provider.published().await,
        (40, 0),
        "replies and dead letters"
    );
}

#[tokio::test]
async fn a_pack_is_fetched_from_where_the_session_says() {
    let servers = Servers::shared().await;
    let (tenant, new, old) = (fresh_tenant(), Replica::new(), Replica::new());
    let (one, two) = (pack("one"), pack("two"));
    new.bind(&tenant, &two, &format!("file://{}", two.file.display()));
    old.binds(&tenant, &one);
    let mut provider = Provider::connect(&servers, &tenant).await;
    let worker = new.worker(&servers).start().await;
    provider.send(&Message::new("c", "hi")).await;
    provider.expect_text("two asks").await;
    assert_eq!(worker.stop().await, 0);

    let worker = old.worker(&servers).start().await;
    provider.send(&Message::new("c", "Ada")).await;
    provider.expect_text("two heard Ada").await;
    assert!(worker.log().contains("fetched a pack"), "{}", worker.log());
    // What is new starts under what is bound.
    provider.send(&Message::new("c", "hi")).await;
    provider.expect_text("one asks").await;
    // The cache has it from now on.
    two.hide();
    assert_eq!(worker.stop().await, 0);
    let kept = old.cache.path().join(format!("{}.gtpack", two.id.stored()));
    assert!(kept.exists());
}

#[tokio::test]
async fn a_missing_pack_has_the_worker_look_at_its_gtbinds() {
    let two = pack("two");
    let mut parked = Parked::of(1, &two).await;
    let (old, worker) = parked.old(&[("RELOAD__EVERY", "1h")]).await;
    old.binds(&parked.tenant, &two);
    assert_eq!(worker.metric(RELOADS, "applied").await, 0.0);
    parked.provider.send(&Message::new("c0", "Ada")).await;
    parked.provider.expect_text("two heard Ada").await;
    worker.expect_metric(RELOADS, "applied", 1.0).await;
}

#[tokio::test]
async fn what_waits_for_its_pack_holds_no_slot_and_keeps_its_order() {
    let two = pack("two");
    let mut parked = Parked::of(3, &two).await;
    let (old, worker) = parked
        .old(&[("WORKER__SLOTS", "1"), ("RELOAD__EVERY", "50ms")])
        .await;
    for (conversation, text) in [
        ("c0", "first"),
        ("c0", "second"),
        ("c0", "third"),
        ("c1", "other"),
        ("c2", "another"),
    ] {
        parked
            .provider
            .send(&Message::new(conversation, text))
            .await;
    }
    retried(&worker).await;
    let began = Instant::now();
    parked.provider.send(&Message::new("new", "hi")).await;
    parked.provider.expect_text("one asks").await;
    parked.provider.send(&Message::new("new", "Eve")).await;
    parked.provider.expect_text("one heard Eve").await;
    assert!(began.elapsed() < Duration::from_secs(5), "it had to wait");
    parked.provider.expect_unsettled(5).await;

    // An operator puts the archive where the worker looks.
    let kept = old.cache.path().join(format!("{}.gtpack", two.id.stored()));
    fs::copy(&two.file, kept).unwrap();
    let mut said: Vec<String> = Vec::new();
    for reply in parked.provider.expect_replies(5).await {
        said.push(reply.text().to_owned());
    }
    let place = |text: &str| said.iter().position(|said| said == text);
    // The first answers, the second begins anew, the third answers that.
    let order = ["two heard first", "one asks", "one heard third"].map(place);
    assert!(
        order.iter().all(Option::is_some) && order.is_sorted(),
        "{said:?}"
    );
    for heard in ["two heard other", "two heard another"] {
        assert!(place(heard).is_some(), "{said:?}");
    }
}

#[tokio::test]
async fn what_stays_without_its_pack_is_dead_after_its_time_and_takes_no_attempt() {
    let mut parked = Parked::of(1, &pack("two")).await;
    // Fewer attempts than there are pauses.
    let (_old, _worker) = parked
        .old(&[("PACKS__GONE_AFTER", "2s"), ("WORKER__ATTEMPTS", "1")])
        .await;
    // Sent again, it has all of its time again.
    for _ in 0..2 {
        let began = Instant::now();
        parked
            .provider
            .send(&Message::new("c0", "Ada").id("m"))
            .await;
        let dead = parked.provider.expect_dead().await;
        assert_eq!(dead.code(), "wait_pack_gone");
        let took = began.elapsed();
        assert!(took >= Duration::from_secs(2), "dead after {took:?}");
        parked.provider.settled().await;
    }
}

#[tokio::test]
async fn an_operator_frees_a_conversation_by_removing_its_session() {
    let mut parked = Parked::of(1, &pack("two")).await;
    let (_old, worker) = parked.old(&[]).await;
    parked.provider.send(&Message::new("c0", "Ada")).await;
    retried(&worker).await;
    let session = session_of(&parked).await;
    let mut redis = redis_connection(&parked.servers.redis_url).await;
    let removed: u32 = redis::cmd("DEL")
        .arg(&session)
        .query_async(&mut redis)
        .await
        .unwrap();
    assert_eq!(removed, 1, "{session}");
    // Its message starts what is bound now.
    parked.provider.expect_text("one asks").await;
}

/// The key of the tenant's one session.
async fn session_of(parked: &Parked) -> String {
    let mut redis = redis_connection(&parked.servers.redis_url).await;
    let pattern = format!("*{{{}*}}:session:*", parked.tenant.id);
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg(&pattern)
        .query_async(&mut redis)
        .await
        .unwrap();
    let [key] = &keys[..] else {
        panic!("{pattern} is {keys:?}")
    };
    key.clone()
}
