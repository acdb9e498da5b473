//! The archives of other machines, fetched into the cache.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use super::{Fetched, Loader, aside};
use crate::bindings::PackBinding;
use crate::model::{PackId, PackRef, RemoteRef};
use crate::pack::NotFetched;

/// How many archives are fetched at once.
const PARALLEL: usize = 4;

impl Loader {
    /// Fetches the archives of other machines that are not in the cache yet. What the cache takes is not held in memory.
    pub(super) async fn fetch(&self, merged: &[PackBinding]) -> Fetched {
        let mut wanted: BTreeMap<PackId, Vec<&RemoteRef>> = BTreeMap::new();
        for binding in merged {
            if let PackRef::Remote(remote) = &binding.pack_ref.value {
                let references = wanted.entry(binding.pack_id.value).or_default();
                if !references.contains(&remote) {
                    references.push(remote);
                }
            }
        }
        let each = wanted.into_iter().map(|(pack, references)| async move {
            (pack, self.fetch_one(pack, references).await)
        });
        // Gathered first: what holds a closure over references cannot be sent to another thread.
        let each: Vec<_> = each.collect();
        let fetched: Vec<_> = stream::iter(each)
            .buffer_unordered(PARALLEL)
            .collect()
            .await;
        let outside = fetched.into_iter();
        outside
            .filter_map(|(pack, fetched)| Some((pack, fetched.transpose()?)))
            .collect()
    }

    /// The archive, if the cache does not have it by then. Of several addresses the first that does is taken.
    async fn fetch_one(
        &self,
        pack: PackId,
        references: Vec<&RemoteRef>,
    ) -> Result<Option<Vec<u8>>, NotFetched> {
        if self.is_cached(pack).await {
            return Ok(None);
        }
        let limit = self.parts.limits.archive_bytes;
        let mut failure = None;
        for reference in references {
            match self.remote.fetch(&pack, reference, limit).await {
                Ok(bytes) => return Ok(self.store(pack, bytes).await),
                Err(error) => {
                    failure = Some(NotFetched {
                        reason: format!("`{reference}`: {error}"),
                        remedy: error.remedy().to_owned(),
                    });
                }
            }
        }
        failure.map_or(Ok(None), Err)
    }

    async fn is_cached(&self, pack: PackId) -> bool {
        let parts = Arc::clone(&self.parts);
        let there = aside(move || {
            let cache = parts.cache.as_ref()?;
            // What cannot be read is fetched; whether the cache can be written to shows afterwards.
            cache.take(&pack, parts.limits.archive_bytes).ok().flatten()
        });
        matches!(there.await, Ok(Some(_)))
    }

    /// Puts an archive into the cache; gives it back if there is none that takes it.
    async fn store(&self, pack: PackId, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let parts = Arc::clone(&self.parts);
        let stored = aside(move || match &parts.cache {
            Some(cache) if cache.keep(&pack, &bytes).is_ok() => None,
            Some(_) | None => Some(bytes),
        });
        stored.await.ok().flatten()
    }
}
