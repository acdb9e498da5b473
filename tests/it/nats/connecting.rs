//! Ways in, and what is said when there is none.

use std::time::Instant;

use greentic_worker::adapters::nats::ConnectError;
use greentic_worker::adapters::nats::config::Tls;
use greentic_worker::model::Secret;

use super::keys::{Jwts, user_key};
use super::*;
use crate::harness::certificate;

fn secret(value: &str) -> Option<Secret> {
    Some(Secret::new(value))
}

async fn connects(config: &Config) {
    let nats = Nats::connect(config, &env()).await.unwrap();
    assert!(nats.is_connected());
    nats.close(SOON).await.unwrap();
    assert!(!nats.is_connected());
}

async fn refused(config: &Config, expected: &[&str]) {
    let error = Nats::connect(config, &env())
        .await
        .err()
        .expect("it is refused");
    assert!(matches!(error, ConnectError::Refused { .. }), "{error:?}");
    let text = error.to_string();
    for part in expected {
        assert!(text.contains(part), "{text}");
    }
}

#[tokio::test]
async fn user_and_password() {
    let server = NatsServer::start_own_with(r#"authorization { user: ada, password: "s3" }"#).await;
    let config = Config {
        user: Some("ada".to_owned()),
        password: secret("s3"),
        ..config(&server)
    };
    connects(&config).await;
    let wrong = Config {
        password: secret("s4"),
        ..config.clone()
    };
    let start = Instant::now();
    refused(&wrong, &[&server.url(), "the user and password"]).await;
    assert!(
        start.elapsed() < config.connect_timeout,
        "it is not tried again"
    );
    let none = super::config(&server);
    refused(&none, &["a client without credentials"]).await;
}

#[tokio::test]
async fn token() {
    let server = NatsServer::start_own_with(r#"authorization { token: "t0" }"#).await;
    let config = Config {
        token: secret("t0"),
        ..config(&server)
    };
    connects(&config).await;
    let wrong = Config {
        token: secret("t1"),
        ..config
    };
    refused(&wrong, &["the token"]).await;
}

#[tokio::test]
async fn nkey() {
    let user = user_key();
    let lines = format!(
        "authorization {{ users: [ {{ nkey: {} }} ] }}",
        user.public_key()
    );
    let server = NatsServer::start_own_with(&lines).await;
    let seed = user.seed().unwrap();
    let given = Config {
        nkey_seed: secret(&seed),
        ..config(&server)
    };
    connects(&given).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seed");
    std::fs::write(&file, format!("{seed}\n")).unwrap();
    let in_file = Config {
        nkey_seed_file: Some(file),
        ..config(&server)
    };
    connects(&in_file).await;
    for wrong in [user_key().seed().unwrap(), "no seed".to_owned()] {
        let wrong = Config {
            nkey_seed: secret(&wrong),
            ..config(&server)
        };
        refused(&wrong, &["the nkey"]).await;
    }
}

#[tokio::test]
async fn credentials_file() {
    let jwts = Jwts::new();
    let server = NatsServer::start_own_with(&jwts.server_lines()).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("worker.creds");
    std::fs::write(&file, jwts.credentials()).unwrap();
    let given = Config {
        creds_file: Some(file.clone()),
        ..config(&server)
    };
    connects(&given).await;
    let _prepared = nats(&given, &tenant()).await;
    std::fs::write(&file, Jwts::new().credentials()).unwrap();
    refused(&given, &["the credentials file"]).await;
    std::fs::write(&file, "nothing").unwrap();
    let error = Nats::connect(&given, &env()).await.err().unwrap();
    assert!(matches!(error, ConnectError::Credentials(_)), "{error:?}");
    assert!(error.to_string().contains("worker.creds"), "{error}");
}

#[tokio::test]
async fn tls_both_ways() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path(), "server");
    let (other, other_key) = certificate(dir.path(), "other");
    let lines = format!(
        "tls {{ cert_file: {cert:?}, key_file: {key:?}, ca_file: {cert:?}, verify: true }}"
    );
    let server = NatsServer::start_own_with(&lines).await;
    let mutual = Config {
        tls: Tls {
            required: true,
            handshake_first: false,
            ca_file: Some(cert.clone()),
            cert_file: Some(cert.clone()),
            key_file: Some(key.clone()),
        },
        ..config(&server)
    };
    assert!(mutual.validate().is_empty());
    connects(&mutual).await;

    let distrusted = Config {
        tls: Tls {
            ca_file: Some(other.clone()),
            ..mutual.tls.clone()
        },
        ..mutual.clone()
    };
    let error = Nats::connect(&distrusted, &env()).await.err().unwrap();
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");

    let unknown = Config {
        connect_timeout: Duration::from_secs(1),
        tls: Tls {
            cert_file: Some(other),
            key_file: Some(other_key),
            ..mutual.tls.clone()
        },
        ..mutual
    };
    assert!(Nats::connect(&unknown, &env()).await.is_err());
}

#[tokio::test]
async fn tls_is_not_pretended() {
    let server = NatsServer::start_own().await;
    let config = Config {
        connect_timeout: Duration::from_secs(1),
        tls: Tls {
            required: true,
            ..Tls::default()
        },
        ..config(&server)
    };
    assert!(Nats::connect(&config, &env()).await.is_err());
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for_and_then_told() {
    let mut server = NatsServer::start_own().await;
    server.stop().await;
    let config = Config {
        connect_timeout: Duration::from_millis(700),
        ..config(&server)
    };
    let start = Instant::now();
    let error = Nats::connect(&config, &env()).await.err().unwrap();
    assert!(start.elapsed() >= config.connect_timeout);
    assert!(
        matches!(error, ConnectError::Unreachable { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains(&server.url()), "{error}");
    assert!(error.to_string().contains("nats.url"), "{error}");

    let patient = Config {
        connect_timeout: SOON,
        ..config
    };
    let env = env();
    let (nats, ()) = tokio::join!(Nats::connect(&patient, &env), async {
        tokio::time::sleep(SHORTLY).await;
        server.start_again().await;
    });
    assert!(nats.unwrap().is_connected());
}

#[tokio::test]
async fn one_of_several_servers_is_enough() {
    let mut away = NatsServer::start_own().await;
    away.stop().await;
    let server = NatsServer::start_own().await;
    let config = Config {
        url: format!("{}, {}", away.url(), server.url()),
        ..Config::default()
    };
    connects(&config).await;
}
