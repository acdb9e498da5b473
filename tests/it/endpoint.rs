//! The operator's endpoint beside clients that mean it harm.

use std::fs;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{
    DEADLINE, Message, NatsServer, Provider, RedisServer, Servers, Tenant, WorkerProcess,
    fresh_tenant, redis_connection,
};

const DISPLACED: &str = "more HTTP connections than http.connections";

/// The files and connections that a process has open; none where the system has no `/proc`.
fn descriptors(worker: &WorkerProcess) -> Option<usize> {
    let open = fs::read_dir(format!("/proc/{}/fd", worker.pid()));
    Some(open.ok()?.count())
}

async fn connection(worker: &WorkerProcess, text: &str) -> TcpStream {
    let address = worker.http().expect("the worker listens");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn half_written_requests_and_slow_readers_take_nothing_from_anybody() {
    let servers = Servers::shared().await;
    let folder = tempfile::tempdir().unwrap();
    let (tenant, later) = (
        fresh_tenant().binds("hello-pack", &["main"]),
        fresh_tenant().binds("hello-pack", &["main"]),
    );
    let bind = |tenant: &Tenant| {
        let file = tenant.dir().join("hello-pack.gtbind");
        let to = folder.path().join(format!("{}.gtbind", tenant.id));
        fs::copy(file, to).unwrap();
    };
    bind(&tenant);
    let worker = WorkerProcess::of(&servers)
        .bindings_dir(folder.path())
        .setting("RELOAD__EVERY", "50ms")
        .setting("HTTP__TIMEOUT", "1h")
        .start()
        .await;
    let mut provider = Provider::connect(&servers, &tenant).await;
    provider.send(&Message::new("c0", "hi")).await;
    provider.expect_reply().await;
    let before = descriptors(&worker);

    let mut held = Vec::new();
    for n in 0..300 {
        let half = match n % 3 {
            0 => "GET /livez HTTP/1.1\r\n",
            1 => "",
            // Many answers that nobody reads.
            _ => &"GET /metrics HTTP/1.1\r\nHost: w\r\n\r\n".repeat(200),
        };
        held.push(connection(&worker, half).await);
        if n % 50 == 0 {
            for page in ["/livez", "/readyz", "/metrics"] {
                assert_eq!(worker.status(page).await, 200, "{page} beside {n}");
            }
        }
    }
    assert!(worker.log().contains(DISPLACED), "{}", worker.log());
    if let (Some(before), Some(now)) = (before, descriptors(&worker)) {
        assert!(now <= before + 64 + 8, "{now} descriptors after {before}");
    }
    // A reload, a tenant that is new by it, and one that was there.
    bind(&later);
    let mut second = Provider::connect(&servers, &later).await;
    second.send(&Message::new("c1", "hi")).await;
    assert!(second.expect_reply().await.expects_reply());
    provider.send(&Message::new("c1", "hi")).await;
    assert!(provider.expect_reply().await.expects_reply());
    for page in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(worker.status(page).await, 200, "{page}");
    }
    drop(held);
    assert_eq!(worker.stop().await, 0);
}

#[tokio::test]
async fn connections_on_which_nothing_comes_are_closed_after_their_time() {
    let servers = Servers::shared().await;
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let worker = WorkerProcess::of(&servers)
        .bindings(&tenant)
        .setting("HTTP__TIMEOUT", "1s")
        .start()
        .await;
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(connection(&worker, "GET /livez HTTP/1.1\r\n").await);
    }
    for mut stream in held {
        let mut byte = [0];
        let closing = tokio::time::timeout(DEADLINE, stream.read(&mut byte));
        // One that is reset is closed, too.
        let read = closing.await.expect("it is closed").unwrap_or(0);
        assert_eq!(read, 0);
    }
}

/// A process with few descriptors says so, and keeps most of them for its work.
#[tokio::test]
async fn few_descriptors_are_kept_for_the_work() {
    let (nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let worker = WorkerProcess::of(&servers)
        .bindings(&tenant)
        .descriptors(100)
        .setting("HTTP__TIMEOUT", "1h")
        .start()
        .await;
    let log = worker.log();
    assert!(
        log.contains("limit=100") && log.contains("http_connections=25"),
        "{log}"
    );
    let mut held = Vec::new();
    for _ in 0..300 {
        held.push(connection(&worker, "GET /livez HTTP/1.1\r\n").await);
    }
    // Redis lets the worker's connections go, so that it must open others.
    let mut redis = redis_connection(&servers.redis_url).await;
    let mut kill = redis::cmd("CLIENT");
    kill.arg("KILL")
        .arg("TYPE")
        .arg("normal")
        .arg("SKIPME")
        .arg("yes");
    let _killed: i64 = kill.query_async(&mut redis).await.unwrap();
    let mut provider = Provider::connect(&servers, &tenant)
        .await
        .patient(Duration::from_secs(20));
    provider.send(&Message::new("c", "hi")).await;
    assert!(provider.expect_reply().await.expects_reply());
    assert_eq!(worker.status("/livez").await, 200);
}
