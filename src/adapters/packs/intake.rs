//! The bytes of an archive as they come in.

use std::time::{Duration, Instant};

use super::FetchError;
use crate::model::RemoteRef;

/// How often a long download says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);

/// Gathers an archive, and gives up as soon as it is too large.
pub(super) struct Intake<'a> {
    reference: &'a RemoteRef,
    bytes: Vec<u8>,
    limit: u64,
    total: Option<u64>,
    told: Instant,
}

impl<'a> Intake<'a> {
    /// Begins with what the server says of the size.
    pub fn new(
        reference: &'a RemoteRef,
        limit: u64,
        total: Option<u64>,
    ) -> Result<Self, FetchError> {
        if total.is_some_and(|total| total > limit) {
            return Err(FetchError::TooLarge { limit });
        }
        Ok(Self {
            reference,
            bytes: Vec::new(),
            limit,
            total,
            told: Instant::now(),
        })
    }

    /// Takes the next piece.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), FetchError> {
        let (have, limit) = (self.bytes.len() as u64, self.limit);
        if have.saturating_add(piece.len() as u64) > limit {
            return Err(FetchError::TooLarge { limit });
        }
        self.bytes.extend_from_slice(piece);
        if self.told.elapsed() >= TELL_EVERY {
            self.told = Instant::now();
            let (bytes, of) = (self.bytes.len(), self.total);
            tracing::info!(pack_ref = %self.reference, bytes, of, "fetching a pack");
        }
        Ok(())
    }

    /// All of it.
    pub fn finish(self) -> Result<Vec<u8>, FetchError> {
        let have = self.bytes.len() as u64;
        match self.total {
            Some(total) if total != have => Err(FetchError::Unavailable(format!(
                "the connection ended after {have} of {total} bytes"
            ))),
            Some(_) | None => Ok(self.bytes),
        }
    }
}
