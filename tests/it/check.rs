//! `greentic-worker check --connect`, on real servers.

use std::process::Command;

use crate::harness::{
    NatsServer, RedisServer, Servers, Tenant, WorkerProcess, fresh_tenant, scratch,
};

/// The exit code and what was printed and complained of.
async fn check(servers: &Servers, tenant: &Tenant, env: &[(&str, &str)]) -> (i32, String, String) {
    let cache = scratch();
    let mut command = Command::new(env!("CARGO_BIN_EXE_greentic-worker"));
    command
        .args(["check", "--connect", "--bindings"])
        .arg(tenant.dir());
    command.env("GREENTIC_WORKER__PACKS__CACHE_DIR", cache.path());
    command.env("GREENTIC_WORKER__NATS__URL", &servers.nats_url);
    command.env("GREENTIC_WORKER__REDIS__URL", &servers.redis_url);
    command.envs(
        env.iter()
            .map(|(name, value)| (format!("GREENTIC_WORKER__{name}"), value)),
    );
    let running = tokio::task::spawn_blocking(move || command.output());
    let output = running.await.unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[track_caller]
fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part} in {text}");
    }
}

#[tokio::test]
async fn servers_that_are_well() {
    let (nats, redis) = tokio::join!(NatsServer::start_own(), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let (code, out, complaints) = check(&servers, &tenant, &[]).await;
    assert_eq!((code, complaints.as_str()), (0, ""), "{out}");
    has(
        &out,
        &[
            "NATS 2.",
            "writes in",
            "GREENTIC_INBOUND",
            "missing; a start makes it",
            "of 1 tenants",
        ],
    );
    let client = async_nats::connect(nats.url()).await.unwrap();
    let jetstream = async_nats::jetstream::new(client);
    assert!(
        jetstream.get_stream("GREENTIC_INBOUND").await.is_err(),
        "nothing is made"
    );

    let worker = WorkerProcess::start(&servers, &tenant).await;
    worker.stop().await;
    let typo = format!("inbound.{}x", tenant.id);
    let stored = jetstream.publish(typo.clone(), "{}".into()).await;
    stored.unwrap().await.unwrap();
    let (code, out, complaints) = check(&servers, &tenant, &[]).await;
    assert_eq!(code, 0, "{complaints}");
    let consumer = format!("worker-{}", tenant.id.replace('.', "="));
    has(
        &out,
        &[
            "1 messages",
            &consumer,
            "0 waiting, 0 unacknowledged",
            &typo,
        ],
    );
    has(&complaints, &["nobody serves", "purge"]);
}

#[tokio::test]
async fn servers_that_are_not() {
    let lines = r#"accounts { A { jetstream { max_file: 64M, max_mem: 64M, max_bytes_required: true }
        users: [ { user: w, password: w } ] } }"#;
    let (mut nats, redis) =
        tokio::join!(NatsServer::start_own_with(lines), RedisServer::start_own());
    let servers = Servers::own(&nats, &redis);
    let tenant = fresh_tenant().binds("hello-pack", &["main"]);
    let login = [("NATS__USER", "w"), ("NATS__PASSWORD", "w")];
    let (code, out, complaints) = check(&servers, &tenant, &login).await;
    assert_eq!(code, 64, "{out}{complaints}");
    has(
        &complaints,
        &[
            "wants a size for stream GREENTIC_INBOUND",
            "`nats.inbound.max_bytes`",
        ],
    );
    has(&out, &["writes in"]);

    // Both servers are told of.
    let wrong = [
        ("NATS__USER", "w"),
        ("NATS__PASSWORD", "x"),
        ("REDIS__PASSWORD", "x"),
    ];
    let (code, _, complaints) = check(&servers, &tenant, &wrong).await;
    assert_eq!(code, 69);
    has(
        &complaints,
        &["the user and password", "leave `redis.password` out"],
    );

    nats.stop().await;
    let impatient = [login[0], login[1], ("NATS__CONNECT_TIMEOUT", "1s")];
    let (code, out, complaints) = check(&servers, &tenant, &impatient).await;
    assert_eq!(code, 69);
    has(&complaints, &["no NATS server at"]);
    has(&out, &["writes in", "scripts"]);
}
