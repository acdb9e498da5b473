//! Messages whose headers the client cannot read: they cost the connection, and must not cost it for ever.

use greentic_worker::adapters::nats::config::DeliveryMode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// Sends `hi` with these raw headers, as a client that checks nothing can, and waits until the server has it.
pub(crate) async fn send_raw(server: &NatsServer, tenant: &TenantId, headers: &[u8]) {
    let url = server.url();
    let mut stream = TcpStream::connect(url.trim_start_matches("nats://"))
        .await
        .unwrap();
    let (len, all) = (headers.len(), headers.len() + 2);
    let mut sent = format!(
        "CONNECT {{\"headers\":true,\"verbose\":false}}\r\nHPUB inbound.{tenant} {len} {all}\r\n"
    )
    .into_bytes();
    sent.extend_from_slice(headers);
    sent.extend_from_slice(b"hi\r\nPING\r\n");
    stream.write_all(&sent).await.unwrap();
    let mut said = Vec::new();
    while !said.windows(6).any(|part| part == b"PONG\r\n") {
        let mut part = [0; 1024];
        let len = stream.read(&mut part).await.unwrap();
        assert!(len > 0, "the server hung up");
        said.extend_from_slice(&part[..len]);
    }
}

/// Pulls, over and over as the worker does, until this comes.
async fn until(nats: &Nats, tenant: &TenantId, wanted: &str) {
    let trying = async {
        loop {
            if let Ok(mut pull) = nats.pull(tenant, 10, Duration::from_secs(1)).await {
                while let Some(Ok(delivery)) = pull.next().await {
                    let is_wanted = body(&delivery) == wanted;
                    delivery.ack().await.unwrap();
                    if is_wanted {
                        return;
                    }
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, trying).await.unwrap();
}

#[tokio::test]
async fn they_become_dead_letters_and_the_others_go_on() {
    let server = NatsServer::start_own().await;
    let (tenant, other) = (tenant(), tenant());
    let config = Config {
        ack_wait: Duration::from_secs(1),
        ..config(&server)
    };
    let nats = nats(&config, &tenant).await;
    let provider = provider(&server).await;
    let bad: [&[u8]; 5] = [
        b"NATS/1.0\r\nok: 1\r\na: \xff\r\n\r\n",
        b"NATS/1.0\r\nok: 1\r\na: x\ry\r\n\r\n",
        b"NATS/1.0\r\nok: 1\r\nno colon\r\n\r\n",
        b"NATS/1.0\r\nok: 1\r\na name: x\r\n\r\n",
        b"NATS/1.0 what\r\nok: 1\r\n\r\n",
    ];
    for (n, headers) in bad.into_iter().enumerate() {
        send_raw(&server, &tenant, headers).await;
        let good = format!("good {n}");
        provide(&provider, &tenant, &[&good]).await;
        provide(&provider, &other, &[&good]).await;
        until(&nats, &tenant, &good).await;
        until(&nats, &other, &good).await;
    }
    until_settled(&provider, &nats, &tenant).await;

    let mut dead = provider.get_stream("GREENTIC_DEADLETTER").await.unwrap();
    let state = dead.info().await.unwrap().state.clone();
    // The last one is mended by newer servers themselves.
    let all = bad.len() as u64;
    assert!(
        (all - 1..=all).contains(&state.messages),
        "{}",
        state.messages
    );
    for sequence in 1..=state.messages {
        let letter = dead.get_raw_message(sequence).await.unwrap();
        assert_eq!(letter.subject.as_str(), format!("deadletter.{tenant}"));
        assert_eq!(letter.payload, "hi");
        let header = |name: &str| letter.headers.get(name).unwrap().to_string();
        assert_eq!(header("Greentic-Error-Code"), "unreadable_headers");
        assert_eq!(header("ok"), "1");
    }
}

/// Goes on pulling until the inbound stream is empty.
async fn until_settled(provider: &async_nats::jetstream::Context, nats: &Nats, tenant: &TenantId) {
    let mut stream = provider.get_stream("GREENTIC_INBOUND").await.unwrap();
    let trying = async {
        while stream.info().await.unwrap().state.messages > 0 {
            // Each delivery of one that cannot be read costs the connection, and the pull with it.
            if let Ok(mut pull) = nats.pull(tenant, 10, SHORTLY).await
                && let Some(Ok(delivery)) = pull.next().await
            {
                panic!("{} came again", body(&delivery));
            }
        }
    };
    tokio::time::timeout(SOON, trying).await.unwrap();
}

#[tokio::test]
async fn without_jetstream_they_are_lost_and_nothing_else() {
    let server = NatsServer::start_without_jetstream().await;
    let tenant = tenant();
    let config = Config {
        delivery: DeliveryMode::Core,
        ..config(&server)
    };
    let nats = nats(&config, &tenant).await;
    none(&nats, &tenant).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    for headers in [
        b"NATS/1.0\r\na: \xff\r\n\r\n".as_slice(),
        b"NATS/1.0\r\na: x\ry\r\n\r\n",
    ] {
        send_raw(&server, &tenant, headers).await;
        let again = async {
            loop {
                let subject = format!("inbound.{tenant}");
                client.publish(subject, "good".into()).await.unwrap();
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::select! {
            () = until(&nats, &tenant, "good") => {}
            () = again => {}
        }
    }
}
