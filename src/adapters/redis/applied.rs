//! The record of an applied activity: the digest of its content, then its outbox as JSON.

use crate::model::{Activity, ContentDigest};
use crate::ports::{AppliedRecord, StoreError};

use super::store::corrupt;

/// An outbox that is published.
const PUBLISHED: &[u8; 2] = b"[]";

/// A record whose outbox is published.
pub type PublishedRecord = [u8; ContentDigest::LEN + PUBLISHED.len()];

/// The record of an activity whose outbox is published.
pub fn published(activity: &Activity) -> PublishedRecord {
    let mut record = PublishedRecord::default();
    let (digest, outbox) = record.split_at_mut(ContentDigest::LEN);
    digest.copy_from_slice(activity.content.as_bytes());
    outbox.copy_from_slice(PUBLISHED);
    record
}

/// Reads a record. Those of workers that knew of no digests are an outbox only.
pub fn read(record: &[u8]) -> Result<AppliedRecord, StoreError> {
    let (content, outbox) = match ContentDigest::split_off(record) {
        Some((content, outbox)) => (Some(content), outbox),
        None => (None, record),
    };
    let outbox = serde_json::from_slice(outbox).map_err(|error| corrupt("outbox", &error))?;
    Ok(AppliedRecord { content, outbox })
}
