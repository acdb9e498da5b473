//! Publishing replies and dead letters so that they are stored when the call returns.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::{self, ErrorCode};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::json;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::warn;

use super::fault::Fault;
use super::headers;
use super::link::Link;
use super::names::StreamName;
use super::topology::Topology;
use super::unreadable::decoded;
use crate::model::{Headers, header, other_id};
use crate::ports::Destination;

/// How long an acknowledgement may take before the stream is looked at; a quarter of the time for a request, if that is less.
const PATIENCE: Duration = Duration::from_secs(1);

/// How many ids a dead letter tries whose first one is another message's.
const MAX_IDS: usize = 8;

/// Publishes to JetStream.
pub(super) struct Outbound {
    link: Arc<Link>,
    topology: Arc<Topology>,
}

/// JetStream's answer to a publish.
#[derive(Deserialize)]
struct Answer {
    error: Option<jetstream::Error>,
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
}

/// Where a message is in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stored {
    sequence: u64,
    /// It was there before, by its `Nats-Msg-Id`.
    duplicate: bool,
}

/// A dead letter that is published.
struct Letter<'a> {
    to: Destination<'a>,
    subject: &'a str,
    headers: &'a Headers,
    body: &'a Bytes,
}

/// A message as JetStream's API gives it.
#[derive(Deserialize)]
struct Found {
    message: FoundMessage,
}

#[derive(Deserialize)]
struct FoundMessage {
    subject: String,
    #[serde(default)]
    data: String,
}

impl Outbound {
    pub(super) fn new(link: Arc<Link>, topology: Arc<Topology>) -> Self {
        Self { link, topology }
    }

    /// The largest message that can be published there.
    pub(super) fn max_message_bytes(&self, to: Destination<'_>) -> usize {
        let server = self.link.live().client.max_payload();
        server.min(self.topology.largest(to.into()))
    }

    /// Publishes and waits for the acknowledgement. If the connection is lost meanwhile, it is published again on the
    /// next one: JetStream recognises it by its `Nats-Msg-Id`.
    pub(super) async fn publish(
        &self,
        to: Destination<'_>,
        headers: &Headers,
        body: Bytes,
    ) -> Result<(), Fault> {
        self.publish_in_time(to, headers, body, &|| true).await
    }

    /// The same, but it is not sent when it is no longer in time.
    pub(super) async fn publish_in_time(
        &self,
        to: Destination<'_>,
        headers: &Headers,
        body: Bytes,
        in_time: &(dyn Fn() -> bool + Sync),
    ) -> Result<(), Fault> {
        let subject = self.link.names.destination_subject(to);
        let stored = self.store(to, &subject, (headers, &body), in_time).await?;
        match to {
            Destination::DeadLetter(_) if stored.duplicate => {
                // In a box, as all that is rare: it is large, and would make every turn larger.
                let letter = Letter {
                    to,
                    subject: &subject,
                    headers,
                    body: &body,
                };
                Box::pin(self.is_really_there(&letter, stored)).await
            }
            Destination::Outbound(_) | Destination::DeadLetter(_) => Ok(()),
        }
    }

    async fn store(
        &self,
        to: Destination<'_>,
        subject: &str,
        (headers, body): (&Headers, &Bytes),
        in_time: &(dyn Fn() -> bool + Sync),
    ) -> Result<Stored, Fault> {
        self.topology.check_owner(to.into()).await?;
        let patience = PATIENCE.min(self.link.request_timeout() / 4);
        let message = (headers, body);
        let mut storing = pin!(self.store_on(to.into(), subject, message, in_time));
        let stored = match timeout(patience, &mut storing).await {
            Ok(stored) => stored,
            Err(_) => {
                let again = || self.store_on(to.into(), subject, message, in_time);
                Box::pin(self.look_and_wait(to.into(), subject, storing, again)).await
            }
        };
        match stored {
            Err(fault) => Err(Box::pin(self.explained(to.into(), subject, fault)).await),
            stored => stored,
        }
    }

    /// Publishes on whatever connection there is, until one of them lasts long enough for an answer.
    async fn store_on(
        &self,
        stream: StreamName,
        subject: &str,
        (headers, body): (&Headers, &Bytes),
        in_time: &(dyn Fn() -> bool + Sync),
    ) -> Result<Stored, Fault> {
        let mut repaired = false;
        loop {
            self.link.connected().await?;
            if !in_time() {
                return Err(Fault::TooLate);
            }
            match store(&self.link, subject, headers, body.clone()).await {
                Err(Fault::Lost) => {}
                Err(Fault::NoResponders { .. }) if !repaired => {
                    let _made = Box::pin(self.topology.repair_stream(stream)).await?;
                    repaired = true;
                }
                done => return done,
            }
        }
    }

    /// An answer is late. If the stream is gone, somebody else who listens to the subject keeps the server from saying that
    /// nobody is there. So the stream is looked at, and the message published again if it had to be made.
    async fn look_and_wait<F>(
        &self,
        stream: StreamName,
        subject: &str,
        mut storing: Pin<&mut F>,
        again: impl FnOnce() -> F,
    ) -> Result<Stored, Fault>
    where
        F: Future<Output = Result<Stored, Fault>>,
    {
        let within = self.link.request_timeout();
        let (now, patience) = (Instant::now(), PATIENCE.min(within / 4));
        let until = now + within.saturating_sub(patience);
        let looked = tokio::select! {
            biased;
            stored = &mut storing => return stored,
            looked = self.topology.repair_stream(stream) => looked,
        };
        // Another publish may have had it made since this one was sent.
        let sent = now.checked_sub(patience).unwrap_or(now);
        let stored = match looked.map(|made| made || self.topology.made_since(stream, sent)) {
            Ok(true) => timeout(within, again()).await,
            Ok(false) | Err(Fault::Denied { .. } | Fault::Lost) => timeout_at(until, storing).await,
            Err(fault) => return Err(fault),
        };
        match stored {
            Ok(stored) => stored,
            Err(_) if !self.link.is_connected() => Err(Fault::Disconnected),
            Err(_) => Err(Fault::Silent {
                what: subject.to_owned(),
                within,
            }),
        }
    }

    /// What a refusal means, where the answer itself does not say it.
    async fn explained(&self, stream: StreamName, subject: &str, fault: Fault) -> Fault {
        match fault.code() {
            Some(ErrorCode::STREAM_STORE_FAILED) => {
                self.topology.explain(stream, subject, fault).await
            }
            Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM) => {
                // The limit is another one than was known; the next message is measured by it.
                if let Err(error) = self.topology.look_at(stream, None).await {
                    warn!(%error, "the limit of a stream could not be looked at");
                }
                fault
            }
            _ => fault,
        }
    }

    /// A dead letter that the stream says it has: whether it has this one, under this id. If not, it is stored under another
    /// id, which is the same whenever this dead letter is published.
    async fn is_really_there(&self, letter: &Letter<'_>, mut stored: Stored) -> Result<(), Fault> {
        let Letter {
            to,
            subject,
            headers,
            body,
        } = *letter;
        let id = headers.get(header::MSG_ID).unwrap_or_default();
        for n in 1..=MAX_IDS {
            if !stored.duplicate || self.holds(stored.sequence, subject, body).await? {
                return Ok(());
            }
            warn!(
                id,
                "the stream of dead letters has another message under this id, or had one; taking another id"
            );
            let others = headers.iter().filter(|(name, _)| *name != header::MSG_ID);
            let mut renamed: Headers = others.collect();
            renamed.push(header::MSG_ID, other_id(id, body, n));
            stored = self.store(to, subject, (&renamed, body), &|| true).await?;
        }
        match stored.duplicate {
            true => Err(Fault::Silent {
                what: format!("{subject} under any of {MAX_IDS} ids"),
                within: self.link.request_timeout(),
            }),
            false => Ok(()),
        }
    }

    /// Returns whether the stream of dead letters holds this message at this position.
    async fn holds(&self, sequence: u64, subject: &str, body: &Bytes) -> Result<bool, Fault> {
        let method = format!(
            "STREAM.MSG.GET.{}",
            self.link.names.stream(StreamName::DeadLetter)
        );
        let order = json!({ "seq": sequence });
        match self.link.api::<Found>(&method, &order).await {
            Ok(Found { message }) => {
                Ok(message.subject == subject && decoded(&message.data) == body[..])
            }
            Err(fault) if fault.code() == Some(ErrorCode::NO_MESSAGE_FOUND) => Ok(false),
            Err(fault @ Fault::Denied { .. }) => {
                warn!(%fault, "a dead letter is taken for stored, for the stream says so and may not be looked at");
                Ok(true)
            }
            Err(fault) => Err(fault),
        }
    }
}

/// Publishes once and waits for the acknowledgement.
pub(super) async fn store(
    link: &Link,
    subject: &str,
    headers: &Headers,
    body: Bytes,
) -> Result<Stored, Fault> {
    let headers = headers::to_publish(headers);
    let answer = link.request(subject, Some(headers), body).await?;
    let unreadable = |error| Fault::Unreadable {
        what: subject.to_owned(),
        error,
    };
    let answer: Answer = serde_json::from_slice(&answer.payload).map_err(unreadable)?;
    match answer.error {
        None => Ok(Stored {
            sequence: answer.seq,
            duplicate: answer.duplicate,
        }),
        Some(error) => Err(Fault::Refused {
            what: subject.to_owned(),
            error,
        }),
    }
}
