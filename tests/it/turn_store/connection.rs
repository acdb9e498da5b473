//! Connecting, and what happens when the server fails.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use greentic_worker::adapters::redis::{Config, ConnectError, RedisStore, ServerUrl};
use greentic_worker::model::{Activity, Secret};
use greentic_worker::ports::{
    Begin, Begun, Claim, Commit, Committed, Quotas, StoreError, StoredState, TurnStore,
};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::backend::Redis;
use crate::contract::talk::{Talk, Turn, applied, exclusive, lease, ready, reply, slot};
use crate::harness::{DEADLINE, RedisServer, free_port, poll};

fn config(url: &str) -> Config {
    Config {
        url: ServerUrl::new(url),
        connect_timeout: DEADLINE,
        response_timeout: Duration::from_secs(2),
        ..Config::default()
    }
}

/// The same with a user.
fn login(url: &str, username: Option<&str>, password: &str) -> Config {
    Config {
        username: username.map(str::to_owned),
        password: Some(Secret::new(password)),
        ..config(url)
    }
}

/// A backend on a server of its own whose store has these settings.
async fn with(config: &Config, mut redis: Redis) -> Redis {
    redis.store = RedisStore::connect(config).await.unwrap();
    redis.config = config.clone();
    redis
}

async fn begins(redis: &Redis, activity: &Activity) -> Result<Begun, StoreError> {
    let begin = Begin {
        activity,
        claim: Claim::Optimistic,
        resume: true,
        state: &[],
        state_bytes: 0,
    };
    redis.store.begin(&begin).await
}

async fn commits(redis: &Redis, activity: &Activity) -> Result<Committed, StoreError> {
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
    redis.store.commit(&commit).await
}

#[track_caller]
fn check_unavailable<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    assert!(
        matches!(answer, Err(StoreError::Unavailable(_))),
        "{answer:?}"
    );
}

/// It comes back by itself.
async fn comes_back(redis: &Redis) {
    let back = poll(DEADLINE, async || redis.store.probe().await.ok()).await;
    assert!(back.is_some());
}

#[tokio::test]
async fn an_absent_server_is_waited_for_and_then_told_by_its_cause() {
    // Taken, so that nobody else listens there, and not listened on.
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = taken.local_addr().unwrap();
    let started = Instant::now();
    let url = format!("redis://:secret@{address}");
    let impatient = Config {
        connect_timeout: Duration::from_millis(700),
        ..config(&url)
    };
    let error = RedisStore::connect(&impatient).await.err().unwrap();
    assert!(started.elapsed() >= impatient.connect_timeout);
    let said = error.to_string();
    assert!(matches!(error, ConnectError::Unreachable { .. }), "{said}");
    assert!(said.contains("refused") && said.contains(&address.to_string()));
    assert!(said.contains("redis.url") && said.contains("700ms"));
    assert!(!said.contains("secret"), "{said}");
}

#[tokio::test]
async fn a_server_that_comes_late_is_found() {
    let mut server = RedisServer::start_own().await;
    server.stop().await;
    let config = config(&server.url());
    let (store, ()) = tokio::join!(RedisStore::connect(&config), async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        server.start_again().await;
    });
    store.unwrap().probe().await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_is_told_as_such() {
    let server = RedisServer::start_own_with(&["--requirepass", "right"]).await;
    for wrong in [config(&server.url()), login(&server.url(), None, "wrong")] {
        let error = RedisStore::connect(&wrong).await.err().unwrap();
        assert!(matches!(error, ConnectError::Login { .. }), "{error}");
    }
    for right in [
        login(&server.url(), None, "right"),
        config(&server.url().replace("//", "//:right@")),
        login(&server.url().replace("//", "//:wrong@"), None, "right"),
    ] {
        let store = RedisStore::connect(&right).await.unwrap();
        store.probe().await.unwrap();
    }
}

/// The least that an ACL must allow, as `docs/redis.md` has it.
#[tokio::test]
async fn the_documented_acl_is_enough() {
    let server = RedisServer::start_own().await;
    let redis = Redis::on(&server.url()).await;
    let docs = include_str!("../../../docs/redis.md");
    let rule = docs.lines().find(|line| line.starts_with("ACL SETUSER"));
    let rule: Vec<_> = rule.unwrap().split(' ').collect();
    let _: () = redis.run(&rule).await;
    let limited = login(&server.url(), Some("worker"), "password");
    let redis = with(&limited, redis).await;

    let talk = Talk::of(&redis);
    talk.parks(&redis, "w1", "k1").await;
    for i in 0..12 {
        talk.parks(&redis, &format!("x{i}"), "k").await;
    }
    let activity = talk.echoes("k1", "1");
    let claim = exclusive("me");
    let opening = ready(&redis, &activity, claim).await;
    redis.store.release(&activity, lease("me")).await.unwrap();
    ready(&redis, &activity, claim).await;
    Turn::after(&opening)
        .holding("me")
        .reads(&slot("a"), None)
        .writes(&slot("a"), "1")
        .done(&redis, &activity)
        .await;
    redis.store.published(&activity).await.unwrap();
    let read = redis.store.read_state(&activity, &slot("a"), 1000).await;
    assert_eq!(read.unwrap(), StoredState::Text("1".to_owned()));
    let warnings = redis.store.warnings().await;
    assert!(warnings[0].contains("unknown"), "{warnings:?}");
}

#[tokio::test]
async fn a_server_that_may_evict_is_warned_of() {
    let server = RedisServer::start_own().await;
    let redis = Redis::on(&server.url()).await;
    assert_eq!(redis.store.warnings().await, [""; 0]);
    let _: () = redis
        .run(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"])
        .await;
    let warnings = redis.store.warnings().await;
    assert!(warnings[0].contains("allkeys-lru"), "{warnings:?}");
}

#[tokio::test]
async fn a_full_server_applies_all_or_nothing() {
    let server = RedisServer::start_own().await;
    let redis = with(&config(&server.url()), Redis::on(&server.url()).await).await;
    let talk = Talk::of(&redis);
    talk.parks(&redis, "w", "k").await;
    let answer = talk.says("1");
    let opening = ready(&redis, &answer, Claim::Optimistic).await;
    let before = redis.key_names().await;
    let _: () = redis.run(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let elsewhere = talk.but(|t| t.conversation = Some("d".to_owned()));
    check_unavailable(commits(&redis, &elsewhere.says("2")).await);
    assert_eq!(redis.key_names().await, before);
    // What begins with a deletion is let through, and then all of it is.
    let turn = Turn::after(&opening).park(&answer, "w2", Some("k2"));
    turn.replies("hi").done(&redis, &answer).await;
    let _: () = redis.run(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(talk.resumes(&redis).await.as_deref(), Some("w2"));
    assert!(applied(&redis, &answer).await.is_some());
}

#[tokio::test]
async fn scripts_that_the_server_forgot_are_loaded_again() {
    let server = RedisServer::start_own().await;
    let redis = Redis::on(&server.url()).await;
    let talk = Talk::of(&redis);
    talk.parks(&redis, "w1", "k1").await;
    let _: () = redis.run(&["SCRIPT", "FLUSH"]).await;
    talk.parks(&redis, "w2", "k2").await;
    assert_eq!(talk.resumes(&redis).await.as_deref(), Some("w2"));
}

#[tokio::test]
async fn a_server_that_restarts_is_found_again() {
    let mut server = RedisServer::start_own().await;
    let redis = with(&config(&server.url()), Redis::on(&server.url()).await).await;
    let talk = Talk::of(&redis);
    talk.parks(&redis, "w", "k").await;
    server.stop().await;
    let started = Instant::now();
    for _ in 0..3 {
        check_unavailable(begins(&redis, &talk.says("1")).await);
    }
    // Each within twice the time for an answer.
    let most = 3 * 2 * redis.config.response_timeout;
    assert!(started.elapsed() < most + DEADLINE / 2);
    server.start_again().await;
    comes_back(&redis).await;
    assert_eq!(talk.resumes(&redis).await.as_deref(), Some("w"));
}

#[tokio::test]
async fn a_commit_that_timed_out_is_applied_once() {
    let server = RedisServer::start_own().await;
    let redis = with(&config(&server.url()), Redis::on(&server.url()).await).await;
    let activity = Talk::of(&redis).says("1");
    server.pause();
    check_unavailable(commits(&redis, &activity).await);
    check_unavailable(begins(&redis, &activity).await);
    server.resume();
    comes_back(&redis).await;
    // Whether the first one came through or not, the second one knows.
    let answer = commits(&redis, &activity).await.unwrap();
    assert!(
        matches!(
            answer,
            Committed::Done { .. } | Committed::AlreadyApplied(_)
        ),
        "{answer:?}"
    );
    let answer = commits(&redis, &activity).await.unwrap();
    assert!(matches!(answer, Committed::AlreadyApplied(_)), "{answer:?}");
}

/// The other end is gone without a word: what is sent is taken and never answered, but a new connection works.
#[tokio::test]
async fn a_connection_that_fell_silent_is_replaced() {
    let server = RedisServer::start_own().await;
    let proxy = SilencingProxy::start(&server.url()).await;
    let redis = with(&config(&proxy.url), Redis::on(&server.url()).await).await;
    redis.store.probe().await.unwrap();
    proxy.silence();
    check_unavailable(redis.store.probe().await);
    redis.store.probe().await.unwrap();
}

#[tokio::test]
async fn tls_needs_a_certificate_of_the_given_authority() {
    let file = |name: &str| {
        format!(
            "{}/tests/it/turn_store/tls/{name}",
            env!("CARGO_MANIFEST_DIR")
        )
    };
    let port = free_port().unwrap().to_string();
    let server = RedisServer::start_own_with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &file("server.pem"),
        "--tls-key-file",
        &file("server.key"),
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let trusting = Config {
        ca_file: Some(file("ca.pem").into()),
        response_timeout: DEADLINE,
        ..config(&format!("rediss://localhost:{port}"))
    };
    let redis = with(&trusting, Redis::on(&server.url()).await).await;
    let talk = Talk::of(&redis);
    talk.parks(&redis, "w", "k").await;
    assert_eq!(talk.resumes(&redis).await.as_deref(), Some("w"));

    let strange = Config {
        ca_file: None,
        ..trusting
    };
    let error = RedisStore::connect(&strange).await.err().unwrap();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error}");
}

/// Passes bytes on, until the connections that it has are silenced; those that come later work.
struct SilencingProxy {
    url: String,
    silenced: Arc<AtomicUsize>,
    accepted: Arc<AtomicUsize>,
}

impl SilencingProxy {
    async fn start(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", listener.local_addr().unwrap());
        let server = server.strip_prefix("redis://").unwrap().to_owned();
        let (silenced, accepted) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let proxy = Self {
            url,
            silenced: silenced.clone(),
            accepted: accepted.clone(),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let number = accepted.fetch_add(1, Ordering::SeqCst);
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(pass_on(client, server, number, silenced.clone()));
            }
        });
        proxy
    }

    /// From now on no byte passes through the connections that there are.
    fn silence(&self) {
        let all = self.accepted.load(Ordering::SeqCst);
        self.silenced.store(all, Ordering::SeqCst);
    }
}

async fn pass_on(
    client: TcpStream,
    server: TcpStream,
    number: usize,
    silenced: Arc<AtomicUsize>,
) -> std::io::Result<()> {
    let streams = [&client, &server];
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let from = tokio::select! {
            ready = client.readable() => ready.map(|()| 0),
            ready = server.readable() => ready.map(|()| 1),
        }?;
        if number < silenced.load(Ordering::SeqCst) {
            // Both ends stay open.
            std::future::pending::<()>().await;
        }
        let len = match streams[from].try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(len) => len,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let to = streams[1 - from];
        let mut sent = 0;
        while sent < len {
            to.writable().await?;
            match to.try_write(&buffer[sent..len]) {
                Ok(more) => sent += more,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}
