//! The harness's own tests: what cleans up after others must itself be seen to clean up.

use std::process::Command;
use std::time::Duration;

use super::guarded::{Guarded, scratch};
use super::{
    DEADLINE, Message, NatsServer, Provider, RedisServer, Servers, fresh_tenant, poll,
    redis_connection,
};

fn is_alive(pid: u32) -> bool {
    let kill = format!("kill -0 {pid} 2>/dev/null");
    Command::new("sh")
        .args(["-c", &kill])
        .status()
        .unwrap()
        .success()
}

fn sleeper(dir: &tempfile::TempDir) -> Guarded {
    let mut command = Command::new("sh");
    command.args(["-c", "echo started; exec sleep 600"]);
    Guarded::spawn(&command, dir.path()).unwrap()
}

#[tokio::test]
async fn a_guarded_process_goes_with_its_owner() {
    let dir = scratch();
    let sleeper = sleeper(&dir);
    let pid = poll(DEADLINE, async || {
        sleeper.log().contains("started").then_some(sleeper.pid())
    });
    let pid = pid.await.unwrap();
    assert!(is_alive(pid));
    drop(sleeper);
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_guarded_process_tells_how_it_ended() {
    let dir = scratch();
    let sleeper = sleeper(&dir);
    assert_eq!(sleeper.exited(Duration::ZERO).await, None);
    sleeper.signal("KILL");
    assert_eq!(sleeper.exited(DEADLINE).await, Some(137));
}

#[tokio::test]
async fn shared_servers_answer() {
    let servers = Servers::shared().await;
    check_servers(&servers).await;
}

#[tokio::test]
async fn own_servers_keep_their_data_through_a_kill() {
    let mut nats = NatsServer::start_own().await;
    let mut redis = RedisServer::start_own().await;
    let servers = Servers::own(&nats, &redis);
    let mut connection = redis_connection(&servers.redis_url).await;
    let set: Result<(), _> = redis::cmd("SET")
        .arg(&["kept", "yes"])
        .query_async(&mut connection)
        .await;
    set.unwrap();
    let jetstream = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    jetstream.create_stream("KEPT").await.unwrap();

    redis.kill().await;
    nats.kill().await;
    redis.start_again().await;
    nats.start_again().await;

    let mut connection = redis_connection(&servers.redis_url).await;
    let kept: String = redis::cmd("GET")
        .arg("kept")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(kept, "yes");
    let jetstream = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    assert!(jetstream.get_stream("KEPT").await.is_ok());
    check_servers(&servers).await;
}

#[tokio::test]
async fn a_server_may_lack_jetstream() {
    let nats = NatsServer::start_without_jetstream().await;
    let client = async_nats::connect(nats.url()).await.unwrap();
    let stream = async_nats::jetstream::new(client).get_stream("ANY").await;
    assert!(stream.is_err());
}

#[tokio::test]
async fn a_provider_misses_nothing_however_late_it_looks() {
    let nats = NatsServer::start_own().await;
    let jetstream = async_nats::jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let servers = Servers {
        nats_url: nats.url(),
        redis_url: String::new(),
    };
    let tenant = fresh_tenant();
    let mut provider = Provider::connect(&servers, &tenant).await;
    for (name, subjects) in [
        ("GREENTIC_INBOUND", "inbound.>"),
        ("GREENTIC_OUTBOUND", "outbound.>"),
        ("GREENTIC_DEADLETTER", "deadletter.>"),
    ] {
        let config = async_nats::jetstream::stream::Config {
            name: name.to_owned(),
            subjects: vec![subjects.to_owned()],
            ..Default::default()
        };
        jetstream.create_stream(config).await.unwrap();
    }
    let message = Message::new("c1", "hi").from("ada").thread("t1");
    assert!(provider.send(&message).await.starts_with("m-"));
    for (subject, body) in [
        ("outbound", r#"{"text":"one"}"#),
        ("deadletter", "?"),
        ("outbound", r#"{"text":"two"}"#),
    ] {
        let subject = format!("{subject}.{}", tenant.id);
        let stored = jetstream.publish(subject, body.into()).await.unwrap();
        stored.await.unwrap();
    }

    provider.expect_text("one").await;
    provider.expect_text("two").await;
    assert_eq!(&provider.expect_dead().await.body[..], b"?");
    provider.expect_silence(Duration::from_millis(100)).await;
}

async fn check_servers(servers: &Servers) {
    let client = async_nats::connect(&servers.nats_url).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    let name = format!("HARNESS_{:x}", fastrand::u64(..));
    jetstream.create_stream(name.as_str()).await.unwrap();
    jetstream.delete_stream(name).await.unwrap();
    let mut connection = redis_connection(&servers.redis_url).await;
    let pong: String = redis::cmd("PING")
        .query_async(&mut connection)
        .await
        .unwrap();
    assert_eq!(pong, "PONG");
}
