//! The stream of dead letters, read and emptied by an operator's hand.
//!
//! Messages are asked for one by one through JetStream's API, which wraps them in JSON: no consumer is left behind, none
//! stalls when someone else removes what it would have delivered, and no header can break the client.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{Stream, stream};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::config::Config;
use super::connect;
use super::connect_error::ConnectError;
use super::fault::Fault;
use super::link::Link;
use super::names::{Names, StreamName};
use super::outbound;
use super::unreadable::{decoded, legible};
use crate::model::{Headers, TenantId};

/// How many messages are asked for at once, where they lie close together.
const MAX_WINDOW: u64 = 64;

/// The dead letters on a server.
pub struct DeadLetters {
    link: Arc<Link>,
}

/// One message of the stream.
#[derive(Clone, Debug, PartialEq)]
pub struct DeadLetter {
    /// Its position in the stream of dead letters.
    pub sequence: u64,
    /// When it was put aside.
    pub stored: OffsetDateTime,
    /// The tenant as the subject names it.
    pub tenant: String,
    /// Its headers: the original ones and the reason.
    pub headers: Headers,
    /// The original body, untouched.
    pub body: Bytes,
}

/// Which part of the stream to read.
#[derive(Clone, Debug, Default)]
pub struct Range {
    /// Of this tenant only.
    pub tenant: Option<TenantId>,
    /// Put aside at this time or later.
    pub since: Option<OffsetDateTime>,
    /// Put aside before this time.
    pub until: Option<OffsetDateTime>,
}

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Extent {
    /// How many dead letters the stream holds.
    pub messages: u64,
    /// The position of the first one.
    #[serde(rename = "first_seq")]
    pub first: u64,
    /// The position of the last one; what is put aside later comes after it.
    #[serde(rename = "last_seq")]
    pub last: u64,
}

#[derive(Deserialize)]
struct Info {
    state: Extent,
}

#[derive(Deserialize)]
struct Found {
    message: Stored,
}

#[derive(Deserialize)]
struct Stored {
    subject: String,
    #[serde(rename = "seq")]
    sequence: u64,
    #[serde(with = "time::serde::rfc3339")]
    time: OffsetDateTime,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

impl Stored {
    fn dead_letter(self, names: &Names) -> DeadLetter {
        let stored = self;
        let tenant = names.tenant_part(StreamName::DeadLetter, &stored.subject);
        DeadLetter {
            sequence: stored.sequence,
            stored: stored.time,
            tenant: tenant.unwrap_or_default().to_owned(),
            headers: legible(&decoded(&stored.hdrs)).into_iter().collect(),
            body: decoded(&stored.data).into(),
        }
    }
}

impl DeadLetters {
    /// Connects as a worker with these settings does, and makes nothing on the server.
    ///
    /// # Errors
    ///
    /// As [`super::Nats::connect`].
    pub async fn connect(config: &Config) -> Result<Self, ConnectError> {
        let link = connect::connect(config).await?;
        Ok(Self { link })
    }

    /// The names of subjects and streams.
    pub fn names(&self) -> &Names {
        &self.link.names
    }

    /// The name of the stream.
    pub fn stream(&self) -> String {
        self.names().stream(StreamName::DeadLetter)
    }

    /// How much there is now.
    ///
    /// # Errors
    ///
    /// There is no such stream or JetStream, or no permission to ask.
    pub async fn extent(&self) -> Result<Extent, Fault> {
        let method = format!("STREAM.INFO.{}", self.stream());
        Ok(self.link.api::<Info>(&method, &json!({})).await?.state)
    }

    /// The dead letter at this position, if it is there.
    ///
    /// # Errors
    ///
    /// The server gives no answer.
    pub async fn get(&self, sequence: u64) -> Result<Option<DeadLetter>, Fault> {
        self.ask(&json!({ "seq": sequence })).await
    }

    /// Those in this range that are there now, in the order they were put aside. What is put aside meanwhile is left out, so
    /// that a replay which fails again does not go round for ever. Holds no more than a few of them in memory.
    ///
    /// # Errors
    ///
    /// The server gives no answer; that ends the stream.
    pub async fn read(
        &self,
        range: Range,
    ) -> Result<impl Stream<Item = Result<DeadLetter, Fault>>, Fault> {
        let extent = self.extent().await?;
        let subject = match &range.tenant {
            Some(tenant) => self.names().subject(StreamName::DeadLetter, tenant),
            None => self.names().subjects(StreamName::DeadLetter),
        };
        let next = match range.since {
            _ if extent.messages == 0 => extent.last.saturating_add(1),
            Some(since) => self.first_since(&subject, extent, since).await?,
            None => extent.first,
        };
        let scan = Scan {
            letters: self,
            subject,
            until: range.until,
            next,
            last: extent.last,
            window: 1,
            ready: Vec::new().into_iter(),
        };
        Ok(stream::unfold(Some(scan), async |scan| {
            let mut scan = scan?;
            match scan.next().await {
                Ok(Some(letter)) => Some((Ok(letter), Some(scan))),
                Ok(None) => None,
                Err(fault) => Some((Err(fault), None)),
            }
        }))
    }

    /// The first position whose message was stored at this time or later: the times rise with the positions.
    async fn first_since(
        &self,
        subject: &str,
        extent: Extent,
        since: OffsetDateTime,
    ) -> Result<u64, Fault> {
        let (mut low, mut high) = (extent.first, extent.last.saturating_add(1));
        while low < high {
            let middle = low + (high - low) / 2;
            match self.from(subject, middle).await? {
                Some(found) if found.stored < since => low = found.sequence + 1,
                Some(_) | None => high = middle,
            }
        }
        Ok(low)
    }

    /// Publishes to the tenant's subject of a stream and waits until it is stored there. A connection that is lost meanwhile
    /// is waited for: `Nats-Msg-Id` and the idempotency key make a second copy harmless.
    ///
    /// # Errors
    ///
    /// The server gives no answer or refuses the message.
    pub async fn publish(
        &self,
        (stream, tenant): (StreamName, &TenantId),
        headers: &Headers,
        body: Bytes,
    ) -> Result<(), Fault> {
        let subject = self.names().subject(stream, tenant);
        let stored = async {
            loop {
                self.link.connected().await?;
                match outbound::store(&self.link, &subject, headers, body.clone()).await {
                    Err(Fault::Lost) => {}
                    done => return done.map(drop),
                }
            }
        };
        self.link.in_time(&subject, stored).await
    }

    /// Removes the dead letter at this position; whether it was still there.
    ///
    /// # Errors
    ///
    /// The server gives no answer or lacks the permission.
    pub async fn remove(&self, sequence: u64) -> Result<bool, Fault> {
        let method = format!("STREAM.MSG.DELETE.{}", self.stream());
        let order = json!({ "seq": sequence, "no_erase": true });
        match self.link.api::<Value>(&method, &order).await {
            Err(fault)
                if matches!(
                    fault.code(),
                    Some(ErrorCode::STREAM_MESSAGE_DELETE_FAILED | ErrorCode::NO_MESSAGE_FOUND)
                ) =>
            {
                Ok(false)
            }
            done => done.map(|_| true),
        }
    }

    /// Ends the connection.
    pub async fn close(&self, within: Duration) {
        // Everything here was answered, so there is nothing left to send.
        let _in_time = tokio::time::timeout(within, self.link.close()).await;
    }

    /// The first message of these subjects at this position or later.
    async fn from(&self, subject: &str, sequence: u64) -> Result<Option<DeadLetter>, Fault> {
        let order = json!({ "seq": sequence, "next_by_subj": subject });
        self.ask(&order).await
    }

    async fn ask(&self, order: &Value) -> Result<Option<DeadLetter>, Fault> {
        let method = format!("STREAM.MSG.GET.{}", self.stream());
        match self.link.api::<Found>(&method, order).await {
            Err(fault) if fault.code() == Some(ErrorCode::NO_MESSAGE_FOUND) => Ok(None),
            found => Ok(Some(found?.message.dead_letter(self.names()))),
        }
    }
}

/// A reading that goes on.
struct Scan<'a> {
    letters: &'a DeadLetters,
    subject: String,
    until: Option<OffsetDateTime>,
    next: u64,
    last: u64,
    window: u64,
    ready: std::vec::IntoIter<DeadLetter>,
}

impl Scan<'_> {
    async fn next(&mut self) -> Result<Option<DeadLetter>, Fault> {
        loop {
            match self.ready.next() {
                Some(letter) if letter.sequence > self.last => return Ok(None),
                Some(letter) if self.until.is_some_and(|until| letter.stored >= until) => {
                    return Ok(None);
                }
                Some(letter) => return Ok(Some(letter)),
                None if self.next > self.last => return Ok(None),
                None => self.fetch().await?,
            }
        }
    }

    /// Asks for several positions at once. Each answer is the first message from there on, so all up to the furthest answer
    /// are among them; where messages lie far apart the answers are one and the same, and fewer are asked for next time.
    async fn fetch(&mut self) -> Result<(), Fault> {
        let end = self.next.saturating_add(self.window).min(self.last + 1);
        let asked = (self.next..end).map(|sequence| self.letters.from(&self.subject, sequence));
        let mut found = Vec::new();
        for answer in join_all(asked).await {
            found.extend(answer?);
        }
        found.sort_by_key(|letter| letter.sequence);
        found.dedup_by_key(|letter| letter.sequence);
        self.window = (found.len() as u64 * 2).clamp(1, MAX_WINDOW);
        let furthest = found.last().map_or(self.last, |letter| letter.sequence);
        // Without an answer for the last position there is nothing behind it.
        self.next = furthest.max(end - 1) + 1;
        self.ready = found.into_iter();
        Ok(())
    }
}
