//! A handle on a run for those who watch it from another thread: where the run is, how far it came, and how to stop it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::error::Place;
use super::graph::{FlowIx, NodeIx, Program};

/// Shared by a run and its watchers. Clones are handles on the same run.
///
/// The run stores its position at each node and looks for an interrupt every few hundred steps, so a watcher on another
/// thread stops a run that computes for long, which no timer of the run's own thread can.
#[derive(Clone, Debug, Default)]
pub struct RunMonitor(Arc<Shared>);

/// Told of each node before it runs, on the thread that runs it.
pub trait RunObserver: fmt::Debug + Send + Sync {
    /// This node is about to run.
    fn node_begins(&self, place: Place);
}

#[derive(Debug, Default)]
struct Shared {
    observer: Option<Arc<dyn RunObserver>>,
    interrupted: AtomicBool,
    /// The flow's position plus one in the upper half, the node's in the lower; 0 before the first node.
    at: AtomicU64,
    steps: AtomicU64,
}

impl RunMonitor {
    /// The handle on a run that tells this observer of its nodes, if there is one.
    pub fn observed(observer: Option<Arc<dyn RunObserver>>) -> Self {
        Self(Arc::new(Shared {
            observer,
            ..Shared::default()
        }))
    }

    /// Asks the run to stop. It then fails with [`FlowError::Interrupted`](super::FlowError::Interrupted).
    pub fn interrupt(&self) {
        self.0.interrupted.store(true, Ordering::Relaxed);
    }

    /// Returns whether the run was asked to stop.
    pub fn is_interrupted(&self) -> bool {
        self.0.interrupted.load(Ordering::Relaxed)
    }

    /// Returns the node that the run is at; `None` before the first one. `program` is the program that it runs.
    pub fn position(&self, program: &Program) -> Option<Place> {
        let at = self.0.at.load(Ordering::Relaxed);
        let flow = usize::try_from(at >> 32).ok()?.checked_sub(1)?;
        let node = usize::try_from(at & u64::from(u32::MAX)).ok()?;
        let known = program.flows.get(flow)?.nodes.get(node).is_some();
        known.then(|| program.place(flow, node))
    }

    /// Returns the steps that the run has taken, as of its last look for an interrupt or the last return of
    /// [`advance`](super::advance).
    pub fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::Relaxed)
    }

    pub(super) fn enter(&self, flow: FlowIx, node: NodeIx) {
        let at = ((flow as u64 + 1) << 32) | (node as u64 & u64::from(u32::MAX));
        self.0.at.store(at, Ordering::Relaxed);
    }

    /// A node is about to run for the first time, and not again because its slice has ended.
    pub(super) fn node_begins(&self, program: &Program, (flow, node): (FlowIx, NodeIx)) {
        if let Some(observer) = &self.0.observer {
            observer.node_begins(program.place(flow, node));
        }
    }

    pub(super) fn count(&self, steps: u64) {
        self.0.steps.store(steps, Ordering::Relaxed);
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}
