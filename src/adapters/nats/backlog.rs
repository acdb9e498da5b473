//! What waits in the inbound stream. One request tells how many messages there are of each subject; only tenants that have
//! any are looked at further, so that idle ones cost nothing.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use futures_util::stream::{self, StreamExt, TryStreamExt};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;

use super::fault::Fault;
use super::link::Link;
use super::names::{self, StreamName};
use crate::adapters::system::SystemClock;
use crate::model::TenantId;
use crate::ports::Clock;
use crate::telemetry::TenantBacklog;

/// How many tenants are looked at at once.
const AT_ONCE: usize = 16;

#[derive(Deserialize)]
struct Info {
    state: State,
    /// How many subjects there are, of which one answer holds 100,000.
    #[serde(default)]
    total: usize,
}

#[derive(Deserialize)]
struct State {
    #[serde(default)]
    subjects: Option<HashMap<String, u64>>,
}

#[derive(Deserialize)]
struct Progress {
    num_ack_pending: u64,
}

#[derive(Deserialize)]
struct Found {
    message: Stored,
}

#[derive(Deserialize)]
struct Stored {
    #[serde(with = "time::serde::rfc3339")]
    time: OffsetDateTime,
}

/// What waits for each of these tenants.
pub(super) async fn look(link: &Link, tenants: &[TenantId]) -> Result<Vec<TenantBacklog>, Fault> {
    let counts = counts(link).await?;
    let fitting = tenants
        .iter()
        .filter(|tenant| names::fits_a_subject(tenant));
    let looks = fitting.map(|tenant| {
        let subject = link.names.subject(StreamName::Inbound, tenant);
        let messages = counts.get(&subject).copied().unwrap_or_default();
        look_at(link, tenant, subject, messages)
    });
    // Collected before it is polled: the compiler cannot tell otherwise that the whole can go to another thread.
    let looks: Vec<_> = looks.collect();
    stream::iter(looks)
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await
}

/// How many messages the stream holds of each subject. It is a work queue, so these are the ones that are not settled.
async fn counts(link: &Link) -> Result<HashMap<String, u64>, Fault> {
    let stream = StreamName::Inbound;
    let method = format!("STREAM.INFO.{}", link.names.stream(stream));
    let mut counts = HashMap::new();
    loop {
        let order =
            json!({ "subjects_filter": link.names.subjects(stream), "offset": counts.len() });
        let info: Info = link.api(&method, &order).await?;
        let page = info.state.subjects.unwrap_or_default();
        let is_last = page.is_empty() || counts.len() + page.len() >= info.total;
        counts.extend(page);
        if is_last {
            return Ok(counts);
        }
    }
}

async fn look_at(
    link: &Link,
    tenant: &TenantId,
    subject: String,
    messages: u64,
) -> Result<TenantBacklog, Fault> {
    let mut backlog = TenantBacklog {
        tenant: tenant.as_str().into(),
        messages,
        unacknowledged: Some(0),
        oldest_age: Some(Duration::ZERO),
    };
    if messages > 0 {
        (backlog.unacknowledged, backlog.oldest_age) =
            tokio::try_join!(unacknowledged(link, tenant), oldest_age(link, &subject))?;
    }
    Ok(backlog)
}

/// How many messages are delivered and not settled; `None` where that cannot be known.
async fn unacknowledged(link: &Link, tenant: &TenantId) -> Result<Option<u64>, Fault> {
    let (stream, consumer) = (
        link.names.stream(StreamName::Inbound),
        link.names.consumer(tenant),
    );
    let method = format!("CONSUMER.INFO.{stream}.{consumer}");
    match link.api::<Progress>(&method, &json!({})).await {
        Ok(progress) => Ok(Some(progress.num_ack_pending)),
        Err(fault) if fault.code() == Some(ErrorCode::CONSUMER_NOT_FOUND) => Ok(Some(0)),
        Err(fault) => unknown(fault),
    }
}

/// How long ago the oldest message was stored; `None` where that cannot be known.
async fn oldest_age(link: &Link, subject: &str) -> Result<Option<Duration>, Fault> {
    let method = format!("STREAM.MSG.GET.{}", link.names.stream(StreamName::Inbound));
    let order = json!({ "seq": 1, "next_by_subj": subject });
    match link.api::<Found>(&method, &order).await {
        Ok(found) => {
            let age = SystemClock.now() - found.message.time;
            // The clocks of two machines.
            Ok(Some(age.try_into().unwrap_or_default()))
        }
        // Settled since they were counted.
        Err(fault) if fault.code() == Some(ErrorCode::NO_MESSAGE_FOUND) => Ok(Some(Duration::ZERO)),
        Err(fault) => unknown(fault),
    }
}

/// What the server does not tell is not known; a server that is away ends the look.
fn unknown<T>(fault: Fault) -> Result<Option<T>, Fault> {
    match matches!(fault, Fault::Denied { .. } | Fault::Refused { .. }) {
        true => Ok(None),
        false => Err(fault),
    }
}
