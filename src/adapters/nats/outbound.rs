//! Publishing replies and dead letters so that they are stored when the call returns.

use std::sync::Arc;

use async_nats::jetstream;
use bytes::Bytes;
use serde::Deserialize;

use super::fault::Fault;
use super::headers;
use super::link::Link;
use super::names;
use super::topology::Topology;
use crate::model::Headers;
use crate::ports::Destination;

/// Publishes to JetStream.
pub(super) struct Outbound {
    link: Arc<Link>,
    topology: Arc<Topology>,
}

/// JetStream's answer to a publish. Whether it was a duplicate does not matter: it is stored.
#[derive(Deserialize)]
struct Stored {
    error: Option<jetstream::Error>,
}

impl Outbound {
    pub(super) fn new(link: Arc<Link>, topology: Arc<Topology>) -> Self {
        Self { link, topology }
    }

    /// Publishes and waits for the acknowledgement. If the connection is lost meanwhile, it is published again on the
    /// next one: JetStream recognises it by its `Nats-Msg-Id`.
    pub(super) async fn publish(
        &self,
        to: Destination<'_>,
        headers: &Headers,
        body: Bytes,
    ) -> Result<(), Fault> {
        let subject = names::destination_subject(to);
        let stored = async {
            let mut repaired = false;
            loop {
                self.link.connected().await?;
                match store(&self.link, &subject, headers, body.clone()).await {
                    Err(Fault::Lost) => {}
                    Err(Fault::NoResponders { .. }) if !repaired => {
                        // In a box, as all that is rare: it is large, and would make every turn larger.
                        Box::pin(self.topology.repair_stream(to.into())).await?;
                        repaired = true;
                    }
                    done => return done,
                }
            }
        };
        self.link.in_time(&subject, stored).await
    }
}

/// Publishes once and waits for the acknowledgement.
pub(super) async fn store(
    link: &Link,
    subject: &str,
    headers: &Headers,
    body: Bytes,
) -> Result<(), Fault> {
    let headers = headers::to_publish(headers);
    let answer = link.request(subject, Some(headers), body).await?;
    let unreadable = |error| Fault::Unreadable {
        what: subject.to_owned(),
        error,
    };
    let stored: Stored = serde_json::from_slice(&answer.payload).map_err(unreadable)?;
    match stored.error {
        None => Ok(()),
        Some(error) => Err(Fault::Refused {
            what: subject.to_owned(),
            error,
        }),
    }
}
