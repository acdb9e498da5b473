//! What time does not heal is told at once, with the setting that solves it.

use std::time::Instant;

use greentic_worker::adapters::nats::ConnectError;
use greentic_worker::adapters::nats::config::StreamConfig;
use greentic_worker::model::Secret;

use super::*;
use crate::harness::RedisServer;

/// What a start with these limits of the account and these settings says.
async fn prepared(limits: &str, change: impl FnOnce(&mut Config)) -> String {
    let lines = format!(
        "accounts {{ A {{ jetstream {{ {limits} }}, users: [ {{ user: w, password: w }} ] }} }}"
    );
    let server = NatsServer::start_own_with(&lines).await;
    let mut config = Config {
        user: Some("w".to_owned()),
        password: Some(Secret::new("w")),
        ..config(&server)
    };
    change(&mut config);
    let nats = Nats::connect(&config, &env()).await.unwrap();
    let (one, two) = (tenant(), tenant());
    nats.prepare(&[one, two]).await.unwrap().to_string()
}

#[tokio::test]
async fn limits_of_the_account_name_the_setting_that_solves_them() {
    #[track_caller]
    fn check(said: &str, parts: &[&str]) {
        for part in parts {
            assert!(said.contains(part), "no {part} in {said}");
        }
    }
    let said = prepared(
        "max_file: 64M, max_mem: 64M, max_bytes_required: true",
        |_| {},
    )
    .await;
    check(
        &said,
        &[
            "GREENTIC_INBOUND",
            "`nats.inbound.max_bytes`",
            "`nats.deadletter.max_bytes`",
        ],
    );

    let sized = |max_bytes| {
        move |config: &mut Config| {
            for stream in [&mut config.inbound, &mut config.deadletter] {
                *stream = StreamConfig {
                    max_bytes: Some(max_bytes),
                    ..stream.clone()
                };
            }
            config.outbound.max_bytes = Some(max_bytes);
        }
    };
    let limits = "max_file: 64M, max_mem: 64M, max_bytes_required: true";
    assert_eq!(prepared(limits, sized(1024 * 1024)).await, "");

    let said = prepared("max_file: 3M, max_mem: 64M", sized(2 * 1024 * 1024)).await;
    check(&said, &["lower `nats.outbound.max_bytes`"]);

    let said = prepared("max_streams: 2", |_| {}).await;
    check(&said, &["GREENTIC_DEADLETTER", "`max_streams`"]);

    let said = prepared("max_consumers: 1", |_| {}).await;
    check(&said, &["consumer worker-", "`max_consumers`"]);

    let limits = "max_file: 64M, max_mem: 64M, disk_max_stream_bytes: 1M";
    let said = prepared(limits, sized(2 * 1024 * 1024)).await;
    check(&said, &["`nats.inbound.max_bytes`", "one stream"]);

    let said = prepared("", |config| config.inbound.replicas = 3).await;
    check(&said, &["set `nats.inbound.replicas` to 1"]);
}

#[tokio::test]
async fn an_account_without_jetstream() {
    let lines = "accounts { A { users: [ { user: w, password: w } ] } }";
    let server = NatsServer::start_own_with(lines).await;
    let config = Config {
        user: Some("w".to_owned()),
        password: Some(Secret::new("w")),
        ..config(&server)
    };
    let nats = Nats::connect(&config, &env()).await.unwrap();
    let said = nats.prepare(&[tenant()]).await.unwrap().to_string();
    assert!(said.contains("JetStream is off for this account"), "{said}");
}

/// What a start says of a user with these permissions, within the time for one answer.
async fn permitted(permissions: &str) -> (String, Vec<async_nats::Message>) {
    let lines = format!(
        "authorization {{ users: [ {{ user: admin, password: admin }},\n\
         {{ user: w, password: w, permissions: {{ {permissions} }} }} ] }}"
    );
    let server = NatsServer::start_own_with(&lines).await;
    let admin = async_nats::ConnectOptions::with_user_and_password("admin".into(), "admin".into());
    let admin = admin.connect(server.url()).await.unwrap();
    let mut seen = admin.subscribe("*.acme").await.unwrap();
    admin.flush().await.unwrap();
    let config = Config {
        user: Some("w".to_owned()),
        password: Some(Secret::new("w")),
        ..config(&server)
    };
    let nats = Nats::connect(&config, &env()).await.unwrap();
    let began = Instant::now();
    let tenants = ["acme", "beta"].map(|name| TenantId::new(name).unwrap());
    let said = nats.prepare(&tenants).await.unwrap().to_string();
    assert!(began.elapsed() < config.request_timeout, "{said}");
    admin.publish("end.acme", "".into()).await.unwrap();
    let mut messages = Vec::new();
    loop {
        let message = tokio::time::timeout(SOON, futures_util::StreamExt::next(&mut seen));
        let message = message.await.unwrap().unwrap();
        if message.subject.as_str() == "end.acme" {
            return (said, messages);
        }
        messages.push(message);
    }
}

#[tokio::test]
async fn permissions_that_are_missing() {
    let inbox = r#"subscribe: { allow: ["_INBOX.>"] }"#;
    for (publish, says) in [
        (
            r#""outbound.>", "deadletter.>""#,
            "error: stream GREENTIC_INBOUND: the NATS user may not publish to `$JS.API.STREAM.INFO.GREENTIC_INBOUND`",
        ),
        (
            r#""$JS.API.>", "outbound.>", "deadletter.acme""#,
            "warning: the NATS user may not publish to deadletter.beta",
        ),
        (
            r#""$JS.API.>", "$SYS.REQ.USER.INFO", "outbound.acme", "deadletter.>""#,
            "warning: the NATS user may not publish to outbound.beta",
        ),
        (
            r#""$JS.API.>", "outbound.acme""#,
            "error: the NATS user may not publish to deadletter.acme, deadletter.beta",
        ),
        (
            r#""$JS.API.STREAM.>", "$JS.API.CONSUMER.INFO.>", "outbound.>", "deadletter.>""#,
            "may not publish to `$JS.API.CONSUMER.CREATE.GREENTIC_INBOUND.worker-acme.inbound.acme`",
        ),
    ] {
        let permissions = format!("publish: {{ allow: [{publish}] }}, {inbox}");
        let (said, seen) = permitted(&permissions).await;
        assert!(
            said.contains(says) && said.contains("docs/nats.md"),
            "{says}: {said}"
        );
        assert!(seen.is_empty(), "to find out disturbs nobody: {seen:?}");
    }
    let enough = r#"publish: { allow: ["$JS.API.>", "outbound.>", "deadletter.>", "$JS.ACK.>"] }"#;
    let (said, seen) = permitted(&format!("{enough}, {inbox}")).await;
    assert_eq!((said.as_str(), seen.len()), ("", 0));
    let no_inbox = r#"publish: { allow: [">"] }, subscribe: { deny: [">"] }"#;
    let (said, _) = permitted(no_inbox).await;
    assert!(said.contains("may not subscribe to `_INBOX.>`"), "{said}");
}

#[tokio::test]
async fn servers_of_another_kind() {
    let redis = RedisServer::start_own().await;
    let http = greeter().await;
    for url in [redis.url().replace("redis:", "nats:"), http] {
        let config = Config {
            url,
            ..Config::default()
        };
        let began = Instant::now();
        let error = Nats::connect(&config, &env()).await.err().unwrap();
        assert!(began.elapsed() < config.connect_timeout * 2, "{error}");
        let text = error.to_string();
        let foreign = matches!(error, ConnectError::NotNats { .. });
        // A server that waits for its client to begin cannot be told from one that hangs.
        assert!(foreign || text.contains("says nothing"), "{error:?}");
    }
}

/// A server that greets in another language.
async fn greeter() -> String {
    use tokio::io::AsyncWriteExt;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let _gone = client.write_all(b"220 mail.example ESMTP\r\n").await;
            tokio::spawn(async move {
                tokio::time::sleep(SOON).await;
                drop(client);
            });
        }
    });
    url
}
