//! The components that wait to be compiled. Tenants take turns: one whose components take long waits behind those that have
//! taken less, and never has all compilers to itself.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use crate::model::{ComponentDigest, TenantId};

/// A component to make ready.
#[derive(Clone, Debug)]
pub struct Job {
    /// The tenant whose pack brought it; none if nobody is waited for by others.
    pub owner: Option<TenantId>,
    /// Its identity.
    pub digest: ComponentDigest,
    /// What its pack calls it.
    pub name: String,
    /// Its code.
    pub bytes: Bytes,
}

/// Work on components that goes on after nobody waits for it any more.
pub(in super::super) struct CompileQueue {
    state: Mutex<State>,
    /// A job was done.
    done: Condvar,
    /// A job was done that nobody waited for to the end.
    late: Notify,
    /// Jobs at once.
    lanes: usize,
}

#[derive(Default)]
struct State {
    waiting: Vec<Job>,
    running: Vec<(ComponentDigest, Option<TenantId>)>,
    /// How long each tenant's jobs took since there was last nothing to do.
    spent: HashMap<TenantId, Duration>,
    /// Jobs that somebody gave up waiting for.
    unattended: HashSet<ComponentDigest>,
}

impl State {
    /// The job to do next: of the owner that had least, the smallest. An owner has one at a time, while others may come.
    fn next(&mut self) -> Option<Job> {
        let busy = |owner: &TenantId| {
            self.running
                .iter()
                .any(|(_, running)| running.as_ref() == Some(owner))
        };
        let spent = |job: &Job| {
            let spent = job.owner.as_ref().and_then(|owner| self.spent.get(owner));
            spent.copied().unwrap_or_default()
        };
        let free = self.waiting.iter().enumerate();
        let free = free.filter(|(_, job)| !job.owner.as_ref().is_some_and(busy));
        let (at, _) = free.min_by_key(|(_, job)| (spent(job), job.bytes.len()))?;
        let job = self.waiting.swap_remove(at);
        self.running.push((job.digest, job.owner.clone()));
        Some(job)
    }

    fn finish(&mut self, job: &Job, took: Duration) {
        self.running.retain(|(digest, _)| *digest != job.digest);
        if let Some(owner) = &job.owner {
            *self.spent.entry(owner.clone()).or_default() += took;
        }
        if self.running.is_empty() && self.waiting.is_empty() {
            self.spent.clear();
        }
    }

    fn has(&self, digest: &ComponentDigest) -> bool {
        self.running.iter().any(|(running, _)| running == digest)
            || self.waiting.iter().any(|job| job.digest == *digest)
    }
}

impl CompileQueue {
    /// Nothing to do yet; so many jobs at once then.
    pub(in super::super) fn new(lanes: usize) -> Self {
        Self {
            state: Mutex::default(),
            done: Condvar::new(),
            late: Notify::new(),
            lanes: lanes.max(1),
        }
    }

    /// Adds jobs that are not there already, and has them done by threads of their own. Gives those that it added.
    pub(in super::super) fn add(
        self: &Arc<Self>,
        jobs: impl IntoIterator<Item = Job>,
        work: &Arc<dyn Fn(&Job) + Send + Sync>,
    ) -> HashSet<ComponentDigest> {
        let mut state = self.lock();
        let mut added = HashSet::new();
        for job in jobs {
            if !state.has(&job.digest) {
                added.insert(job.digest);
                state.waiting.push(job);
            }
        }
        let mut idle = self.lanes.saturating_sub(state.running.len());
        while idle > 0 {
            let Some(job) = state.next() else { break };
            idle -= 1;
            let (queue, first) = (Arc::clone(self), job.clone());
            let lane = {
                let work = Arc::clone(work);
                move || queue.work(first, &*work)
            };
            let started = thread::Builder::new()
                .name("component-compile".to_owned())
                .spawn(lane);
            if let Err(error) = started {
                tracing::warn!(%error, "no thread can be started to compile components");
                // By whoever asks, then.
                drop(state);
                self.work(job, &**work);
                state = self.lock();
            }
        }
        added
    }

    /// Waits until none of these is under way, or until then.
    pub(in super::super) fn wait(
        &self,
        digests: &HashSet<ComponentDigest>,
        until: Option<Instant>,
    ) {
        let mut state = self.lock();
        while digests.iter().any(|digest| state.has(digest)) {
            state = match until {
                None => self
                    .done
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let Some(rest) = until.checked_duration_since(Instant::now()) else {
                        return;
                    };
                    let waited = self.done.wait_timeout(state, rest);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Those of these that are under way. [`CompileQueue::late`] tells of their end.
    pub(in super::super) fn pending(
        &self,
        digests: &HashSet<ComponentDigest>,
    ) -> HashSet<ComponentDigest> {
        let mut state = self.lock();
        let there = digests.iter().filter(|digest| state.has(digest));
        let left: HashSet<_> = there.copied().collect();
        state.unattended.extend(&left);
        left
    }

    /// Returns when a job is done that somebody gave up waiting for.
    pub(in super::super) async fn late(&self) {
        self.late.notified().await;
    }

    fn work(&self, first: Job, work: &(dyn Fn(&Job) + Send + Sync)) {
        let mut next = Some(first);
        while let Some(job) = next {
            let began = Instant::now();
            // What it panics of is its own; the queue goes on.
            let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&job)));
            if worked.is_err() {
                tracing::error!(component = job.name, "compiling a component panicked");
            }
            let mut state = self.lock();
            state.finish(&job, began.elapsed());
            let was_late = state.unattended.remove(&job.digest);
            next = state.next();
            drop(state);
            self.done.notify_all();
            if was_late {
                self.late.notify_one();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(owner: &str, name: &str, size: usize) -> Job {
        Job {
            owner: Some(owner.parse().unwrap()),
            digest: ComponentDigest::of(format!("{owner}{name}").as_bytes()),
            name: name.to_owned(),
            bytes: vec![0; size].into(),
        }
    }

    #[test]
    fn an_owner_has_one_at_a_time_and_waits_behind_those_that_took_less() {
        let mut state = State {
            waiting: vec![
                job("a", "large", 9),
                job("a", "small", 1),
                job("b", "other", 5),
            ],
            ..State::default()
        };
        let first = state.next().unwrap();
        assert_eq!(first.name, "small");
        let second = state.next().unwrap();
        assert_eq!(second.name, "other", "the owner of what runs came first");
        assert!(state.next().is_none(), "an owner has two at a time");
        state.finish(&first, Duration::from_secs(60));
        state.waiting.push(job("c", "late", 100));
        assert_eq!(state.next().unwrap().name, "late");
        state.finish(&second, Duration::ZERO);
        assert_eq!(state.next().unwrap().name, "large");
    }

    #[test]
    fn what_is_late_is_told_and_what_panics_is_over() {
        let queue = Arc::new(CompileQueue::new(1));
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let wait = Mutex::new(wait);
        let work: Arc<dyn Fn(&Job) + Send + Sync> = Arc::new(move |job| {
            if job.name == "slow" {
                wait.lock().unwrap().recv().unwrap();
            } else {
                panic!("as told");
            }
        });
        let (slow, bad) = (job("a", "slow", 1), job("b", "bad", 1));
        let digests = HashSet::from([slow.digest, bad.digest]);
        queue.add([slow.clone()], &work);
        queue.add([slow, bad], &work);
        queue.wait(&digests, Some(Instant::now()));
        assert_eq!(queue.pending(&digests).len(), 2);
        go.send(()).unwrap();
        queue.wait(&digests, None);
        assert!(queue.pending(&digests).is_empty());
        let tokio = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        tokio.block_on(queue.late());
    }
}
