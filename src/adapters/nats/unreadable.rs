//! Messages whose headers the client cannot read.
//!
//! One of them costs every tenant the connection, at each delivery: the client takes it for a broken stream (or panics)
//! and reconnects. So after a lost connection the messages that were out are looked at one by one through JetStream's
//! API, which wraps them in JSON, and the unreadable ones become dead letters.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use async_nats::StatusCode;
use async_nats::header::HeaderName;
use async_nats::jetstream::ErrorCode;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tracing::error;

use super::fault::Fault;
use super::link::Link;
use super::names::StreamName;
use super::outbound::Outbound;
use crate::model::{Headers, TenantId, cut, dead_letter_id, header};
use crate::ports::Destination;

/// The code of their dead letters.
pub const UNREADABLE_HEADERS: &str = "unreadable_headers";

/// How many were dead-lettered, by tenant.
pub(super) type DeadLettered = Arc<Mutex<BTreeMap<TenantId, u64>>>;

/// Finds them and puts them aside.
pub(super) struct Unreadable {
    link: Arc<Link>,
    outbound: Arc<Outbound>,
    dead_lettered: DeadLettered,
}

/// What a consumer has delivered, and how far everything of it is settled.
#[derive(Deserialize)]
struct Progress {
    delivered: Position,
    ack_floor: Position,
    num_ack_pending: u64,
}

#[derive(Deserialize)]
struct Position {
    stream_seq: u64,
}

#[derive(Deserialize)]
struct Found {
    message: Stored,
}

/// A message as the stream holds it.
#[derive(Deserialize)]
struct Stored {
    #[serde(rename = "seq")]
    sequence: u64,
    #[serde(with = "time::serde::rfc3339")]
    time: OffsetDateTime,
    #[serde(default)]
    hdrs: String,
    #[serde(default)]
    data: String,
}

impl Unreadable {
    pub(super) fn new(
        link: Arc<Link>,
        outbound: Arc<Outbound>,
        dead_lettered: DeadLettered,
    ) -> Self {
        Self {
            link,
            outbound,
            dead_lettered,
        }
    }

    fn count(&self, tenant: &TenantId) {
        let mut counts = self
            .dead_lettered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *counts.entry(tenant.clone()).or_default() += 1;
    }

    /// Looks at what a tenant's consumer has out.
    pub(super) async fn put_aside(&self, tenant: &TenantId, consumer: &str) -> Result<(), Fault> {
        let names = &self.link.names;
        let stream = names.stream(StreamName::Inbound);
        let method = format!("CONSUMER.INFO.{stream}.{consumer}");
        let progress: Progress = self.link.api(&method, &json!({})).await?;
        if progress.num_ack_pending == 0 {
            return Ok(());
        }
        let method = format!("STREAM.MSG.GET.{stream}");
        let subject = names.subject(StreamName::Inbound, tenant);
        let mut next = progress.ack_floor.stream_seq + 1;
        while next <= progress.delivered.stream_seq {
            let order = json!({ "seq": next, "next_by_subj": subject });
            let found: Stored = match self.link.api::<Found>(&method, &order).await {
                Ok(found) => found.message,
                Err(fault) if fault.code() == Some(ErrorCode::NO_MESSAGE_FOUND) => return Ok(()),
                Err(fault) => return Err(fault),
            };
            next = found.sequence + 1;
            let raw = decoded(&found.hdrs);
            if let Err(reason) = check(&raw) {
                error!(%tenant, sequence = found.sequence, reason, "a message has unreadable headers");
                self.bury(tenant, &found, &raw, reason).await?;
            }
        }
        Ok(())
    }

    async fn bury(
        &self,
        tenant: &TenantId,
        message: &Stored,
        raw: &[u8],
        reason: &str,
    ) -> Result<(), Fault> {
        let mut headers = Headers::default();
        let stored = u64::try_from(message.time.unix_timestamp_nanos()).ok();
        headers.push(
            header::MSG_ID,
            dead_letter_id(tenant, None, (message.sequence, stored)),
        );
        headers.push(header::ERROR_CODE, UNREADABLE_HEADERS);
        headers.push(header::ERROR, reason);
        headers.push(header::ATTEMPTS, "1");
        headers.push(header::TENANT, tenant.as_str());
        for (name, value) in legible(raw) {
            headers.push(name, value);
        }
        let body: Bytes = decoded(&message.data).into();
        let to = Destination::DeadLetter(tenant);
        let limit = self.outbound.max_message_bytes(to);
        let (headers, body) = match headers.wire_len() + body.len() > limit {
            true => cut(&headers, &body, limit).ok_or_else(|| {
                Fault::TooLarge(format!("a dead letter does not fit into {limit} bytes"))
            })?,
            false => (headers, body),
        };
        self.outbound.publish(to, &headers, body).await?;
        let method = format!(
            "STREAM.MSG.DELETE.{}",
            self.link.names.stream(StreamName::Inbound)
        );
        let order = json!({ "seq": message.sequence, "no_erase": true });
        match self.link.api::<Value>(&method, &order).await {
            // Another worker was faster, and has counted it.
            Err(fault) if fault.code() == Some(ErrorCode::STREAM_MESSAGE_DELETE_FAILED) => Ok(()),
            Err(fault) => Err(fault),
            Ok(_) => {
                self.count(tenant);
                Ok(())
            }
        }
    }
}

/// What the server encoded to wrap it in JSON.
pub(super) fn decoded(text: &str) -> Vec<u8> {
    // The server encodes; what it says is right.
    STANDARD.decode(text).unwrap_or_default()
}

/// Whether the client can read these headers, by its own rules.
fn check(raw: &[u8]) -> Result<(), &'static str> {
    if raw.is_empty() {
        return Ok(());
    }
    let text = std::str::from_utf8(raw).map_err(|_| "the headers are not valid UTF-8")?;
    let mut lines = text.lines();
    let status = lines
        .next()
        .and_then(|line| line.strip_prefix("NATS/1.0"))
        .ok_or("the headers do not begin with `NATS/1.0`")?
        .trim();
    let status = status.split_once(' ').map_or(status, |(status, _)| status);
    if !status.is_empty() && StatusCode::from_str(status.trim()).is_err() {
        return Err("the status before the headers is no number of three digits");
    }
    for line in lines.filter(|line| !line.is_empty()) {
        if line.trim_end().contains('\r') {
            return Err("a header holds a stray carriage return");
        }
        if line.starts_with(char::is_whitespace) {
            continue;
        }
        let (name, _) = line.split_once(':').ok_or("a header line has no colon")?;
        if HeaderName::from_str(name).is_err() {
            return Err(
                "a header's name holds a space or another character that names cannot hold",
            );
        }
    }
    Ok(())
}

/// The headers that can be read, by their lines.
pub(super) fn legible(raw: &[u8]) -> Vec<(String, String)> {
    String::from_utf8_lossy(raw)
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .filter(|(name, _)| HeaderName::from_str(name).is_ok())
        .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_the_client_reads_them() {
        #[track_caller]
        fn check(raw: &[u8], expected: Option<&str>) {
            let found = super::check(raw).err();
            assert_eq!(found.is_some(), expected.is_some(), "{found:?}");
            assert!(
                found
                    .unwrap_or_default()
                    .contains(expected.unwrap_or_default())
            );
        }
        check(b"", None);
        check(b"NATS/1.0\r\na: 1\r\nb:\r\n  folded\r\n\r\n", None);
        check(b"NATS/1.0 503 Gone\r\n\r\n", None);
        check(b"NATS/1.0 abc\r\n\r\n", Some("status"));
        check(b"HTTP/1.1\r\n\r\n", Some("NATS/1.0"));
        check(b"NATS/1.0\r\na: \xff\r\n\r\n", Some("UTF-8"));
        check(b"NATS/1.0\r\na: x\ry\r\n\r\n", Some("carriage return"));
        check(b"NATS/1.0\r\nabc\r\n\r\n", Some("colon"));
        check(b"NATS/1.0\r\na b: c\r\n\r\n", Some("name"));
    }

    #[test]
    fn what_can_be_read_is_kept() {
        let kept = legible(b"NATS/1.0\r\na b: c\r\nok: \xff1\r\nfine: 2\r\n\r\n");
        let pairs: Vec<(&str, &str)> = kept.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(pairs, [("ok", "\u{fffd}1"), ("fine", "2")]);
    }
}
