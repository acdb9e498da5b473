//! Replies that the stream of replies holds already, whatever its duplicate window has forgotten.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tracing::warn;

use super::fault::Fault;
use super::link::Link;
use super::names::StreamName;
use super::stream_reader::StreamReader;
use crate::model::{TenantId, header};

/// The most positions of the stream that are looked through, the latest ones.
const MOST_POSITIONS: u64 = 50_000;

/// What the clocks of the servers of two streams may differ by.
const SKEW: Duration = Duration::from_secs(10);

/// Returns which replies of a tenant, by their ids, the stream holds of those that were stored since then. Where the stream may not
/// be read, none of them.
pub(super) async fn held(
    link: &Arc<Link>,
    tenant: &TenantId,
    (ids, since): (&[&str], Option<OffsetDateTime>),
) -> Result<Vec<bool>, Fault> {
    match find(link, tenant, (ids, since)).await {
        Err(fault) if fault.is_refusal() => {
            warn!(%tenant, %fault, "the stream of replies may not be read, so a reply that is published late may be there twice");
            Ok(vec![false; ids.len()])
        }
        held => held,
    }
}

async fn find(
    link: &Arc<Link>,
    tenant: &TenantId,
    (ids, since): (&[&str], Option<OffsetDateTime>),
) -> Result<Vec<bool>, Fault> {
    let (stream, names) = (StreamName::Outbound, &link.names);
    let reader = StreamReader::new(Arc::clone(link), names.stream(stream));
    let subject = names.subject(stream, tenant);
    let extent = reader.extent().await?;
    let mut held = vec![false; ids.len()];
    if extent.messages == 0 {
        return Ok(held);
    }
    let mut first = match since {
        Some(since) => reader.first_since(&subject, extent, since - SKEW).await?,
        None => extent.first,
    };
    let latest = extent.last.saturating_sub(MOST_POSITIONS - 1);
    if first < latest {
        warn!(%tenant, "only the last {MOST_POSITIONS} messages of the stream of replies are looked through for replies that are published late");
        first = latest;
    }
    let mut scan = reader.scan(subject, first, extent.last);
    while let Some(message) = scan.next().await?
        && held.contains(&false)
    {
        let headers = message.headers();
        let id = headers.get(header::MSG_ID);
        if let Some(at) = ids.iter().position(|wanted| Some(*wanted) == id) {
            held[at] = true;
        }
    }
    Ok(held)
}
