//! Pulling and settling.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use greentic_worker::ports::{Delivery as _, Inbound};

use super::*;
use crate::harness::poll;

#[tokio::test]
async fn a_message_comes_with_tenant_headers_and_body() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    let mut sent = async_nats::HeaderMap::new();
    sent.append("Greentic-Flow-Id", "main");
    sent.append("a", "1");
    sent.append("a", "2");
    let provider = provider(&server).await;
    let stored = provider.publish_with_headers(format!("inbound.{tenant}"), sent, "hi".into());
    stored.await.unwrap().await.unwrap();

    let delivery = one(&nats, &tenant).await;
    let message = delivery.message();
    assert_eq!(message.tenant, tenant);
    assert_eq!(message.body, "hi");
    assert_eq!(message.sequence, Some(1));
    assert_eq!(delivery.delivered(), 1);
    assert_eq!(
        message.headers,
        headers(&[("Greentic-Flow-Id", "main"), ("a", "1"), ("a", "2")])
    );
}

#[tokio::test]
async fn a_batch_comes_in_order_and_no_larger_than_asked_for() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    let provider = provider(&server).await;
    provide(&provider, &tenant, &["1", "2", "3", "4", "5"]).await;
    assert_eq!(
        bodies(&pull(&nats, &tenant, 3, SOON).await),
        ["1", "2", "3"]
    );
    assert_eq!(bodies(&pull(&nats, &tenant, 2, SOON).await), ["4", "5"]);
    none(&nats, &tenant).await;
}

#[tokio::test]
async fn a_message_that_comes_while_a_pull_waits_is_taken_by_it() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    let provider = provider(&server).await;
    // Longer than two heartbeats, so a pull that is alive and idle is not taken for a stalled one.
    let mut waiting = nats.pull(&tenant, 2, Duration::from_secs(3)).await.unwrap();
    provide(&provider, &tenant, &["1"]).await;
    assert_eq!(body(&waiting.next().await.unwrap().unwrap()), "1");
    assert!(waiting.next().await.is_none());
}

#[tokio::test]
async fn tenants_do_not_see_each_other() {
    let server = NatsServer::start_own().await;
    let (ours, theirs) = (tenant(), tenant());
    let nats = nats(&config(&server), &ours).await;
    provide(&provider(&server).await, &theirs, &["theirs"]).await;
    none(&nats, &ours).await;
    // It waited in the stream for a worker that asks for its tenant.
    assert_eq!(body(&one(&nats, &theirs).await), "theirs");
}

#[tokio::test]
async fn an_ack_removes_the_message() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let config = Config {
        ack_wait: Duration::from_secs(1),
        ..config(&server)
    };
    let nats = nats(&config, &tenant).await;
    let provider = provider(&server).await;
    provide(&provider, &tenant, &["1"]).await;
    one(&nats, &tenant).await.ack().await.unwrap();
    let left = pull(&nats, &tenant, 1, Duration::from_secs(2)).await;
    assert!(left.is_empty(), "an acked message came again");
    let mut stream = provider.get_stream("GREENTIC_INBOUND").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 0);
}

#[tokio::test]
async fn what_nobody_settles_comes_again_and_says_so() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let config = Config {
        ack_wait: Duration::from_secs(1),
        ..config(&server)
    };
    let nats = nats(&config, &tenant).await;
    provide(&provider(&server).await, &tenant, &["1"]).await;
    drop(one(&nats, &tenant).await);
    let again = one(&nats, &tenant).await;
    assert_eq!((body(&again).as_str(), again.delivered()), ("1", 2));
    assert_eq!(again.message().sequence, Some(1));
}

#[tokio::test]
async fn what_is_handed_back_comes_after_the_delay_and_not_before() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    provide(&provider(&server).await, &tenant, &["1"]).await;
    let delay = Duration::from_millis(700);
    let handed_back = Instant::now();
    one(&nats, &tenant).await.hand_back(delay).await.unwrap();
    let again = one(&nats, &tenant).await;
    assert!(
        handed_back.elapsed() >= delay,
        "{:?}",
        handed_back.elapsed()
    );
    assert_eq!(again.delivered(), 2);
    again.hand_back(Duration::ZERO).await.unwrap();
    assert_eq!(one(&nats, &tenant).await.delivered(), 3);
}

#[tokio::test]
async fn progress_holds_off_redelivery() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    // Ten times as long as it is between two signs, should this process be held up.
    let config = Config {
        ack_wait: SHORTLY * 10,
        ..config(&server)
    };
    let nats = nats(&config, &tenant).await;
    provide(&provider(&server).await, &tenant, &["1"]).await;
    let delivery = one(&nats, &tenant).await;
    for _ in 0..15 {
        delivery.progress().await.unwrap();
        none(&nats, &tenant).await;
    }
    drop(delivery);
    assert_eq!(one(&nats, &tenant).await.delivered(), 2);
}

/// Waits until the server has sent this many messages of a tenant and they have arrived.
async fn all_sent(
    provider: &async_nats::jetstream::Context,
    nats: &Nats,
    tenant: &TenantId,
    count: u64,
) {
    let stream = provider.get_stream("GREENTIC_INBOUND").await.unwrap();
    let name = format!("worker-{}", tenant.as_str().replace('.', "="));
    let sent = poll(SOON, async || {
        let consumer = stream.consumer_info(&name).await.unwrap();
        (consumer.delivered.consumer_sequence >= count).then_some(())
    });
    sent.await.unwrap();
    // They come before the answer to a later question on the same connection.
    nats.prepare(std::slice::from_ref(tenant)).await.unwrap();
}

#[tokio::test]
async fn a_pull_that_is_given_up_hands_back_what_had_come() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    let provider = provider(&server).await;
    let mut given_up = nats.pull(&tenant, 5, SOON).await.unwrap();
    provide(&provider, &tenant, &["1", "2", "3"]).await;
    let taken = given_up.next().await.unwrap().unwrap();
    all_sent(&provider, &nats, &tenant, 3).await;
    drop(given_up);
    let again = pull(&nats, &tenant, 2, SOON).await;
    let mut came = bodies(&again);
    came.sort();
    assert_eq!(came, ["2", "3"]);
    assert!(again.iter().all(|delivery| delivery.delivered() == 2));
    // Nothing goes to the pull that is gone.
    provide(&provider, &tenant, &["4"]).await;
    let next = one(&nats, &tenant).await;
    assert_eq!((body(&next).as_str(), next.delivered()), ("4", 1));
    taken.ack().await.unwrap();
}

#[tokio::test]
async fn replicas_share_a_tenant() {
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let first = nats(&config(&server), &tenant).await;
    let second = nats(&config(&server), &tenant).await;
    let names: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    provide(&provider(&server).await, &tenant, &names).await;
    let (a, b) = tokio::join!(
        pull(&first, &tenant, 10, SOON),
        pull(&second, &tenant, 10, SOON)
    );
    let mut all = [bodies(&a), bodies(&b)].concat();
    all.sort_by_key(|body| body.parse::<u32>().unwrap());
    assert_eq!(all, names);
}

#[tokio::test]
async fn a_status_that_a_provider_sends_is_a_message_like_any_other() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    let address = server.url();
    let mut raw = tokio::net::TcpStream::connect(address.trim_start_matches("nats://"))
        .await
        .unwrap();
    let header = "NATS/1.0 503\r\n\r\n";
    let (len, all) = (header.len(), header.len() + 2);
    raw.write_all(
        format!(
            "CONNECT {{\"headers\":true,\"verbose\":false}}\r\n\
             HPUB inbound.{tenant} {len} {all}\r\n{header}hi\r\nPING\r\n"
        )
        .as_bytes(),
    )
    .await
    .unwrap();
    let mut said = vec![0; 4096];
    let _some = raw.read(&mut said).await.unwrap();
    assert_eq!(body(&one(&nats, &tenant).await), "hi");
}

#[tokio::test]
async fn closing_sends_the_acks_and_hands_back_the_rest() {
    // More than the client's queue holds at once.
    const MESSAGES: usize = 3_000;
    let server = NatsServer::start_own().await;
    let tenant = tenant();
    let nats = nats(&config(&server), &tenant).await;
    let provider = provider(&server).await;
    provide(&provider, &tenant, &["x"; MESSAGES]).await;
    let mut unread = nats.pull(&tenant, MESSAGES, SOON).await.unwrap();
    for _ in 0..2 {
        let delivery = unread.next().await.unwrap().unwrap();
        delivery.ack().await.unwrap();
    }
    all_sent(&provider, &nats, &tenant, MESSAGES as u64).await;
    drop(unread);
    nats.close(SOON).await.unwrap();
    let other = super::nats(&config(&server), &tenant).await;
    let came = pull(&other, &tenant, MESSAGES - 2, SOON).await;
    assert_eq!(came.len(), MESSAGES - 2);
    assert!(came.iter().all(|delivery| delivery.delivered() == 2));
}
