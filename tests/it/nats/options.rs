//! Options of a connection that some installations cannot do without.

use bytes::Bytes;
use greentic_worker::adapters::nats::config::{DeliveryMode, JetStream, Tls};
use greentic_worker::model::Secret;
use greentic_worker::ports::{Destination, Publisher};

use super::*;
use crate::harness::certificate;

/// A message in, handed back, in again, acked; a reply out.
async fn works(nats: &Nats, provider: &async_nats::Client, tenant: &TenantId) {
    none(nats, tenant).await;
    let subject = format!("inbound.{tenant}");
    provider.publish(subject, "hi".into()).await.unwrap();
    let delivery = one(nats, tenant).await;
    delivery.hand_back(Duration::ZERO).await.unwrap();
    let again = one(nats, tenant).await;
    assert_eq!(again.delivered(), 2);
    again.ack().await.unwrap();
    let sent = headers(&[("Nats-Msg-Id", "1")]);
    let to = Destination::Outbound(tenant);
    nats.publish(to, &sent, Bytes::from("x")).await.unwrap();
    none(nats, tenant).await;
}

#[tokio::test]
async fn inboxes_of_its_own() {
    let lines = r#"authorization { users: [
        { user: admin, password: admin },
        { user: worker, password: worker, permissions: { publish: ">", subscribe: "_INBOX_worker.>" } }
    ] }"#;
    let server = NatsServer::start_own_with(lines).await;
    let tenant = tenant();
    let own = Config {
        user: Some("worker".to_owned()),
        password: Some(Secret::new("worker")),
        inbox_prefix: Some("_INBOX_worker".to_owned()),
        ..config(&server)
    };
    assert!(own.validate().is_empty());
    let nats = nats(&own, &tenant).await;
    let admin = async_nats::ConnectOptions::with_user_and_password("admin".into(), "admin".into());
    let admin = admin.connect(server.url()).await.unwrap();
    works(&nats, &admin, &tenant).await;

    let shared = Config {
        inbox_prefix: None,
        ..own
    };
    let began = std::time::Instant::now();
    let nats = Nats::connect(&shared, &env()).await.unwrap();
    let said = nats.prepare(&[tenant]).await.unwrap().to_string();
    assert!(began.elapsed() < shared.request_timeout, "at once");
    assert!(
        said.contains("`_INBOX.>`") && said.contains("nats.inbox_prefix"),
        "{said}"
    );
}

/// A hub with JetStream, and a leaf node without it that the worker connects to.
#[tokio::test]
async fn jetstream_of_another_domain() {
    let leaves = crate::harness::free_port().unwrap();
    let lines = format!("leafnodes {{ listen: \"127.0.0.1:{leaves}\" }}");
    let hub = NatsServer::start_with_jetstream("domain: hub", &lines).await;
    let leaf = NatsServer::start_without_jetstream_with(&format!(
        "leafnodes {{ remotes: [ {{ url: \"nats://127.0.0.1:{leaves}\" }} ] }}"
    ))
    .await;
    let tenant = tenant();
    let provider = async_nats::connect(hub.url()).await.unwrap();
    for (jetstream, url) in [
        (("hub", None), leaf.url()),
        (("hub", None), hub.url()),
        (("", Some("$JS.hub.API")), leaf.url()),
    ] {
        let config = Config {
            url,
            jetstream: JetStream {
                domain: (!jetstream.0.is_empty()).then(|| jetstream.0.to_owned()),
                api_prefix: jetstream.1.map(str::to_owned),
            },
            ..Config::default()
        };
        assert!(config.validate().is_empty());
        // The leaf may have to find its hub first.
        let ready = crate::harness::poll(SOON, async || {
            let nats = Nats::connect(&config, &env()).await.unwrap();
            let problems = nats.prepare(std::slice::from_ref(&tenant)).await;
            problems
                .is_ok_and(|problems| problems.is_empty())
                .then_some(nats)
        });
        let nats = ready.await.expect("JetStream of the hub");
        works(&nats, &provider, &tenant).await;
        nats.close(SOON).await.unwrap();
    }
    let wrong = Config {
        url: leaf.url(),
        jetstream: JetStream {
            domain: Some("nope".to_owned()),
            api_prefix: None,
        },
        ..Config::default()
    };
    let nats = Nats::connect(&wrong, &env()).await.unwrap();
    let said = nats.prepare(&[tenant]).await.unwrap().to_string();
    assert!(
        said.contains("`$JS.nope.API`") && said.contains("nats.jetstream.domain"),
        "{said}"
    );
}

#[tokio::test]
async fn tls_before_anything_else() {
    let dir = tempfile::tempdir().unwrap();
    let (cert, key) = certificate(dir.path(), "server");
    let lines = format!("tls {{ cert_file: {cert:?}, key_file: {key:?}, handshake_first: true }}");
    let Ok(server) = NatsServer::try_start_with_tls_first(&lines).await else {
        // nats-server has it from 2.10.4 on.
        return;
    };
    let first = Config {
        tls: Tls {
            required: true,
            handshake_first: true,
            ca_file: Some(cert),
            ..Tls::default()
        },
        ..config(&server)
    };
    Nats::connect(&first, &env()).await.unwrap();
    let later = Config {
        connect_timeout: Duration::from_secs(1),
        tls: Tls {
            handshake_first: false,
            ..first.tls.clone()
        },
        ..first
    };
    let said = Nats::connect(&later, &env())
        .await
        .err()
        .unwrap()
        .to_string();
    assert!(said.contains("nats.tls.handshake_first"), "{said}");
}

/// Two servers of one cluster, which tell clients of each other.
#[tokio::test]
async fn servers_that_a_server_tells_of() {
    let routes = [(); 2].map(|()| crate::harness::free_port().unwrap());
    let lines = |own: usize| {
        let (own, other) = (routes[own], routes[1 - own]);
        format!(
            "cluster {{ name: c, listen: \"127.0.0.1:{own}\", routes: [ \"nats://127.0.0.1:{other}\" ] }}"
        )
    };
    let mut first = NatsServer::start_without_jetstream_with(&lines(0)).await;
    let _second = NatsServer::start_without_jetstream_with(&lines(1)).await;
    let known = crate::harness::poll(SOON, async || {
        let client = async_nats::connect(first.url()).await.ok()?;
        (client.server_info().connect_urls.len() == 2).then_some(())
    });
    assert!(known.await.is_some(), "they find each other");
    let all = Config {
        delivery: DeliveryMode::Core,
        retain_servers_order: true,
        ..config(&first)
    };
    let only = Config {
        ignore_discovered_servers: true,
        ..all.clone()
    };
    let (all, only) = (
        Nats::connect(&all, &env()).await.unwrap(),
        Nats::connect(&only, &env()).await.unwrap(),
    );
    first.stop().await;
    let gone = crate::harness::poll(SOON, async || (!only.is_connected()).then_some(()));
    assert!(gone.await.is_some());
    let moved = crate::harness::poll(SOON, async || all.is_connected().then_some(()));
    assert!(moved.await.is_some(), "the second one is there");
    assert!(!only.is_connected(), "it is not for this worker");
}
