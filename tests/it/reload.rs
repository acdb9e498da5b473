//! Bindings that change while workers run.

use std::fs;
use std::path::Path;
use std::time::Duration;

use futures_util::StreamExt;

use crate::harness::{
    DEADLINE, FixturePack, Message, NatsServer, Provider, RedisServer, Servers, Tenant,
    WorkerBuilder, WorkerProcess, fresh_tenant, poll,
};

const RELOADS: &str = "greentic_worker_reloads_total";

/// A pack that asks and then says its name; its versions differ in what they say.
fn pack(says: &str) -> FixturePack {
    let nodes = format!(
        "ask: {{emit.message: {{text: '{says} asks'}}, routing: [{{to: wait}}]}}\n\
         wait: {{session.wait: {{reason: answer}}, routing: [{{to: done}}]}}\n\
         done: {{emit.message: {{text: '{says} heard {{{{in.text}}}}'}}, routing: out}}"
    );
    FixturePack::of("talker", &[("main", &nodes)])
}

fn worker(servers: &Servers, cache: &Path) -> WorkerBuilder {
    WorkerProcess::of(servers)
        .setting("RELOAD__EVERY", "50ms")
        .setting("PACKS__CACHE_DIR", &cache.display().to_string())
}

/// Binds a pack to a tenant in a folder of several tenants.
fn bind(folder: &Path, tenant: &Tenant, pack: &FixturePack) {
    let (tenant, id, file) = (&tenant.id, &pack.id, pack.file.display());
    let text = format!(
        "tenant: {tenant}\npack_id: {id}\npack_ref: file://{file}\nflows: [{{id: main}}]\n"
    );
    fs::write(folder.join(format!("{tenant}.gtbind")), text).unwrap();
}

fn unbind(folder: &Path, tenant: &Tenant) {
    fs::remove_file(folder.join(format!("{}.gtbind", tenant.id))).unwrap();
}

async fn reloads(worker: &WorkerProcess, outcome: &str) -> f64 {
    worker.metric(RELOADS, outcome).await
}

async fn has_reloaded(worker: &WorkerProcess, outcome: &str, before: f64) {
    let reached = poll(DEADLINE, async || {
        (reloads(worker, outcome).await > before).then_some(())
    });
    assert!(reached.await.is_some(), "no reload is {outcome}");
}

/// Binds this pack in place of what was bound, while no worker looks.
fn rebind(tenant: Tenant, pack: &FixturePack) -> Tenant {
    tenant.unbind();
    tenant.runs(pack, &["main"], "")
}

#[tokio::test]
async fn a_parked_conversation_goes_on_under_its_pack_after_a_rebind_and_a_restart() {
    let servers = Servers::shared().await;
    let (cache, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let tenant = fresh_tenant();
    let (one, two) = (pack("one"), pack("two"));
    bind(folder.path(), &tenant, &one);
    let start = async || {
        let worker = worker(&servers, cache.path()).bindings_dir(folder.path());
        worker.start().await
    };
    let workers = [start().await, start().await];
    let mut provider = Provider::connect(&servers, &tenant).await;
    for conversation in ["c1", "c2"] {
        provider.send(&Message::new(conversation, "hi")).await;
        provider.expect_text("one asks").await;
    }
    let before = [
        reloads(&workers[0], "applied").await,
        reloads(&workers[1], "applied").await,
    ];
    // In place, so that no moment is without a gtbind.
    bind(folder.path(), &tenant, &two);
    for (worker, before) in workers.iter().zip(before) {
        has_reloaded(worker, "applied", before).await;
        assert_eq!(worker.status("/readyz").await, 200);
    }

    // What was parked goes on as it began; what begins now is new.
    provider.send(&Message::new("c1", "Ada")).await;
    provider.expect_text("one heard Ada").await;
    provider.send(&Message::new("c1", "hi")).await;
    provider.expect_text("two asks").await;

    // And so it is for workers that have never had the old pack bound.
    for worker in &workers {
        worker.kill().await;
    }
    let restarted = [start().await, start().await];
    provider.send(&Message::new("c2", "Grace")).await;
    provider.expect_text("one heard Grace").await;
    provider.send(&Message::new("c1", "Ada")).await;
    provider.expect_text("two heard Ada").await;
    let told = restarted
        .iter()
        .filter(|worker| worker.log().contains("not bound any more"));
    assert_eq!(
        told.count(),
        1,
        "the old pack was loaded where it was needed"
    );
}

#[tokio::test]
async fn a_wait_whose_pack_is_nowhere_is_put_aside_and_left_as_it_is() {
    let servers = Servers::shared().await;
    let (cache, empty) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = pack("one");
    let tenant = fresh_tenant().runs(&one, &["main"], "");
    let first = worker(&servers, cache.path())
        .bindings(&tenant)
        .start()
        .await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    provider.send(&Message::new("c1", "hi")).await;
    provider.expect_text("one asks").await;
    assert_eq!(first.stop().await, 0);

    one.hide();
    let tenant = rebind(tenant, &pack("two"));
    let second = worker(&servers, empty.path())
        .setting("PACKS__GONE_AFTER", "1s")
        .bindings(&tenant)
        .start()
        .await;
    provider.send(&Message::new("c1", "Ada").id("lost")).await;
    let dead = provider.expect_dead().await;
    assert_eq!(dead.code(), "wait_pack_gone");
    assert!(
        dead.reason().contains(&one.id.to_string()),
        "{}",
        dead.reason()
    );

    // Put into the cache of the running worker, the pack is found, and the wait is still there.
    let name = format!("{}.gtpack", one.id.stored());
    fs::copy(one.hidden(), empty.path().join(name)).unwrap();
    provider.send(&Message::new("c1", "Ada").id("again")).await;
    provider.expect_text("one heard Ada").await;
    assert_eq!(second.stop().await, 0);
}

#[tokio::test]
async fn what_is_broken_changes_nothing_for_its_tenant_and_what_is_mended_takes_effect() {
    let servers = Servers::shared().await;
    let cache = tempfile::tempdir().unwrap();
    let tenant = fresh_tenant().runs(&pack("one"), &["main"], "");
    let worker = worker(&servers, cache.path())
        .bindings(&tenant)
        .start()
        .await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    let whole = fs::read_dir(tenant.dir()).unwrap().next().unwrap().unwrap();
    let whole = fs::read_to_string(whole.path()).unwrap();

    // Half of a file, as a poll may find it.
    let tenant = tenant.file("late.gtbind", &whole[..whole.len() / 2]);
    has_reloaded(&worker, "partial", 0.0).await;
    assert_eq!(worker.status("/readyz").await, 200);
    let log = worker.log();
    assert!(
        log.contains("late.gtbind") && log.contains("goes on with what it had"),
        "{log}"
    );
    provider.send(&Message::new("c1", "hi")).await;
    provider.expect_text("one asks").await;

    let before = reloads(&worker, "applied").await;
    let _tenant = tenant.file("late.gtbind", &whole);
    has_reloaded(&worker, "applied", before).await;
}

#[tokio::test]
async fn sighup_loads_where_nothing_looks_for_changes() {
    let servers = Servers::shared().await;
    let cache = tempfile::tempdir().unwrap();
    let tenant = fresh_tenant().runs(&pack("one"), &["main"], "");
    let worker = worker(&servers, cache.path())
        .setting("RELOAD__EVERY", "0s")
        .bindings(&tenant)
        .start()
        .await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    let tenant = rebind(tenant, &pack("two"));
    provider.send(&Message::new("c1", "hi")).await;
    provider.expect_text("one asks").await;
    worker.signal("HUP");
    has_reloaded(&worker, "applied", 0.0).await;
    provider.send(&Message::new("c2", "hi")).await;
    provider.expect_text("two asks").await;
    drop(tenant);
}

#[tokio::test]
async fn a_new_tenant_is_served_and_a_gone_ones_messages_wait_for_another_worker() {
    let servers = Servers::shared().await;
    let cache = tempfile::tempdir().unwrap();
    let (first, second) = (fresh_tenant(), fresh_tenant());
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (pack("one"), pack("two"));
    bind(folder.path(), &first, &one);
    let worker = worker(&servers, cache.path())
        .bindings_dir(folder.path())
        .start()
        .await;
    let mut provider = Provider::connect(&servers, &second).await;
    provider.send(&Message::new("c1", "hi")).await;
    bind(folder.path(), &second, &two);
    provider.expect_text("two asks").await;

    let before = reloads(&worker, "applied").await;
    unbind(folder.path(), &second);
    has_reloaded(&worker, "applied", before).await;
    let ages = poll(DEADLINE, async || {
        let (_, metrics) = worker.get("/metrics").await?;
        let mut ages = metrics
            .lines()
            .filter(|line| line.contains("last_pull_age"));
        (!ages.any(|line| line.contains(&second.id))).then_some(())
    });
    assert!(
        ages.await.is_some(),
        "the age of its last pull goes on growing"
    );
    provider.send(&Message::new("c1", "Ada")).await;
    let mut others = Provider::connect(&servers, &first).await;
    others.send(&Message::new("c1", "hi")).await;
    others.expect_text("one asks").await;
    assert_eq!(
        provider.unsettled().await,
        1,
        "the message is gone from the stream"
    );
    bind(folder.path(), &second, &two);
    provider.expect_text("two heard Ada").await;
}

#[tokio::test]
async fn without_jetstream_a_gone_tenants_messages_go_to_the_workers_that_have_it() {
    let (nats, redis) = tokio::join!(
        NatsServer::start_without_jetstream(),
        RedisServer::start_own()
    );
    let servers = Servers::own(&nats, &redis);
    let cache = tempfile::tempdir().unwrap();
    let (leaving, staying) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (fresh_tenant(), fresh_tenant());
    let one = pack("one");
    for (folder, tenant) in [(&leaving, &ours), (&leaving, &theirs), (&staying, &theirs)] {
        bind(folder.path(), tenant, &one);
    }
    let start = async |folder: &Path| {
        let worker = worker(&servers, cache.path()).setting("NATS__DELIVERY", "core");
        worker.bindings_dir(folder).start().await
    };
    let (leaver, _stayer) = (start(leaving.path()).await, start(staying.path()).await);
    let client = async_nats::connect(nats.url()).await.unwrap();
    let mut replies = client
        .subscribe(format!("outbound.{}", theirs.id))
        .await
        .unwrap();
    let mut answered = async |n: usize, within| {
        let body = format!(
            r#"{{"id": "m{n}", "from": {{"id": "u{n}"}}, "reply_scope": {{"conversation": "c"}}, "text": "hi"}}"#
        );
        let sent = client.publish(format!("inbound.{}", theirs.id), body.into());
        sent.await.unwrap();
        tokio::time::timeout(within, replies.next()).await.is_ok()
    };
    // A subscription may still be on its way to the server when its worker is ready.
    let mut n = 0;
    let first = poll(DEADLINE, async || {
        n += 1;
        answered(n, Duration::from_secs(1)).await.then_some(())
    });
    assert!(first.await.is_some());

    let before = reloads(&leaver, "applied").await;
    unbind(leaving.path(), &theirs);
    has_reloaded(&leaver, "applied", before).await;
    // The end of the subscription is on its way to the server, too.
    let (mut n, mut in_a_row) = (1000, 0);
    let theirs_alone = poll(DEADLINE, async || {
        n += 1;
        let answered = answered(n, Duration::from_millis(500)).await;
        in_a_row = if answered { in_a_row + 1 } else { 0 };
        (in_a_row == 20).then_some(())
    });
    let all = theirs_alone.await.is_some();
    assert!(all, "messages go to the worker that has left its tenant");
}
