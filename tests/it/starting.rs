//! A worker may be there before its servers are.

use crate::harness::{
    DEADLINE, Message, NatsServer, Provider, RedisServer, Servers, WorkerBuilder, WorkerProcess,
    fresh_tenant, poll, redis_connection,
};

/// Waits until the worker says that it waits for this server.
async fn waits_for(worker: &WorkerProcess, server: &str) {
    let told = poll(DEADLINE, async || {
        let log = worker.log();
        let mut lines = log.lines();
        lines
            .any(|line| line.contains("no server yet") && line.contains(server))
            .then_some(())
    });
    assert!(told.await.is_some(), "nothing is said of {server}");
}

#[tokio::test]
async fn a_worker_waits_for_its_servers() {
    let (mut nats, mut redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    redis.stop().await;
    nats.stop().await;
    let mut worker = WorkerProcess::of(&servers)
        .bindings(&tenant)
        .setting("REDIS__CONNECT_TIMEOUT", "5m")
        .setting("NATS__CONNECT_TIMEOUT", "5m")
        .without_waiting()
        .start()
        .await;
    waits_for(&worker, "NATS").await;
    waits_for(&worker, "Redis").await;
    nats.start_again().await;
    redis.start_again().await;
    worker.ready(DEADLINE).await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    provider.send(&Message::new("c1", "hi")).await;
    assert!(provider.expect_reply().await.expects_reply());
}

/// A worker of which this server is away.
async fn without(server: &str, patience: &str, check: impl AsyncFnOnce(WorkerBuilder)) {
    let (mut nats, mut redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    if server == "NATS" {
        nats.stop().await;
    } else {
        redis.stop().await;
    }
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let patience_of = format!("{}__CONNECT_TIMEOUT", server.to_uppercase());
    let worker = WorkerProcess::of(&servers)
        .bindings(&tenant)
        .setting(&patience_of, patience)
        .without_waiting();
    check(worker).await;
}

#[tokio::test]
async fn a_worker_whose_server_does_not_come_says_so_and_ends() {
    for server in ["NATS", "Redis"] {
        without(server, "1s", async |worker| {
            let worker = worker.start().await;
            assert_eq!(worker.exited(DEADLINE).await, 69);
            let (log, setting) = (worker.log(), format!("{}.url", server.to_lowercase()));
            let says = format!("no {server} server at ");
            assert!(log.contains(&says) && log.contains(&setting), "{log}");
        })
        .await;
    }
}

#[tokio::test]
async fn streams_that_contradict_the_settings_stop_the_start() {
    let (nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let first = WorkerProcess::start(&servers, &tenant).await;
    first.stop().await;
    let client = async_nats::connect(nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let mut stream = jetstream.get_stream("GREENTIC_OUTBOUND").await.unwrap();
    let mut config = stream.info().await.unwrap().config.clone();
    config.duplicate_window = std::time::Duration::from_secs(2 * 24 * 3_600);
    jetstream.update_stream(config).await.unwrap();
    let stopped = WorkerProcess::of(&servers)
        .bindings(&tenant)
        .without_waiting()
        .start()
        .await;
    assert_eq!(stopped.exited(DEADLINE).await, 64);
    let sum = "duplicate_window of stream GREENTIC_OUTBOUND (2days) = 2days 1m";
    assert!(stopped.log().contains(sum), "{}", stopped.log());
    let _fits = WorkerProcess::of(&servers)
        .bindings(&tenant)
        .setting("REDIS__DEDUPE_WINDOW", "2days 1m")
        .start()
        .await;
}

#[tokio::test]
async fn a_worker_that_still_waits_for_its_server_ends_when_told_to() {
    for server in ["NATS", "Redis"] {
        without(server, "5m", async |worker| {
            let worker = worker.start().await;
            waits_for(&worker, server).await;
            assert_eq!(worker.stop().await, 0);
        })
        .await;
    }
}

async fn memory_of(redis: &RedisServer, bytes: &str) {
    let mut connection = redis_connection(&redis.url()).await;
    let mut set = redis::cmd("CONFIG");
    set.arg("SET").arg("maxmemory").arg(bytes);
    set.query_async::<()>(&mut connection).await.unwrap();
}

/// A full memory is no lack of rights: it passes, and nobody is told to grant `+set`.
#[tokio::test]
async fn a_worker_waits_for_a_redis_that_takes_no_writes() {
    let (nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    memory_of(&redis, "1").await;
    let start = async |patience: &str| {
        WorkerProcess::of(&servers)
            .bindings(&tenant)
            .setting("REDIS__CONNECT_TIMEOUT", patience)
            .without_waiting()
            .start()
            .await
    };
    let impatient = start("100ms").await;
    assert_eq!(impatient.exited(DEADLINE).await, 69);
    let log = impatient.log();
    assert!(log.contains("OOM") && !log.contains("grant"), "{log}");

    let mut worker = start("5m").await;
    waits_for(&worker, "Redis").await;
    memory_of(&redis, "0").await;
    worker.ready(DEADLINE).await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    provider.send(&Message::new("c1", "hi")).await;
    assert!(provider.expect_reply().await.expects_reply());
}
