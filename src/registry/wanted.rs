//! Packs in which conversations are parked and which this worker does not have, on their way to who looks for them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::model::{PackId, TenantId};

/// How long after a pack was asked for it is asked for again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The most packs that are known at a time.
const MOST: usize = 256;

/// A pack that is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedPack {
    /// Whose conversation is parked in it.
    pub tenant: TenantId,
    /// The pack.
    pub pack: PackId,
    /// Where it was bound from, by the worker that parked the conversation.
    pub reference: Option<String>,
    /// It was not asked for before.
    pub is_first: bool,
}

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct WantedPacks {
    queue: Mutex<Queue>,
    news: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    asked: HashMap<PackId, Instant>,
    looked_for: HashSet<PackId>,
    packs: VecDeque<WantedPack>,
}

impl Queue {
    fn take(&mut self) -> Option<WantedPack> {
        let wanted = self.packs.pop_front()?;
        self.looked_for.insert(wanted.pack);
        Some(wanted)
    }
}

impl WantedPacks {
    /// Asks for a pack, unless that was done just now.
    pub fn ask(&self, tenant: &TenantId, pack: PackId, reference: Option<&str>) {
        let now = Instant::now();
        let mut queue = self.queue();
        let asked = queue.asked.get(&pack);
        if queue.looked_for.contains(&pack) {
            return;
        }
        if asked.is_some_and(|asked| now < *asked + AGAIN_AFTER) {
            return;
        }
        let is_first = asked.is_none();
        if queue.asked.len() >= MOST {
            queue.asked.retain(|_, asked| now < *asked + AGAIN_AFTER);
        }
        if queue.asked.len() >= MOST {
            return;
        }
        queue.asked.insert(pack, now);
        queue.packs.push_back(WantedPack {
            tenant: tenant.clone(),
            pack,
            reference: reference.map(str::to_owned),
            is_first,
        });
        drop(queue);
        self.news.notify_one();
    }

    /// The next one, for one who waits at a time.
    pub async fn next(&self) -> WantedPack {
        loop {
            if let Some(wanted) = self.queue().take() {
                return wanted;
            }
            self.news.notified().await;
        }
    }

    /// One has been looked for, and may be asked for again.
    pub fn done(&self, pack: PackId) {
        let mut queue = self.queue();
        if queue.looked_for.remove(&pack) {
            queue.asked.insert(pack, Instant::now());
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pack_is_asked_for_now_and_then_however_many_messages_want_it() {
        let (wanted, tenant) = (WantedPacks::default(), TenantId::new("t").unwrap());
        let pack = PackId::of_archive(b"pack");
        for _ in 0..3 {
            wanted.ask(&tenant, pack, Some("store://a@1.0.0"));
        }
        let first = wanted.next().await;
        assert_eq!(first.reference.as_deref(), Some("store://a@1.0.0"));
        assert!(first.is_first && wanted.next().now_or_never().is_none());
        tokio::time::advance(AGAIN_AFTER).await;
        wanted.ask(&tenant, pack, None);
        assert!(wanted.next().now_or_never().is_none(), "it is looked for");
        wanted.done(pack);
        tokio::time::advance(AGAIN_AFTER).await;
        wanted.ask(&tenant, pack, None);
        assert!(!wanted.next().await.is_first);
    }
}
