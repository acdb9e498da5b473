//! Servers that are demoted, and names that lead to another server by and by.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use greentic_worker::adapters::redis::{Config, RedisStore, ServerUrl};
use greentic_worker::model::Activity;
use greentic_worker::ports::{Commit, Committed, Quotas, StoreError, TurnStore};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

use super::backend::Redis;
use crate::contract::talk::{Talk, reply, slot};
use crate::harness::{
    DEADLINE, Message, NatsServer, Provider, RedisServer, Servers, WorkerProcess, fresh_tenant,
    poll,
};

/// A name for a Redis: it leads each new connection to the server of the moment. Those that are there stay where they are.
struct Name {
    url: String,
    server: Arc<Mutex<String>>,
}

impl Name {
    async fn of(server: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let name = Self {
            url,
            server: Arc::new(Mutex::new(address(server))),
        };
        let leads_to = Arc::clone(&name.server);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let server = leads_to.lock().unwrap().clone();
                tokio::spawn(async move {
                    if let Ok(mut server) = TcpStream::connect(server).await {
                        let _ended = copy_bidirectional(&mut client, &mut server).await;
                    }
                });
            }
        });
        name
    }

    fn leads_to(&self, server: &RedisServer) {
        *self.server.lock().unwrap() = address(server);
    }
}

fn address(server: &RedisServer) -> String {
    server.url().replace("redis://", "")
}

async fn commits(store: &RedisStore, activity: &Activity) -> Result<Committed, StoreError> {
    let commit = Commit {
        activity,
        lease: None,
        head: None,
        taken: None,
        park: None,
        state_read: &[(slot("a"), None)],
        state_written: &[(slot("a"), Some("1".to_owned()))],
        outbox: &[reply("hi")],
        quotas: Quotas::default(),
    };
    store.commit(&commit).await
}

/// Two servers, of which the second one follows the first, and a store that knows the first one by a name.
struct Pair {
    first: RedisServer,
    second: RedisServer,
    first_run: Redis,
    second_run: Redis,
    name: Name,
    store: RedisStore,
}

impl Pair {
    async fn start() -> Self {
        let (first, second) = tokio::join!(RedisServer::start_own(), RedisServer::start_own());
        let (first_run, second_run) = (
            Redis::on(&first.url()).await,
            Redis::on(&second.url()).await,
        );
        follow(&second_run, &first).await;
        let name = Name::of(&first).await;
        let config = Config {
            url: ServerUrl::new(&name.url),
            connect_timeout: DEADLINE,
            ..Config::default()
        };
        let store = RedisStore::connect(&config).await.unwrap();
        Self {
            first,
            second,
            first_run,
            second_run,
            name,
            store,
        }
    }

    /// The second one takes over, and the first one follows it.
    async fn fail_over(&self) {
        let _: () = self.second_run.run(&["REPLICAOF", "NO", "ONE"]).await;
        follow(&self.first_run, &self.second).await;
    }
}

async fn follow(replica: &Redis, master: &RedisServer) {
    let port = master.port().to_string();
    let _: () = replica.run(&["REPLICAOF", "127.0.0.1", &port]).await;
}

#[track_caller]
fn check_refused<T: std::fmt::Debug>(answer: Result<T, StoreError>, code: &str) {
    let error = answer.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    assert!(error.to_string().contains(code), "{error}");
}

#[tokio::test]
async fn a_server_that_was_demoted_is_left_for_the_one_that_the_name_leads_to() {
    let pair = Pair::start().await;
    let talk = Talk::of(&pair.first_run);
    commits(&pair.store, &talk.says("1")).await.unwrap();
    pair.fail_over().await;
    // The name still leads to the first one, which would answer a PING.
    check_refused(pair.store.probe().await, "ReadOnly");
    pair.name.leads_to(&pair.second);
    let committed = poll(Duration::from_secs(3), async || {
        commits(&pair.store, &talk.says("2")).await.ok()
    });
    let committed = committed.await.expect("it is left within seconds");
    assert!(matches!(committed, Committed::Done { .. }), "{committed:?}");
    pair.store.probe().await.unwrap();
}

#[tokio::test]
async fn a_commit_alone_finds_the_new_master() {
    let pair = Pair::start().await;
    let talk = Talk::of(&pair.first_run);
    pair.fail_over().await;
    pair.name.leads_to(&pair.second);
    check_refused(commits(&pair.store, &talk.says("1")).await, "ReadOnly");
    let committed = commits(&pair.store, &talk.says("1")).await.unwrap();
    assert!(matches!(committed, Committed::Done { .. }), "{committed:?}");
}

/// How often a server was connected to, the connection that asks included.
async fn connections(redis: &Redis) -> u64 {
    let stats: String = redis.run(&["INFO", "stats"]).await;
    let mut lines = stats.lines();
    let count = lines.find_map(|line| line.strip_prefix("total_connections_received:"));
    count.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn a_name_that_goes_on_leading_to_a_replica_is_not_connected_to_without_end() {
    let pair = Pair::start().await;
    let talk = Talk::of(&pair.first_run);
    pair.fail_over().await;
    let before = connections(&pair.first_run).await;
    let end = std::time::Instant::now() + Duration::from_secs(2);
    let activity = talk.says("1");
    let turns = (0..64).map(|_| async {
        while std::time::Instant::now() < end {
            check_refused(commits(&pair.store, &activity).await, "ReadOnly");
        }
    });
    futures_util::future::join_all(turns).await;
    let made = connections(&pair.first_run).await - before;
    assert!(made < 60, "{made} connections");
}

#[tokio::test]
async fn a_master_that_its_replicas_left_and_one_whose_data_is_stale_are_left_too() {
    let pair = Pair::start().await;
    let talk = Talk::of(&pair.first_run);
    let _: () = pair.second_run.run(&["REPLICAOF", "NO", "ONE"]).await;
    let _: () = pair
        .first_run
        .run(&["CONFIG", "SET", "min-replicas-to-write", "1"])
        .await;
    let refused = poll(DEADLINE, async || pair.store.probe().await.err()).await;
    check_refused::<()>(Err(refused.unwrap()), "NOREPLICAS");
    pair.name.leads_to(&pair.second);
    let back = poll(DEADLINE, async || pair.store.probe().await.ok()).await;
    assert!(back.is_some());

    let nobody = crate::harness::free_port().unwrap().to_string();
    let stale = ["CONFIG", "SET", "replica-serve-stale-data", "no"];
    let _: () = pair.second_run.run(&stale).await;
    let _: () = pair
        .second_run
        .run(&["REPLICAOF", "127.0.0.1", &nobody])
        .await;
    let read = pair
        .store
        .read_state(&talk.says("1"), &slot("a"), 100)
        .await;
    check_refused(read, "MasterDown");
    let _: () = pair
        .first_run
        .run(&["CONFIG", "SET", "min-replicas-to-write", "0"])
        .await;
    pair.name.leads_to(&pair.first);
    let back = poll(DEADLINE, async || pair.store.probe().await.ok()).await;
    assert!(back.is_some());
}

#[tokio::test]
async fn a_server_that_loads_its_data_is_waited_for() {
    // A thousandth of a second a key, and an ear for clients every thousand keys.
    let slow = ["--key-load-delay", "1000"];
    let mut server = RedisServer::start_own_with(&slow).await;
    let redis = Redis::on(&server.url()).await;
    let mut fill = redis::pipe();
    for n in 0..4_000 {
        fill.cmd("SET").arg(format!("filler-{n}")).arg(n).ignore();
    }
    let () = fill
        .query_async(&mut redis.connection.clone())
        .await
        .unwrap();
    let config = Config {
        url: ServerUrl::new(server.url()),
        ..Config::default()
    };
    let store = RedisStore::connect(&config).await.unwrap();
    server.stop().await;
    let loading = poll(DEADLINE, async || {
        let error = store.probe().await.err()?;
        error.to_string().contains("BusyLoading").then_some(())
    });
    let (loading, ()) = tokio::join!(loading, server.start_again());
    assert!(loading.is_some(), "it says that it loads");
    let back = poll(DEADLINE, async || store.probe().await.ok()).await;
    assert!(back.is_some());
}

#[tokio::test]
async fn a_password_that_is_rotated_is_read_from_its_file_again() {
    let server = RedisServer::start_own_with(&["--requirepass", "one"]).await;
    let admin = redis::Client::open(server.url().replace("//", "//:one@")).unwrap();
    let mut admin = admin.get_multiplexed_async_connection().await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    std::fs::write(&file, "one\n").unwrap();
    let config = Config {
        url: ServerUrl::new(server.url()),
        password_file: Some(file.clone()),
        ..Config::default()
    };
    assert!(config.problems().is_empty());
    let store = RedisStore::connect(&config).await.unwrap();
    store.probe().await.unwrap();
    let mut rotate = redis::pipe();
    rotate.cmd("CONFIG").arg(&["SET", "requirepass", "two"]);
    rotate
        .cmd("CLIENT")
        .arg(&["KILL", "TYPE", "normal", "SKIPME", "yes"]);
    let _: () = rotate.query_async(&mut admin).await.unwrap();
    assert!(store.probe().await.is_err());
    assert!(
        store.probe().await.is_err(),
        "the old password no longer holds"
    );
    std::fs::write(&file, "two\n").unwrap();
    let back = poll(DEADLINE, async || store.probe().await.ok()).await;
    assert!(back.is_some());
}

/// Readiness and turns of a whole worker.
#[tokio::test]
async fn a_worker_goes_on_with_the_new_master_and_is_not_ready_until_then() {
    let pair = Pair::start().await;
    let nats = NatsServer::start_own().await;
    let servers = Servers::own(&nats, &pair.first);
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let mut worker = WorkerProcess::of(&servers)
        .bindings(&tenant)
        .setting("REDIS__URL", &pair.name.url)
        .start()
        .await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    provider.send(&Message::new("c1", "hi")).await;
    assert!(provider.expect_reply().await.expects_reply());
    pair.fail_over().await;
    let unready = poll(DEADLINE, async || {
        (worker.status("/readyz").await == 503).then_some(())
    })
    .await;
    assert!(unready.is_some(), "a replica takes no commit");
    provider.send(&Message::new("c1", "Ada")).await;
    pair.name.leads_to(&pair.second);
    provider.expect_reply().await;
    worker.ready(DEADLINE).await;
}
