//! What time does not heal ends a start at once, by its own name.

use std::process::Command;
use std::time::{Duration, Instant};

use greentic_worker::adapters::redis::{Config, ConnectError, RedisStore, ServerUrl};
use greentic_worker::model::{EnvId, Secret, TenantId};

use super::backend::Redis;
use crate::harness::{DEADLINE, NatsServer, RedisServer, certificate, free_port, poll};

fn config(url: &str) -> Config {
    Config {
        url: ServerUrl::new(url),
        connect_timeout: DEADLINE,
        ..Config::default()
    }
}

/// The error of a start that must not wait.
async fn refused(config: &Config, says: &[&str]) -> ConnectError {
    let began = Instant::now();
    let error = RedisStore::connect(config).await.err().unwrap();
    let text = error.to_string();
    assert!(began.elapsed() < DEADLINE / 2, "it waited: {text}");
    for part in says {
        assert!(text.contains(part), "no {part} in {text}");
    }
    error
}

fn login(url: &str, username: Option<&str>, password: &str) -> Config {
    Config {
        username: username.map(str::to_owned),
        password: Some(Secret::new(password)),
        ..config(url)
    }
}

#[tokio::test]
async fn logins() {
    let open = RedisServer::start_own().await;
    let locked = RedisServer::start_own_with(&["--requirepass", "right"]).await;
    for (config, says) in [
        (
            login(&open.url(), None, "word"),
            "leave `redis.password` out",
        ),
        (login(&open.url(), Some("ada"), "word"), "`redis.username`"),
        (
            login(&locked.url(), None, "wrong"),
            "check `redis.username` and `redis.password`",
        ),
        (config(&locked.url()), "wants a password"),
        // The database is asked for after the login.
        (config(&format!("{}/3", locked.url())), "wants a password"),
    ] {
        let error = refused(&config, &[says]).await;
        assert!(matches!(error, ConnectError::Login { .. }), "{error:?}");
    }
}

#[tokio::test]
async fn databases() {
    let server = RedisServer::start_own().await;
    let there = config(&format!("{}/15", server.url()));
    RedisStore::connect(&there)
        .await
        .unwrap()
        .probe()
        .await
        .unwrap();
    let none = config(&format!("{}/16", server.url()));
    let error = refused(&none, &["out of range", "`databases`", "redis.url"]).await;
    assert!(matches!(error, ConnectError::Database { .. }), "{error:?}");
    let redis = Redis::on(&server.url()).await;
    let narrow = ["ACL", "SETUSER", "w", "on", ">w", "~*", "+@all", "-select"];
    let _: () = redis.run(&narrow).await;
    let there = format!("{}/1", server.url());
    refused(&login(&there, Some("w"), "w"), &["+select"]).await;
}

#[tokio::test]
async fn servers_of_another_kind() {
    let nats = NatsServer::start_own().await;
    let url = nats.url().replace("nats:", "redis:");
    let error = refused(&config(&url), &["does not speak the protocol of Redis"]).await;
    assert!(matches!(error, ConnectError::NotRedis { .. }), "{error:?}");

    let node = RedisServer::start_own_with(&["--cluster-enabled", "yes"]).await;
    refused(
        &config(&node.url()),
        &["a node of a Redis Cluster", "redis.url"],
    )
    .await;
}

#[tokio::test]
async fn a_sentinel() {
    let dir = crate::harness::scratch();
    let (file, port) = (dir.path().join("sentinel.conf"), free_port().unwrap());
    std::fs::write(&file, format!("port {port}\nbind 127.0.0.1\n")).unwrap();
    let mut command = Command::new("redis-server");
    command.arg(&file).arg("--sentinel");
    let _sentinel = crate::harness::Guarded::spawn(&command, dir.path()).unwrap();
    let url = format!("redis://127.0.0.1:{port}");
    refused(&config(&url), &["a Sentinel", "the master"]).await;
}

fn file(name: &str) -> String {
    format!(
        "{}/tests/it/turn_store/tls/{name}",
        env!("CARGO_MANIFEST_DIR")
    )
}

async fn tls_server(auth_clients: &str, clients: &str) -> (RedisServer, String) {
    let port = free_port().unwrap().to_string();
    let server = RedisServer::start_own_with(&[
        "--tls-port",
        &port,
        "--tls-cert-file",
        &file("server.pem"),
        "--tls-key-file",
        &file("server.key"),
        "--tls-ca-cert-file",
        clients,
        "--tls-auth-clients",
        auth_clients,
    ])
    .await;
    (server, format!("localhost:{port}"))
}

#[tokio::test]
async fn tls_and_no_tls() {
    let (server, tls) = tls_server("no", &file("ca.pem")).await;
    let error = refused(
        &config(&format!("redis://{tls}")),
        &["expects TLS", "rediss://"],
    )
    .await;
    assert!(matches!(error, ConnectError::Scheme { .. }), "{error:?}");
    let plain = server.url().replace("redis:", "rediss:");
    let trusting = Config {
        ca_file: Some(file("ca.pem").into()),
        ..config(&plain)
    };
    let error = refused(&trusting, &["does not speak TLS", "redis://"]).await;
    assert!(matches!(error, ConnectError::Scheme { .. }), "{error:?}");
}

#[tokio::test]
async fn certificates_of_the_worker_itself() {
    let dir = crate::harness::scratch();
    let (cert, key) = certificate(dir.path(), "client");
    let (_server, tls) = tls_server("yes", &cert.display().to_string()).await;
    let mutual = Config {
        ca_file: Some(file("ca.pem").into()),
        cert_file: Some(cert),
        key_file: Some(key),
        response_timeout: DEADLINE,
        ..config(&format!("rediss://{tls}"))
    };
    assert!(mutual.problems().is_empty(), "{}", mutual.problems());
    RedisStore::connect(&mutual)
        .await
        .unwrap()
        .probe()
        .await
        .unwrap();
    let without = Config {
        cert_file: None,
        key_file: None,
        ..mutual
    };
    refused(&without, &["redis.cert_file"]).await;
}

#[tokio::test]
async fn a_replica_is_waited_for_and_then_told() {
    let server = RedisServer::start_own().await;
    let redis = Redis::on(&server.url()).await;
    let _: () = redis.run(&["REPLICAOF", "127.0.0.1", "1"]).await;
    let impatient = Config {
        connect_timeout: Duration::from_millis(700),
        ..config(&server.url())
    };
    let error = refused(&impatient, &["it is a replica", "must name the master"]).await;
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
}

/// What is said to a user with these rights.
async fn prepared(rights: &str) -> String {
    prepared_for(["acme"], rights).await
}

/// What is said to a user with these rights who serves these tenants.
async fn prepared_for<const N: usize>(tenants: [&str; N], rights: &str) -> String {
    let server = RedisServer::start_own().await;
    let redis = Redis::on(&server.url()).await;
    let rule = format!("ACL SETUSER w on >w resetchannels {rights}");
    let rule: Vec<_> = rule.split(' ').collect();
    let _: () = redis.run(&rule).await;
    let store = RedisStore::connect(&login(&server.url(), Some("w"), "w"))
        .await
        .unwrap();
    let (env, tenants) = (
        EnvId::new("dev").unwrap(),
        tenants.map(|id| TenantId::new(id).unwrap()),
    );
    let problems = store.prepare(&env, &tenants).await.unwrap();
    // What may not be deleted expires.
    let left = poll(DEADLINE, async || {
        let left: Vec<String> = redis.run(&["KEYS", "*"]).await;
        left.is_empty().then_some(())
    });
    assert!(left.await.is_some());
    problems.to_string()
}

/// The rights of `docs/redis.md`.
fn documented() -> String {
    let docs = include_str!("../../../docs/redis.md");
    let rule = docs.lines().find(|line| line.starts_with("ACL SETUSER"));
    let rights = rule.unwrap().split_once("resetchannels ").unwrap().1;
    rights.to_owned()
}

#[tokio::test]
async fn the_documented_rights_are_enough_and_each_of_them_is_missed_by_name() {
    assert_eq!(prepared(&documented()).await, "");
    for right in documented()
        .split(' ')
        .filter(|right| right.starts_with('+'))
    {
        // Without it there is no start that could tell.
        if right == "+ping" {
            continue;
        }
        let documented = documented();
        let rights = documented.split(' ').filter(|kept| *kept != right);
        let said = prepared(&rights.collect::<Vec<_>>().join(" ")).await;
        assert!(said.contains(&format!("`{right}`")), "{right}: {said}");
    }
}

#[tokio::test]
async fn several_missing_rights_are_named_together() {
    let rights = documented().replace(" +scard", "").replace(" +incr", "");
    let said = prepared(&rights).await;
    assert!(
        said.contains("`+incr`") && said.contains("`+scard`"),
        "{said}"
    );
}

#[tokio::test]
async fn key_patterns_that_do_not_cover_a_tenant_are_named() {
    let sessions_only = documented().replace("~greentic:*", "~greentic:{*");
    let said = prepared(&sessions_only).await;
    assert!(
        said.contains("`~greentic:state:*`") && said.contains("acme"),
        "{said}"
    );
    let state_only = documented().replace("~greentic:*", "~greentic:state:*");
    let said = prepared(&state_only).await;
    assert!(said.contains("`~greentic:*`"), "{said}");
}

#[tokio::test]
async fn keys_that_are_refused_to_one_tenant_are_no_reason_not_to_serve_another() {
    let of_acme = documented().replace(
        "~greentic:*",
        "~greentic:{acme}* ~greentic:state:dev:acme:*",
    );
    let said = prepared_for(["acme", "beta"], &of_acme).await;
    assert!(
        said.starts_with("warning: ")
            && said.contains("tenant beta")
            && !said.contains("tenant acme"),
        "{said}"
    );
    let said = prepared_for(["beta", "gamma"], &of_acme).await;
    assert!(said.starts_with("error: "), "{said}");
}
