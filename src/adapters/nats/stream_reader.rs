//! A stream read message by message through JetStream's API.
//!
//! The API wraps messages in JSON: no consumer is left behind, none stalls when someone else removes what it would have
//! delivered, and no header can break the client.

use std::sync::Arc;

use async_nats::jetstream::ErrorCode;
use bytes::Bytes;
use futures_util::future::join_all;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::fault::Fault;
use super::link::Link;
use super::unreadable::{decoded, legible};
use crate::model::Headers;

/// How many messages are asked for at once, where they lie close together.
const MAX_WINDOW: u64 = 64;

/// Reads one stream.
pub(super) struct StreamReader {
    pub(super) link: Arc<Link>,
    /// Its name.
    stream: String,
}

/// How much a stream holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Extent {
    /// How many messages the stream holds.
    pub messages: u64,
    /// The position of the first one.
    #[serde(rename = "first_seq")]
    pub first: u64,
    /// The position of the last one; what is stored later comes after it.
    #[serde(rename = "last_seq")]
    pub last: u64,
}

#[derive(Deserialize)]
struct Info {
    state: Extent,
}

#[derive(Deserialize)]
struct Found {
    message: StoredMessage,
}

/// A message as the stream holds it.
#[derive(Deserialize)]
pub(super) struct StoredMessage {
    pub(super) subject: String,
    #[serde(rename = "seq")]
    pub(super) sequence: u64,
    /// When it was stored.
    #[serde(with = "time::serde::rfc3339")]
    pub(super) time: OffsetDateTime,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

impl StoredMessage {
    pub(super) fn headers(&self) -> Headers {
        legible(&decoded(&self.hdrs)).into_iter().collect()
    }

    pub(super) fn body(&self) -> Bytes {
        decoded(&self.data).into()
    }
}

impl StreamReader {
    pub(super) fn new(link: Arc<Link>, stream: String) -> Self {
        Self { link, stream }
    }

    /// How much there is now.
    pub(super) async fn extent(&self) -> Result<Extent, Fault> {
        let method = format!("STREAM.INFO.{}", self.stream);
        Ok(self.link.api::<Info>(&method, &json!({})).await?.state)
    }

    /// The message at this position, if it is there.
    pub(super) async fn get(&self, sequence: u64) -> Result<Option<StoredMessage>, Fault> {
        self.ask(&json!({ "seq": sequence })).await
    }

    /// The first position whose message of these subjects was stored at this time or later: the times rise with the positions.
    pub(super) async fn first_since(
        &self,
        subject: &str,
        extent: Extent,
        since: OffsetDateTime,
    ) -> Result<u64, Fault> {
        let (mut low, mut high) = (extent.first, extent.last.saturating_add(1));
        while low < high {
            let middle = low + (high - low) / 2;
            match self.from(subject, middle).await? {
                Some(found) if found.time < since => low = found.sequence + 1,
                Some(_) | None => high = middle,
            }
        }
        Ok(low)
    }

    /// The messages of these subjects from one position to another one, both included, in their order.
    pub(super) fn scan(&self, subject: String, first: u64, last: u64) -> Scan<'_> {
        Scan {
            reader: self,
            subject,
            next: first,
            last,
            window: 1,
            ready: Vec::new().into_iter(),
        }
    }

    /// The first message of these subjects at this position or later.
    async fn from(&self, subject: &str, sequence: u64) -> Result<Option<StoredMessage>, Fault> {
        let order = json!({ "seq": sequence, "next_by_subj": subject });
        self.ask(&order).await
    }

    async fn ask(&self, order: &Value) -> Result<Option<StoredMessage>, Fault> {
        let method = format!("STREAM.MSG.GET.{}", self.stream);
        match self.link.api::<Found>(&method, order).await {
            Err(fault) if fault.code() == Some(ErrorCode::NO_MESSAGE_FOUND) => Ok(None),
            found => Ok(Some(found?.message)),
        }
    }
}

/// A reading that goes on. It holds no more than a few messages in memory.
pub(super) struct Scan<'a> {
    reader: &'a StreamReader,
    subject: String,
    next: u64,
    last: u64,
    window: u64,
    ready: std::vec::IntoIter<StoredMessage>,
}

impl Scan<'_> {
    pub(super) async fn next(&mut self) -> Result<Option<StoredMessage>, Fault> {
        loop {
            match self.ready.next() {
                Some(message) if message.sequence > self.last => return Ok(None),
                Some(message) => return Ok(Some(message)),
                None if self.next > self.last => return Ok(None),
                None => self.fetch().await?,
            }
        }
    }

    /// Asks for several positions at once. Each answer is the first message from there on, so all up to the furthest answer
    /// are among them; where messages lie far apart the answers are one and the same, and fewer are asked for next time.
    async fn fetch(&mut self) -> Result<(), Fault> {
        let end = self.next.saturating_add(self.window).min(self.last + 1);
        let asked = (self.next..end).map(|sequence| self.reader.from(&self.subject, sequence));
        let mut found = Vec::new();
        for answer in join_all(asked).await {
            found.extend(answer?);
        }
        found.sort_by_key(|message| message.sequence);
        found.dedup_by_key(|message| message.sequence);
        self.window = (found.len() as u64 * 2).clamp(1, MAX_WINDOW);
        let furthest = found.last().map_or(self.last, |message| message.sequence);
        // Without an answer for the last position there is nothing behind it.
        self.next = furthest.max(end - 1) + 1;
        self.ready = found.into_iter();
        Ok(())
    }
}
