//! What is left in the streams and in Redis when all is quiet.

use std::collections::HashMap;
use std::fmt::Write;
use std::time::Duration;

use async_nats::jetstream;
use futures_util::StreamExt;
use greentic_worker::model::header;

use crate::harness::{poll, redis_connection};
use crate::record::{Place, Record};

/// What was found.
#[derive(Debug, Default)]
pub struct Vault {
    /// What is still in the inbound stream.
    pub inbound: Vec<Left>,
    /// The turns that each user's state has counted.
    pub turns: HashMap<Place, usize>,
    pub sessions: usize,
    pub waits_of_users: usize,
    pub leases: usize,
    pub claims: usize,
    pub applied: usize,
    /// Applied activities whose outbox is still kept: a record is a digest of the content, and then the outbox.
    pub untrimmed: usize,
    /// Pointers to sessions that are not there.
    pub dangling: Vec<String>,
}

/// Waits until the inbound stream is empty and everything in the other two is on record.
pub async fn quiet(jetstream: &jetstream::Context, record: &Record, within: Duration) {
    let asking = async || {
        let mut inbound = jetstream.get_stream("GREENTIC_INBOUND").await.ok()?;
        if inbound.info().await.ok()?.state.messages > 0 {
            return None;
        }
        let mut stored = 0;
        for name in ["GREENTIC_OUTBOUND", "GREENTIC_DEADLETTER"] {
            let mut stream = jetstream.get_stream(name).await.ok()?;
            stored += stream.info().await.ok()?.state.messages;
        }
        (stored == record.read()).then_some(())
    };
    // If it does not come to pass, what is left will tell.
    let _quiet = poll(within, asking).await;
}

/// A message that is still in the inbound stream.
#[derive(Debug)]
pub struct Left {
    pub sequence: u64,
    pub tenant: usize,
    pub key: String,
}

/// What the inbound stream still holds, and in words what its consumers know of it.
pub async fn left(
    jetstream: &jetstream::Context,
    tenants: &[String],
) -> Result<(Vec<Left>, String), Box<dyn std::error::Error>> {
    let mut stream = jetstream.get_stream("GREENTIC_INBOUND").await?;
    let state = stream.info().await?.state.clone();
    let (first, last) = (state.first_sequence, state.last_sequence);
    let mut text = format!("{} messages from {first} to {last}\n", state.messages);
    let mut consumers = stream.consumers();
    while let Some(info) = consumers.next().await {
        let info = info?;
        let (delivered, floor) = (info.delivered, info.ack_floor);
        let _ = writeln!(
            text,
            "consumer {}: {} pending, {} unsettled, {} delivered again; delivered to {}, settled to {}",
            info.name,
            info.num_pending,
            info.num_ack_pending,
            info.num_redelivered,
            delivered.stream_sequence,
            floor.stream_sequence
        );
    }
    let mut all = Vec::new();
    for sequence in first..=last {
        let Ok(message) = stream.get_raw_message(sequence).await else {
            continue;
        };
        let body = String::from_utf8_lossy(&message.payload);
        let _ = writeln!(text, "{sequence} {} {body}", message.subject);
        let name = message.subject.split_once('.').map(|(_, tenant)| tenant);
        let tenant = tenants
            .iter()
            .position(|tenant| Some(tenant.as_str()) == name);
        let headers = [header::IDEMPOTENCY_KEY, header::MSG_ID].into_iter();
        let named = headers.filter_map(|name| message.headers.get(name)).next();
        let id = || {
            let body: serde_json::Value =
                serde_json::from_slice(&message.payload).unwrap_or_default();
            body["id"].as_str().unwrap_or_default().to_owned()
        };
        all.push(Left {
            sequence,
            tenant: tenant.unwrap_or(usize::MAX),
            key: named.map_or_else(id, |key| key.as_str().to_owned()),
        });
    }
    Ok((all, text))
}

/// Looks into Redis.
pub async fn open(
    redis_url: &str,
    tenants: &[String],
) -> Result<Vault, Box<dyn std::error::Error>> {
    let mut vault = Vault::default();
    let mut redis = redis_connection(redis_url).await;
    let keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(&mut redis).await?;
    for key in &keys {
        let get = redis::cmd("GET").arg(key).to_owned();
        if key.starts_with("greentic:state:") {
            let parts: Vec<&str> = key.split(':').collect();
            let tenant = tenants.iter().position(|tenant| tenant == parts[3]);
            let conversation = parts[4].trim_start_matches("user-").to_owned();
            let tally: String = get.query_async(&mut redis).await?;
            let place = (tenant.unwrap_or(usize::MAX), conversation);
            vault.turns.insert(place, tally.matches('|').count());
        } else if key.contains(":session:") {
            vault.sessions += 1;
        } else if key.contains(":waits:user:") {
            let waits: usize = redis::cmd("SCARD").arg(key).query_async(&mut redis).await?;
            vault.waits_of_users += waits;
        } else if key.contains(":waits:scope:") {
            let session: String = get.query_async(&mut redis).await?;
            if !keys
                .iter()
                .any(|key| key.ends_with(&format!(":session:{session}")))
            {
                vault.dangling.push(format!("{key} names no session"));
            }
        } else if key.contains(":lease:") {
            vault.leases += 1;
        } else if key.contains(":claims:") {
            vault.claims += 1;
        } else if key.contains(":applied:") {
            let record: String = get.query_async(&mut redis).await?;
            vault.applied += 1;
            vault.untrimmed += usize::from(!record.ends_with("[]"));
        }
    }
    Ok(vault)
}
