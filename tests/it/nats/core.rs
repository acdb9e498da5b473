//! A server without JetStream.

use std::time::Instant;

use bytes::Bytes;
use greentic_worker::adapters::nats::config::DeliveryMode;
use greentic_worker::ports::{Destination, Publisher};

use super::*;
use crate::harness::poll;

async fn started(tenant: &TenantId) -> (NatsServer, Nats, async_nats::Client) {
    let server = NatsServer::start_without_jetstream().await;
    let nats = nats(&config(&server), tenant).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    subscribed(&nats, &client, tenant).await;
    (server, nats, client)
}

/// Has a tenant's messages subscribed to. What is sent before the server knows of it is lost, so it is tried out.
async fn subscribed(nats: &Nats, client: &async_nats::Client, tenant: &TenantId) {
    let heard = poll(SOON, async || {
        send(client, tenant, &["heard?"]).await;
        let came = pull(nats, tenant, 1, SHORTLY).await;
        came.into_iter().next()
    });
    let mut delivery = heard.await.expect("it is subscribed to");
    send(client, tenant, &["heard!"]).await;
    while body(&delivery) != "heard!" {
        delivery.ack().await.unwrap();
        delivery = one(nats, tenant).await;
    }
    delivery.ack().await.unwrap();
}

fn config(server: &NatsServer) -> Config {
    Config {
        delivery: DeliveryMode::Core,
        ack_wait: Duration::from_secs(1),
        ..super::config(server)
    }
}

async fn send(client: &async_nats::Client, tenant: &TenantId, bodies: &[&str]) {
    for body in bodies {
        let subject = format!("inbound.{tenant}");
        client
            .publish(subject, body.to_string().into())
            .await
            .unwrap();
    }
    client.flush().await.unwrap();
}

#[tokio::test]
async fn messages_come_and_go_without_jetstream() {
    let tenant = tenant();
    let (_server, nats, client) = started(&tenant).await;
    send(&client, &tenant, &["1", "2", "3"]).await;
    let came = pull(&nats, &tenant, 2, SOON).await;
    assert_eq!(bodies(&came), ["1", "2"]);
    assert_eq!(came[0].message().tenant, tenant);
    for delivery in came {
        delivery.progress().await.unwrap();
        delivery.ack().await.unwrap();
    }
    assert_eq!(body(&one(&nats, &tenant).await), "3");
    none(&nats, &tenant).await;
}

#[tokio::test]
async fn what_is_handed_back_or_dropped_comes_again_while_the_process_lives() {
    let tenant = tenant();
    let (_server, nats, client) = started(&tenant).await;
    send(&client, &tenant, &["1"]).await;
    let start = Instant::now();
    let delay = Duration::from_millis(400);
    one(&nats, &tenant).await.hand_back(delay).await.unwrap();
    let again = one(&nats, &tenant).await;
    assert!(start.elapsed() >= delay);
    assert_eq!(again.delivered(), 2);
    drop(again);
    let again = one(&nats, &tenant).await;
    assert!(start.elapsed() >= delay + config(&_server).ack_wait);
    assert_eq!(again.delivered(), 3);
    again.ack().await.unwrap();
    none(&nats, &tenant).await;
}

#[tokio::test]
async fn replicas_share_a_queue() {
    let tenant = tenant();
    let (server, first, client) = started(&tenant).await;
    let second = nats(&config(&server), &tenant).await;
    none(&second, &tenant).await;
    let names: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    send(&client, &tenant, &names).await;
    let (a, b) = (
        first.pull(&tenant, 50, SOON).await.unwrap(),
        second.pull(&tenant, 50, SOON).await.unwrap(),
    );
    let mut both = futures_util::stream::select(a, b);
    let mut all = Vec::new();
    for _ in &names {
        let delivery = both.next().await.expect("all of them come").unwrap();
        all.push(body(&delivery));
        delivery.ack().await.unwrap();
    }
    drop(both);
    all.sort_by_key(|body| body.parse::<u32>().unwrap());
    assert_eq!(all, names);
    none(&first, &tenant).await;
    none(&second, &tenant).await;
}

#[tokio::test]
async fn replies_are_published_without_an_ack() {
    let tenant = tenant();
    let (_server, nats, client) = started(&tenant).await;
    let mut replies = client.subscribe("outbound.>").await.unwrap();
    // Its refusal shows that the server has dealt with the subscription.
    client.request("nobody", Bytes::new()).await.unwrap_err();
    let sent = headers(&[("Nats-Msg-Id", "1")]);
    nats.publish(Destination::Outbound(&tenant), &sent, Bytes::from("x"))
        .await
        .unwrap();
    let reply = tokio::time::timeout(SOON, replies.next()).await.unwrap();
    let reply = reply.unwrap();
    assert_eq!(reply.subject.as_str(), format!("outbound.{tenant}"));
    assert_eq!(
        reply.headers.unwrap().get("Nats-Msg-Id").unwrap().as_str(),
        "1"
    );
}

#[tokio::test]
async fn two_pulls_of_a_tenant_take_turns() {
    let tenant = tenant();
    let (_server, nats, client) = started(&tenant).await;
    let mut first = nats.pull(&tenant, 1, SOON).await.unwrap();
    none(&nats, &tenant).await;
    send(&client, &tenant, &["1"]).await;
    let delivery = first.next().await.unwrap().unwrap();
    delivery.ack().await.unwrap();
}
