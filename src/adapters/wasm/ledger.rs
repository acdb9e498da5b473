//! What became of each component: ready to be called, or not and why.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use super::compile::Job;
use super::prepare::{Failure, Piece, Prepared, Stats};
use crate::model::{ComponentDigest, Problem, Problems};

/// How long a component that cannot be compiled is not tried again: trying may take minutes of a processor.
const FAILURE_TTL: Duration = Duration::from_secs(60 * 60);

/// What a preparation brought.
#[derive(Clone, Debug, Default)]
pub struct Preparation {
    /// What was done.
    pub stats: Stats,
    /// The components that cannot be called, in the order in which they were asked for.
    pub failed: Vec<FailedComponent>,
    /// The components that are still worked on.
    pub pending: HashSet<ComponentDigest>,
}

/// A component that cannot be called.
#[derive(Clone, Debug)]
pub struct FailedComponent {
    /// The component.
    pub digest: ComponentDigest,
    /// All that is wrong with it.
    pub problems: Problems,
    /// Compiling it would take more than it may: it is not an author's mistake, and must not stop anybody else.
    pub is_excess: bool,
}

/// See the [module](self).
#[derive(Default)]
pub(super) struct Ledger(RwLock<HashMap<ComponentDigest, Entry>>);

enum Entry {
    Ready {
        prepared: Arc<Prepared>,
        was_compiled: bool,
        warning: Option<Problem>,
    },
    Failed {
        failure: Failure,
        since: Instant,
    },
}

impl Ledger {
    /// The component, if it can be called.
    pub(super) fn prepared(&self, digest: ComponentDigest) -> Option<Arc<Prepared>> {
        match self.read().get(&digest)? {
            Entry::Ready { prepared, .. } => Some(Arc::clone(prepared)),
            Entry::Failed { .. } => None,
        }
    }

    /// Returns whether it is known what becomes of it, so that there is nothing to do.
    pub(super) fn is_known(&self, digest: ComponentDigest) -> bool {
        match self.read().get(&digest) {
            Some(Entry::Ready { .. }) => true,
            Some(Entry::Failed { failure, since }) => {
                failure.is_permanent && since.elapsed() < FAILURE_TTL
            }
            None => false,
        }
    }

    /// Notes what became of a component.
    pub(super) fn enter(&self, job: &Job, piece: Piece) {
        let entry = match piece.result {
            Ok(prepared) => Entry::Ready {
                prepared,
                was_compiled: piece.was_compiled,
                warning: piece.warning,
            },
            Err(failure) => Entry::Failed {
                failure,
                since: Instant::now(),
            },
        };
        self.write().insert(job.digest, entry);
    }

    /// Adds what is known of a component to what a preparation brought. `is_new` if it was asked for the first time.
    pub(super) fn tell(&self, digest: ComponentDigest, is_new: bool, found: &mut Preparation) {
        match self.read().get(&digest) {
            Some(Entry::Ready {
                was_compiled,
                warning,
                ..
            }) if is_new => {
                match was_compiled {
                    true => found.stats.compiled += 1,
                    false => found.stats.loaded += 1,
                }
                found.stats.warnings.extend(warning.clone());
            }
            Some(Entry::Failed { failure, .. }) => {
                let mut problems = Problems::default();
                problems.extend(failure.problems.clone());
                found.failed.push(FailedComponent {
                    digest,
                    problems,
                    is_excess: failure.is_excess,
                });
            }
            Some(Entry::Ready { .. }) => {}
            None if found.pending.contains(&digest) => {}
            None => {
                let problem = Problem::error("preparing a component ended early, as the log says");
                found.failed.push(FailedComponent {
                    digest,
                    problems: problem.into(),
                    is_excess: true,
                });
            }
        }
    }

    /// Forgets all others.
    pub(super) fn retain(&self, wanted: &HashSet<ComponentDigest>) {
        self.write().retain(|digest, _| wanted.contains(digest));
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<ComponentDigest, Entry>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<ComponentDigest, Entry>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
