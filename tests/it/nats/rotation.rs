//! Credentials that change while the worker runs.

use std::time::{Duration, SystemTime};

use super::keys::{Jwts, user_key};
use super::*;
use crate::harness::poll;

/// Waits until the connection is lost and then is back, which `mend` brings about.
async fn comes_back(nats: &Nats, mend: impl FnOnce()) {
    let lost = poll(SOON, async || (!nats.is_connected()).then_some(())).await;
    assert!(lost.is_some(), "the server takes the old credentials");
    mend();
    let back = poll(SOON, async || nats.is_connected().then_some(())).await;
    assert!(back.is_some(), "the new credentials are not found");
}

#[tokio::test]
async fn user_and_password_from_files() {
    let lines = |user: &str, password: &str| {
        format!("authorization {{ user: {user}, password: {password} }}")
    };
    let server = NatsServer::start_own_with(&lines("one", "first")).await;
    let dir = tempfile::tempdir().unwrap();
    let (user, password) = (dir.path().join("user"), dir.path().join("password"));
    std::fs::write(&user, "one\n").unwrap();
    std::fs::write(&password, "first\r\n").unwrap();
    let config = Config {
        user_file: Some(user.clone()),
        password_file: Some(password.clone()),
        ..config(&server)
    };
    assert!(config.validate().is_empty());
    let tenant = tenant();
    let nats = nats(&config, &tenant).await;
    server.configure(&lines("two", "second"));
    comes_back(&nats, || {
        std::fs::write(&user, "two\n").unwrap();
        std::fs::write(&password, "second\n").unwrap();
    })
    .await;
    none(&nats, &tenant).await;
}

#[tokio::test]
async fn tokens_from_a_file() {
    let lines = |token: &str| format!("authorization {{ token: {token} }}");
    let server = NatsServer::start_own_with(&lines("first")).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let config = Config {
        token_file: Some(file.clone()),
        ..config(&server)
    };
    assert!(config.validate().is_empty());
    let nats = Nats::connect(&config, &env()).await.unwrap();
    server.configure(&lines("second"));
    comes_back(&nats, || std::fs::write(&file, "second\n").unwrap()).await;
}

#[tokio::test]
async fn nkeys_from_a_file() {
    let (first, second) = (user_key(), user_key());
    let lines = |key: &nkeys::KeyPair| {
        format!(
            "authorization {{ users: [ {{ nkey: {} }} ] }}",
            key.public_key()
        )
    };
    let server = NatsServer::start_own_with(&lines(&first)).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("seed");
    std::fs::write(&file, first.seed().unwrap()).unwrap();
    let config = Config {
        nkey_seed_file: Some(file.clone()),
        ..config(&server)
    };
    let nats = Nats::connect(&config, &env()).await.unwrap();
    server.configure(&lines(&second));
    comes_back(&nats, || {
        std::fs::write(&file, second.seed().unwrap()).unwrap()
    })
    .await;
}

#[tokio::test]
async fn credentials_files_whose_user_expires() {
    let jwts = Jwts::new();
    let server = NatsServer::start_own_with(&jwts.server_lines()).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("worker.creds");
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    std::fs::write(&file, jwts.credentials_until(now + 3)).unwrap();
    let config = Config {
        creds_file: Some(file.clone()),
        ..config(&server)
    };
    let nats = Nats::connect(&config, &env()).await.unwrap();
    comes_back(&nats, || {
        std::fs::write(&file, jwts.credentials_until(now + 3600)).unwrap();
    })
    .await;
    // It stays: the user that expired would be sent away again.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(nats.is_connected());
}

#[tokio::test]
async fn a_value_and_its_file_are_not_given_both() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("secret");
    std::fs::write(&file, "x").unwrap();
    let both = Config {
        token: Some(greentic_worker::model::Secret::new("t")),
        token_file: Some(file),
        ..Config::default()
    };
    let said = both.validate().to_string();
    assert!(
        said.contains("`token` and `token_file` are both given"),
        "{said}"
    );
}
