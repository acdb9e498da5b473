//! Replies and dead letters.

use async_nats::jetstream::stream::DiscardPolicy;
use bytes::Bytes;
use futures_util::future::try_join_all;
use greentic_worker::ports::{Destination, Publisher, RefusalReason, TransportError};

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
    let to = Destination::Outbound(&tenant);
    assert_eq!(nats.max_message_bytes(to), 10_000);
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

    // The stream was looked at for that.
    assert_eq!(nats.max_message_bytes(to), 1_000);
    let other = Destination::DeadLetter(&tenant);
    assert_eq!(nats.max_message_bytes(other), 10_000);

    nats.publish(to, &none, vec![b'x'; 900].into())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_full_stream_refuses_and_is_not_away() {
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
    let Err(TransportError::Refused(refusal)) = &last else {
        panic!("{last:?}");
    };
    assert_eq!(refusal.reason, RefusalReason::StreamFull);
    assert!(refusal.detail.contains("max_bytes"), "{refusal}");
}

/// Each of these is refused for another reason, and none of them means that the server is away.
#[tokio::test]
async fn refusals_are_told_apart() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    let provider = provider(&server).await;
    let to = Destination::Outbound(&tenant);
    let mut stream = provider.get_stream("GREENTIC_OUTBOUND").await.unwrap();
    let original = stream.info().await.unwrap().config.clone();
    let refused = async || match nats.publish(to, &headers(&[]), "x".into()).await {
        Err(TransportError::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    };

    let mut full = original.clone();
    full.discard = DiscardPolicy::New;
    full.max_messages_per_subject = 1;
    full.discard_new_per_subject = true;
    provider.update_stream(full.clone()).await.unwrap();
    nats.publish(to, &headers(&[]), "x".into()).await.unwrap();
    let refusal = refused().await;
    assert_eq!(refusal.reason, RefusalReason::SubjectFull);
    assert!(refusal.detail.contains(tenant.as_str()), "{refusal}");

    full.max_messages_per_subject = -1;
    full.discard_new_per_subject = false;
    full.max_messages = 1;
    provider.update_stream(full.clone()).await.unwrap();
    assert_eq!(refused().await.reason, RefusalReason::StreamFull);

    full.max_messages = -1;
    full.sealed = true;
    provider.update_stream(full).await.unwrap();
    assert_eq!(refused().await.reason, RefusalReason::StreamConfig);
}

#[tokio::test]
async fn what_nothing_acknowledges_is_refused_once_the_stream_was_looked_at() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let quick = Config {
        request_timeout: Duration::from_secs(2),
        ..config(&server)
    };
    let nats = nats(&quick, &tenant).await;
    let provider = provider(&server).await;
    let mut stream = provider.get_stream("GREENTIC_OUTBOUND").await.unwrap();
    let mut config = stream.info().await.unwrap().config.clone();
    config.subjects = vec!["outbound.other".to_owned()];
    provider.update_stream(config).await.unwrap();
    // Somebody listens, so the server does not say that nobody does.
    let _listener = plain(&server, &format!("outbound.{tenant}")).await;
    let to = Destination::Outbound(&tenant);
    let answer = nats.publish(to, &headers(&[]), "x".into()).await;
    let Err(TransportError::Refused(refusal)) = &answer else {
        panic!("{answer:?}");
    };
    assert_eq!(refusal.reason, RefusalReason::NoAnswer);
}

/// A subscription that is no stream's.
async fn plain(server: &NatsServer, subject: &str) -> (async_nats::Client, async_nats::Subscriber) {
    let client = async_nats::connect(server.url()).await.unwrap();
    let listener = client.subscribe(subject.to_owned()).await.unwrap();
    client.flush().await.unwrap();
    (client, listener)
}

#[tokio::test]
async fn a_deleted_stream_is_made_again_although_somebody_else_listens() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    let provider = provider(&server).await;
    for (to, name) in [
        (Destination::Outbound(&tenant), "GREENTIC_OUTBOUND"),
        (Destination::DeadLetter(&tenant), "GREENTIC_DEADLETTER"),
    ] {
        provider.delete_stream(name).await.unwrap();
        let subject = format!("{}.>", name.split_once('_').unwrap().1.to_lowercase());
        let _listener = plain(&server, &subject).await;
        let many = (0..50).map(async |n: u32| {
            let sent = headers(&[("Nats-Msg-Id", &n.to_string())]);
            nats.publish(to, &sent, Bytes::from("x")).await
        });
        let began = std::time::Instant::now();
        try_join_all(many).await.unwrap();
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(stored(&provider, name).await.0, 50);
    }
}

#[tokio::test]
async fn a_dead_letter_that_the_stream_takes_for_a_copy_is_really_there() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    let provider = provider(&server).await;
    let to = Destination::DeadLetter(&tenant);
    let sent = headers(&[("Nats-Msg-Id", "dead-1")]);
    let publish = async |body: &'static str| nats.publish(to, &sent, body.into()).await.unwrap();
    publish("one").await;
    publish("one").await;
    let (count, last) = stored(&provider, "GREENTIC_DEADLETTER").await;
    assert_eq!((count, &last.payload[..]), (1, &b"one"[..]), "a true copy");
    // Another message under the same id, as after the inbound stream began anew.
    publish("two").await;
    publish("two").await;
    let (count, last) = stored(&provider, "GREENTIC_DEADLETTER").await;
    assert_eq!((count, &last.payload[..]), (2, &b"two"[..]));
    // One that an operator has removed while its message was still to be settled.
    let stream = provider.get_stream("GREENTIC_DEADLETTER").await.unwrap();
    stream.delete_message(1).await.unwrap();
    publish("one").await;
    let (count, last) = stored(&provider, "GREENTIC_DEADLETTER").await;
    assert_eq!((count, &last.payload[..]), (2, &b"one"[..]));
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

#[tokio::test]
async fn replies_that_are_there_are_found_whatever_the_window_has_forgotten() {
    let server = NatsServer::start_own().await;
    let (tenant, other) = (super::tenant(), super::tenant());
    let config = Config {
        duplicate_window: Duration::from_millis(100),
        ..config(&server)
    };
    let nats = nats(&config, &tenant).await;
    let empty = nats.held(&tenant, &["t:0"], None).await.unwrap();
    assert_eq!(empty, [false]);
    // More than are asked for at once, others' between them.
    for n in 0..200 {
        for (tenant, name) in [(&tenant, "t"), (&other, "o")] {
            let sent = headers(&[("Nats-Msg-Id", &format!("{name}:{n}"))]);
            let to = Destination::Outbound(tenant);
            nats.publish(to, &sent, Bytes::from("x")).await.unwrap();
        }
    }
    let provider = provider(&server).await;
    let stream = provider.get_stream("GREENTIC_OUTBOUND").await.unwrap();
    assert!(stream.delete_message(3).await.unwrap());
    let ids = ["t:199", "t:1", "o:7", "t:0", "t:200"];
    let held = nats.held(&tenant, &ids, None).await.unwrap();
    assert_eq!(held, [true, false, false, true, false]);
    let since = stream.get_raw_message(1).await.unwrap().time;
    let held = nats.held(&tenant, &ids, Some(since)).await.unwrap();
    assert_eq!(held, [true, false, false, true, false]);
    let later = Some(since + Duration::from_secs(3_600));
    let held = nats.held(&tenant, &ids, later).await.unwrap();
    assert_eq!(held, [false; 5]);
}

#[tokio::test]
async fn what_is_too_late_is_not_sent() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    let to = Destination::Outbound(&tenant);
    assert_eq!(nats.duplicate_window(to), Some(Duration::from_secs(600)));
    for in_time in [false, true] {
        let sent = headers(&[("Nats-Msg-Id", "m")]);
        let ask = || in_time;
        let sending = nats.publish_in_time(to, &sent, Bytes::from("x"), &ask);
        assert_eq!(sending.await.unwrap(), in_time);
    }
    let (count, _) = stored(&provider(&server).await, "GREENTIC_OUTBOUND").await;
    assert_eq!(count, 1);
}
