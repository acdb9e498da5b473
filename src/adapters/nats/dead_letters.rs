//! The stream of dead letters, read and emptied by an operator's hand.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use bytes::Bytes;
use futures_util::{Stream, stream};
use serde_json::{Value, json};
use time::OffsetDateTime;

use super::config::Config;
use super::connect;
use super::connect_error::ConnectError;
use super::fault::Fault;
use super::link::Link;
use super::names::{Names, StreamName};
use super::outbound;
pub use super::stream_reader::Extent;
use super::stream_reader::{Scan, StoredMessage, StreamReader};
use crate::model::{Headers, TenantId};

/// The dead letters on a server.
pub struct DeadLetters {
    link: Arc<Link>,
    reader: StreamReader,
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

impl DeadLetter {
    fn of(stored: StoredMessage, names: &Names) -> Self {
        let tenant = names.tenant_part(StreamName::DeadLetter, &stored.subject);
        Self {
            sequence: stored.sequence,
            stored: stored.time,
            tenant: tenant.unwrap_or_default().to_owned(),
            headers: stored.headers(),
            body: stored.body(),
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
        let stream = link.names.stream(StreamName::DeadLetter);
        let reader = StreamReader::new(Arc::clone(&link), stream);
        Ok(Self { link, reader })
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
        self.reader.extent().await
    }

    /// The dead letter at this position, if it is there.
    ///
    /// # Errors
    ///
    /// The server gives no answer.
    pub async fn get(&self, sequence: u64) -> Result<Option<DeadLetter>, Fault> {
        let found = self.reader.get(sequence).await?;
        Ok(found.map(|stored| DeadLetter::of(stored, self.names())))
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
            Some(since) => self.reader.first_since(&subject, extent, since).await?,
            None => extent.first,
        };
        let reading = Reading {
            names: self.names(),
            scan: self.reader.scan(subject, next, extent.last),
            until: range.until,
        };
        Ok(stream::unfold(Some(reading), async |reading| {
            let mut reading = reading?;
            match reading.next().await {
                Ok(Some(letter)) => Some((Ok(letter), Some(reading))),
                Ok(None) => None,
                Err(fault) => Some((Err(fault), None)),
            }
        }))
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
}

/// A reading that goes on.
struct Reading<'a> {
    names: &'a Names,
    scan: Scan<'a>,
    until: Option<OffsetDateTime>,
}

impl Reading<'_> {
    async fn next(&mut self) -> Result<Option<DeadLetter>, Fault> {
        let Some(stored) = self.scan.next().await? else {
            return Ok(None);
        };
        let in_range = self.until.is_none_or(|until| stored.time < until);
        Ok(in_range.then(|| DeadLetter::of(stored, self.names)))
    }
}
