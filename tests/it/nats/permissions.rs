//! Accounts that may do what docs/nats.md says a worker needs, and nothing else.

use bytes::Bytes;
use greentic_worker::adapters::nats::config::{DeliveryMode, Provision};
use greentic_worker::model::Secret;
use greentic_worker::ports::{Destination, Publisher};

use super::*;

/// What docs/nats.md lists between two of its headings, as the lines of a code block.
fn documented(heading: &str) -> String {
    let text = include_str!("../../../docs/nats.md");
    let section = text.split(heading).nth(1).expect("the heading is there");
    let block = section.split("```").nth(1).expect("a block follows");
    block.split_once('\n').unwrap().1.to_owned()
}

async fn server(permissions: &str) -> NatsServer {
    let lines = format!(
        "authorization {{ users: [\n{{ user: admin, password: admin }}\n\
         {{ user: worker, password: worker, permissions: {{\n{permissions}\n}} }}\n] }}"
    );
    NatsServer::start_own_with(&lines).await
}

fn config(server: &NatsServer, user: &str) -> Config {
    Config {
        user: Some(user.to_owned()),
        password: Some(Secret::new(user)),
        ..super::config(server)
    }
}

async fn admin(server: &NatsServer) -> async_nats::Client {
    let options =
        async_nats::ConnectOptions::with_user_and_password("admin".to_owned(), "admin".to_owned());
    options.connect(server.url()).await.unwrap()
}

/// A message in, handed back, in again, acked; a reply and a dead letter out.
async fn works(nats: &Nats, provider: &async_nats::Client, tenant: &TenantId) {
    none(nats, tenant).await;
    let subject = format!("inbound.{tenant}");
    provider.publish(subject, "hi".into()).await.unwrap();
    let delivery = one(nats, tenant).await;
    delivery.progress().await.unwrap();
    delivery.hand_back(Duration::ZERO).await.unwrap();
    let again = one(nats, tenant).await;
    assert_eq!(again.delivered(), 2);
    again.ack().await.unwrap();
    for to in [
        Destination::Outbound(tenant),
        Destination::DeadLetter(tenant),
    ] {
        let sent = headers(&[("Nats-Msg-Id", "1")]);
        nats.publish(to, &sent, Bytes::from("x")).await.unwrap();
    }
}

#[tokio::test]
async fn a_worker_that_makes_its_streams() {
    let server = server(&documented("### Permissions with `provision: on`")).await;
    let tenant = tenant();
    let nats = nats(&config(&server, "worker"), &tenant).await;
    works(&nats, &admin(&server).await, &tenant).await;
}

#[tokio::test]
async fn a_worker_that_finds_its_streams() {
    let server = server(&documented("### Permissions with `provision: off`")).await;
    let tenant = tenant();
    let _made = nats(&config(&server, "admin"), &tenant).await;
    let off = Config {
        provision: Provision::Off,
        ..config(&server, "worker")
    };
    let nats = nats(&off, &tenant).await;
    works(&nats, &admin(&server).await, &tenant).await;

    // It may not do more.
    let on = Config {
        request_timeout: Duration::from_secs(1),
        ..config(&server, "worker")
    };
    let stream = async_nats::jetstream::new(admin(&server).await);
    stream.delete_stream("GREENTIC_OUTBOUND").await.unwrap();
    let worker = Nats::connect(&on, &env()).await.unwrap();
    let refused = worker.prepare(std::slice::from_ref(&tenant)).await;
    let text = refused.unwrap().to_string();
    assert!(text.contains("permission"), "{text}");
    assert!(
        text.contains("$JS.API.STREAM.CREATE.GREENTIC_OUTBOUND"),
        "{text}"
    );
}

#[tokio::test]
async fn a_worker_without_jetstream() {
    let server = server(&documented("### Permissions with `delivery: core`")).await;
    let tenant = tenant();
    let core = Config {
        delivery: DeliveryMode::Core,
        ..config(&server, "worker")
    };
    let nats = nats(&core, &tenant).await;
    works(&nats, &admin(&server).await, &tenant).await;
}
