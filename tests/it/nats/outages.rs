//! Streams that vanish, servers that stop, stall and come back.

use bytes::Bytes;
use greentic_worker::adapters::nats::config::Storage;
use greentic_worker::ports::{Destination, Publisher};

use super::*;

/// Pulls, over and over as the worker does, until there is a message.
async fn eventually(nats: &Nats, tenant: &TenantId) -> Delivery {
    let trying = async {
        loop {
            if let Ok(mut pull) = nats.pull(tenant, 1, Duration::from_secs(1)).await
                && let Some(Ok(delivery)) = pull.next().await
            {
                return delivery;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON * 2, trying).await.unwrap()
}

#[tokio::test]
async fn a_stream_that_was_deleted_is_made_again() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    let provider = provider(&server).await;
    let mut waiting = nats.pull(&tenant, 1, SOON).await.unwrap();
    for stream in ["GREENTIC_INBOUND", "GREENTIC_OUTBOUND"] {
        provider.delete_stream(stream).await.unwrap();
    }
    // The pull that waited is told, the next one finds everything in place.
    assert!(waiting.next().await.unwrap().is_err());
    none(&nats, &tenant).await;
    provide(&provider, &tenant, &["after"]).await;
    assert_eq!(body(&one(&nats, &tenant).await), "after");
    let sent = headers(&[("Nats-Msg-Id", "1")]);
    nats.publish(Destination::Outbound(&tenant), &sent, Bytes::from("x"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_consumer_that_was_deleted_is_made_again_and_loses_nothing() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    let provider = provider(&server).await;
    none(&nats, &tenant).await;
    let stream = provider.get_stream("GREENTIC_INBOUND").await.unwrap();
    let name = format!("worker-{}", tenant.as_str().replace('.', "="));
    stream.delete_consumer(&name).await.unwrap();
    provide(&provider, &tenant, &["kept"]).await;
    assert_eq!(body(&eventually(&nats, &tenant).await), "kept");
}

#[tokio::test]
async fn a_restart_of_the_server_loses_nothing() {
    let mut server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    let ahead = provider(&server).await;
    provide(&ahead, &tenant, &["1", "2"]).await;
    let first = one(&nats, &tenant).await;

    server.stop().await;
    let publish = async {
        let sent = headers(&[("Nats-Msg-Id", "reply")]);
        let to = Destination::Outbound(&tenant);
        nats.publish(to, &sent, Bytes::from("x")).await
    };
    let restart = async {
        // A publish that begins while the server is away is stored when it is back.
        tokio::time::sleep(Duration::from_millis(200)).await;
        assert!(!nats.is_connected());
        server.start_again().await;
    };
    let (published, ()) = tokio::join!(publish, restart);
    published.unwrap();

    // The ack of a delivery from before counts.
    first.ack().await.unwrap();
    let second = eventually(&nats, &tenant).await;
    assert_eq!(body(&second), "2");
    assert!(nats.is_connected());
    second.ack().await.unwrap();
    none(&nats, &tenant).await;
}

#[tokio::test]
async fn a_publish_whose_answer_was_lost_is_made_again_and_stored_once() {
    let mut server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    server.pause();
    let sent = headers(&[("Nats-Msg-Id", "1")]);
    let publish = nats.publish(Destination::Outbound(&tenant), &sent, Bytes::from("x"));
    let restart = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.kill().await;
        server.start_again().await;
    };
    let (published, ()) = tokio::join!(publish, restart);
    published.unwrap();
    let mut stream = provider(&server)
        .await
        .get_stream("GREENTIC_OUTBOUND")
        .await
        .unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 1);
}

#[tokio::test]
async fn memory_streams_are_made_again_after_a_restart() {
    let mut server = NatsServer::start_own().await;
    let tenant = tenant();
    let mut config = config(&server);
    for stream in [&mut config.inbound, &mut config.deadletter] {
        stream.storage = Storage::Memory;
    }
    config.outbound.storage = Storage::Memory;
    let nats = nats(&config, &tenant).await;
    none(&nats, &tenant).await;
    server.stop().await;
    server.start_again().await;
    let sent = headers(&[("Nats-Msg-Id", "1")]);
    nats.publish(Destination::Outbound(&tenant), &sent, Bytes::from("x"))
        .await
        .unwrap();
    let waiting = eventually(&nats, &tenant);
    let provide = async {
        let provider = provider(&server).await;
        while provider.get_stream("GREENTIC_INBOUND").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        provide(&provider, &tenant, &["new"]).await;
    };
    let (came, ()) = tokio::join!(waiting, provide);
    assert_eq!(body(&came), "new");
}

#[tokio::test]
async fn a_pull_ends_when_the_connection_does() {
    let mut server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    let mut waiting = nats
        .pull(&tenant, 1, Duration::from_secs(3_600))
        .await
        .unwrap();
    server.stop().await;
    let end = tokio::time::timeout(SOON, waiting.next()).await.unwrap();
    assert!(end.unwrap().is_err());
}

/// nats-server 2.9.10 leaves some pulls without an end, as this one does with all of them.
#[tokio::test]
async fn a_short_pull_is_over_when_its_time_is_whether_or_not_the_server_says_so() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    let wait = Duration::from_millis(50);
    let mut unsaid = nats.pull(&tenant, 2, wait).await.unwrap();
    server.pause();
    let end = tokio::time::timeout(SOON, unsaid.next()).await;
    server.resume();
    assert!(end.unwrap().is_none());
    provide(&provider(&server).await, &tenant, &["1"]).await;
    assert_eq!(body(&one(&nats, &tenant).await), "1");
}

#[tokio::test]
async fn a_server_that_hangs_stalls_neither_pull_nor_publish_nor_ack() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let config = Config {
        request_timeout: Duration::from_secs(2),
        ..config(&server)
    };
    let nats = nats(&config, &tenant).await;
    provide(&provider(&server).await, &tenant, &["1"]).await;
    let delivery = one(&nats, &tenant).await;
    let mut waiting = nats.pull(&tenant, 1, Duration::from_secs(2)).await.unwrap();
    server.pause();
    let sent = headers(&[("Nats-Msg-Id", "1")]);
    let to = Destination::Outbound(&tenant);
    let published = nats.publish(to, &sent, Bytes::from("x")).await;
    let acked = tokio::time::timeout(SOON, delivery.ack()).await;
    let pulled = tokio::time::timeout(SOON, waiting.next()).await;
    server.resume();
    assert!(published.is_err());
    acked.unwrap().unwrap();
    assert!(pulled.unwrap().unwrap().is_err());
    nats.publish(to, &sent, Bytes::from("x")).await.unwrap();
}
