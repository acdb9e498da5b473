//! The messages that wait are numbers that an autoscaler and an alert can use.

use std::time::Duration;

use futures_util::StreamExt;

use crate::harness::{
    DEADLINE, Message, NatsServer, Provider, RedisServer, Servers, Tenant, WorkerBuilder,
    WorkerProcess, fresh_tenant, poll,
};

const ALL: &str = "greentic_worker_backlog_messages";
const OF_TENANT: &str = "greentic_worker_tenant_backlog_messages";
const AGE: &str = "greentic_worker_tenant_backlog_oldest_age_seconds";
const UP: &str = "greentic_worker_backlog_up";

fn worker(servers: &Servers, tenants: &[&Tenant]) -> WorkerBuilder {
    let worker = WorkerProcess::of(servers).setting("NATS__BACKLOG_EVERY", "100ms");
    tenants
        .iter()
        .fold(worker, |worker, tenant| worker.bindings(tenant))
}

fn of(tenant: &Tenant, state: &str) -> String {
    format!("tenant=\"{}\",state=\"{state}\"", tenant.id)
}

/// Returns whether the page has a sample of this metric.
async fn has(worker: &WorkerProcess, name: &str) -> bool {
    let (_, page) = worker.get("/metrics").await.unwrap();
    let mut lines = page.lines().filter_map(|line| line.strip_prefix(name));
    lines.any(|rest| rest.starts_with(['{', ' ']))
}

#[tokio::test]
async fn what_waits_and_what_is_out_is_counted_and_nothing_is_said_of_it_while_nats_is_away() {
    let (mut nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let (tenant, idle) = (
        fresh_tenant().binds("hello-pack", &["main"]),
        fresh_tenant().binds("hello-pack", &["main"]),
    );
    let both = [&tenant, &idle];
    let workers = [
        worker(&servers, &both).start().await,
        worker(&servers, &both).start().await,
    ];
    let mut provider = Provider::connect(&servers, &tenant).await;
    for worker in &workers {
        worker.expect_metric(UP, "", 1.0).await;
        worker.expect_metric(ALL, "", 0.0).await;
        worker.expect_metric(AGE, &idle.id, 0.0).await;
    }
    // Nobody can begin a turn, so some are out and the others wait.
    redis.pause();
    for n in 0..50 {
        let conversation = format!("c{n}");
        let message = Message::new(&conversation, "hi").from(&conversation);
        provider.send(&message).await;
    }
    for worker in &workers {
        worker.expect_metric(ALL, "", 50.0).await;
        let reported = poll(DEADLINE, async || {
            let pending = worker.metric(OF_TENANT, &of(&tenant, "pending")).await;
            let out = of(&tenant, "unacknowledged");
            let out = worker.metric(OF_TENANT, &out).await;
            let age = worker.metric(AGE, &tenant.id).await;
            (pending + out == 50.0 && out >= 1.0 && age > 0.5).then_some(())
        });
        assert!(
            reported.await.is_some(),
            "{:?}",
            worker.get("/metrics").await
        );
        assert_eq!(worker.metric(OF_TENANT, &idle.id).await, 0.0);
        assert_eq!(worker.metric(AGE, &idle.id).await, 0.0);
    }
    // As old as it is: it does not begin anew with each delivery.
    tokio::time::sleep(Duration::from_secs(1)).await;
    let older = poll(DEADLINE, async || {
        (workers[0].metric(AGE, &tenant.id).await > 1.5).then_some(())
    });
    assert!(older.await.is_some());

    nats.kill().await;
    for worker in &workers {
        let gone = poll(DEADLINE, async || {
            (has(worker, UP).await && worker.metric(UP, "").await == 0.0).then_some(())
        });
        assert!(gone.await.is_some());
        for name in [ALL, OF_TENANT, AGE] {
            assert!(!has(worker, name).await, "{name} is shown and not known");
        }
    }
    nats.start_again().await;
    redis.resume();
    provider.expect_replies(50).await;
    for worker in &workers {
        worker.expect_metric(UP, "", 1.0).await;
        worker.expect_metric(ALL, "", 0.0).await;
        worker.expect_metric(AGE, &tenant.id, 0.0).await;
    }
}

#[tokio::test]
async fn a_look_costs_one_request_however_many_tenants_are_idle() {
    let (nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let tenants: Vec<Tenant> = (0..100)
        .map(|_| fresh_tenant().binds("hello-pack", &["main"]))
        .collect();
    let tenants: Vec<&Tenant> = tenants.iter().collect();
    let worker = worker(&servers, &tenants).start().await;
    worker.expect_metric(UP, "", 1.0).await;
    let client = async_nats::connect(nats.url()).await.unwrap();
    let mut api = client.subscribe("$JS.API.>").await.unwrap();
    let counting = async {
        let (mut looks, mut others) = (0, 0);
        while looks < 5 {
            let asked = api.next().await.unwrap();
            match asked.subject.as_str() {
                "$JS.API.STREAM.INFO.GREENTIC_INBOUND" => looks += 1,
                subject if subject.contains(".INFO.GREENTIC_INBOUND") => others += 1,
                subject if subject.contains(".MSG.GET.GREENTIC_INBOUND") => others += 1,
                _ => {}
            }
        }
        others
    };
    let others = tokio::time::timeout(DEADLINE, counting).await.unwrap();
    assert_eq!(others, 0);
}

/// The stream's names, and the permissions, are those that the document gives; without one of them what it is for is missing.
#[tokio::test]
async fn without_the_right_to_read_messages_only_the_age_is_missing() {
    let nats = NatsServer::start_own_with(
        "no_auth_user: p\nauthorization { users = [\n\
         {user: w, password: w, permissions: {publish: {deny: [\"$JS.API.STREAM.MSG.GET.GREENTIC_INBOUND\"]}}},\n\
         {user: p, password: p}\n] }\n",
    )
    .await;
    let mut redis = RedisServer::start_own().await;
    let servers = Servers::own(&nats, &redis);
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let worker = WorkerProcess::of(&servers)
        .setting("NATS__USER", "w")
        .setting("NATS__PASSWORD", "w")
        .setting("NATS__BACKLOG_EVERY", "100ms")
        .bindings(&tenant)
        .start()
        .await;
    let provider = Provider::connect(&servers, &tenant).await;
    worker.expect_metric(UP, "", 1.0).await;
    redis.kill().await;
    provider.send(&Message::new("c", "hi")).await;
    worker.expect_metric(ALL, "", 1.0).await;
    let split = poll(DEADLINE, async || {
        let out = of(&tenant, "unacknowledged");
        let out = worker.metric(OF_TENANT, &out).await;
        (out == 1.0 && !has(&worker, AGE).await).then_some(())
    });
    assert!(split.await.is_some());
    assert_eq!(worker.metric(UP, "").await, 1.0);
    assert!(has(&worker, UP).await);
}
