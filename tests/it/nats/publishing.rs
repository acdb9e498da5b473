//! Replies and dead letters.

use bytes::Bytes;
use futures_util::future::try_join_all;
use greentic_worker::ports::{Destination, Publisher, TransportError};

use super::*;

/// How many messages a stream holds, and the last of them.
async fn stored(
    provider: &async_nats::jetstream::Context,
    stream: &str,
) -> (u64, async_nats::jetstream::message::StreamMessage) {
    let mut stream = provider.get_stream(stream).await.unwrap();
    let state = stream.info().await.unwrap().state.clone();
    let last = stream.get_raw_message(state.last_sequence).await.unwrap();
    (state.messages, last)
}

#[tokio::test]
async fn messages_are_stored_where_they_belong() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    let provider = provider(&server).await;
    for (to, stream) in [
        (Destination::Outbound(&tenant), "GREENTIC_OUTBOUND"),
        (Destination::DeadLetter(&tenant), "GREENTIC_DEADLETTER"),
    ] {
        let sent = headers(&[("Nats-Msg-Id", "m1"), ("Greentic-Error", "a\nb")]);
        nats.publish(to, &sent, Bytes::from("body")).await.unwrap();
        let (count, last) = stored(&provider, stream).await;
        assert_eq!(count, 1);
        assert_eq!(last.payload, "body");
        assert!(last.subject.ends_with(&format!(".{tenant}")));
        assert_eq!(last.headers.get("Nats-Msg-Id").unwrap().as_str(), "m1");
        assert_eq!(last.headers.get("Greentic-Error").unwrap().as_str(), "a b");
    }
}

#[tokio::test]
async fn a_duplicate_is_success_and_stored_once() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    for _ in 0..3 {
        let sent = headers(&[("Nats-Msg-Id", "the-same")]);
        nats.publish(Destination::Outbound(&tenant), &sent, Bytes::from("x"))
            .await
            .unwrap();
    }
    let (count, _) = stored(&provider(&server).await, "GREENTIC_OUTBOUND").await;
    assert_eq!(count, 1);
}

#[tokio::test]
async fn what_is_too_large_is_told_apart_from_what_is_away() {
    let server = NatsServer::start_own_with("max_payload: 10000").await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    assert_eq!(nats.max_message_bytes(), 10_000);
    let to = Destination::Outbound(&tenant);
    let none = headers(&[]);

    let refused = nats.publish(to, &none, vec![b'x'; 10_001].into()).await;
    assert!(
        matches!(refused, Err(TransportError::TooLarge(_))),
        "{refused:?}"
    );

    // Smaller than the server's limit, larger than the stream's.
    let provider = provider(&server).await;
    let mut stream = provider.get_stream("GREENTIC_OUTBOUND").await.unwrap();
    let mut config = stream.info().await.unwrap().config.clone();
    config.max_message_size = 1_000;
    provider.update_stream(config).await.unwrap();
    let refused = nats.publish(to, &none, vec![b'x'; 2_000].into()).await;
    assert!(
        matches!(refused, Err(TransportError::TooLarge(_))),
        "{refused:?}"
    );

    nats.publish(to, &none, vec![b'x'; 900].into())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_full_stream_is_unavailable_not_too_large() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let mut config = config(&server);
    config.deadletter.max_bytes = Some(2_000);
    let nats = nats(&config, &tenant).await;
    let to = Destination::DeadLetter(&tenant);
    let mut last = Ok(());
    for _ in 0..3 {
        last = nats
            .publish(to, &headers(&[]), vec![b'x'; 900].into())
            .await;
    }
    assert!(
        matches!(last, Err(TransportError::Unavailable(_))),
        "{last:?}"
    );
}

#[tokio::test]
async fn orders_in_the_headers_of_a_dead_letter_are_not_obeyed() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    let original = headers(&[
        ("Nats-Msg-Id", "dead-1"),
        ("Nats-Expected-Stream", "GREENTIC_INBOUND"),
        ("Nats-Expected-Last-Sequence", "77"),
    ]);
    nats.publish(
        Destination::DeadLetter(&tenant),
        &original,
        Bytes::from("x"),
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn many_publishes_share_the_connection() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    // The last one waits for all others.
    let patient = Config {
        request_timeout: SOON * 3,
        ..config(&server)
    };
    let nats = nats(&patient, &tenant).await;
    let sent: Vec<_> = (0..2_000)
        .map(|n| headers(&[("Nats-Msg-Id", &n.to_string())]))
        .collect();
    let to = Destination::Outbound(&tenant);
    try_join_all(
        sent.iter()
            .map(|headers| nats.publish(to, headers, Bytes::from("x"))),
    )
    .await
    .unwrap();
    let (count, _) = stored(&provider(&server).await, "GREENTIC_OUTBOUND").await;
    assert_eq!(count, 2_000);
}
