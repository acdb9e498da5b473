//! Messages that no worker can read: each must end in the dead letters, and stand in nobody's way.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream;
use greentic_worker::model::header;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::talk::Phase;

/// A message that cannot be read.
#[derive(Clone, Debug)]
pub struct Poison {
    pub tenant: usize,
    pub key: String,
    /// How often it was sent; the stream has it at most that often.
    pub tries: usize,
    /// How often the stream said that it has it.
    pub published: usize,
}

/// Sends one every second or so until the conversations end.
pub async fn send(
    tenant: usize,
    subject: String,
    jetstream: jetstream::Context,
    phase: watch::Receiver<Phase>,
) -> Vec<Poison> {
    let mut sent = Vec::new();
    while *phase.borrow() == Phase::Talking {
        let key = format!("poison-{tenant}-{}", sent.len());
        let mut headers = HeaderMap::new();
        headers.insert(header::IDEMPOTENCY_KEY, key.as_str());
        let mut tries = 0;
        loop {
            tries += 1;
            let body = r#"{"id": "never closed"#;
            let publishing =
                jetstream.publish_with_headers(subject.clone(), headers.clone(), body.into());
            if let Ok(acknowledged) = publishing.await
                && acknowledged.await.is_ok()
            {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        sent.push(Poison {
            tenant,
            key,
            tries,
            published: 1,
        });
        sleep(Duration::from_millis(1100)).await;
    }
    sent
}
