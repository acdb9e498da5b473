//! The threads of runs that compute for long: few, of low priority, and each tenant in its turn.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::model::TenantId;
use crate::ports::{Computation, Compute};
use crate::telemetry::ComputeMetrics;

/// How much lower the priority of the compute threads is, as of `nice`: turns of others come first where the processors are
/// taken.
const NICE: i32 = 10;

/// Runs computations on threads of its own. A thread takes a slice of one tenant's oldest computation, then one of the next
/// tenant's, so a tenant with many gets no more than its share while others have any. It ends when it is dropped.
pub struct ComputePool(Arc<Shared>);

/// Runs computations at once, where they are handed over: for tools that have nothing else to do meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct InlineCompute;

struct Shared {
    queue: Mutex<Queue>,
    waiting: Condvar,
    metrics: ComputeMetrics,
}

#[derive(Default)]
struct Queue {
    /// The tenants that have computations, the next one first.
    order: VecDeque<TenantId>,
    /// Their computations, the next one first.
    tenants: HashMap<TenantId, VecDeque<Box<dyn Computation>>>,
    closed: bool,
}

impl ComputePool {
    /// Starts so many threads; half as many as there are cores, and at least one, where nothing is said.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(threads: Option<NonZeroUsize>, metrics: ComputeMetrics) -> io::Result<Self> {
        let threads = compute_threads(threads);
        let shared = Arc::new(Shared {
            queue: Mutex::default(),
            waiting: Condvar::new(),
            metrics,
        });
        for number in 0..threads {
            let shared = Arc::clone(&shared);
            let thread = thread::Builder::new().name(format!("compute-{number}"));
            thread.spawn(move || {
                lower_priority();
                shared.work();
            })?;
        }
        Ok(Self(shared))
    }
}

/// The number of compute threads by this setting: half as many as there are cores, and at least one, where it says nothing.
pub fn compute_threads(setting: Option<NonZeroUsize>) -> usize {
    let half_of_the_cores = || {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        (cores / 2).max(1)
    };
    setting.map_or_else(half_of_the_cores, NonZeroUsize::get)
}

/// Threads have priorities of their own on Linux; elsewhere this would be the whole process.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "a compute thread keeps its priority");
    }
}

impl Compute for ComputePool {
    fn run(&self, tenant: &TenantId, computation: Box<dyn Computation>) {
        self.0.metrics.began(tenant);
        self.0.queue().put(tenant.clone(), computation);
        self.0.waiting.notify_one();
    }
}

impl Compute for InlineCompute {
    fn run(&self, _: &TenantId, mut computation: Box<dyn Computation>) {
        while computation.slice().is_continue() {}
    }
}

impl Drop for ComputePool {
    fn drop(&mut self) {
        let mut queue = self.0.queue();
        queue.closed = true;
        queue.tenants.clear();
        queue.order.clear();
        drop(queue);
        self.0.waiting.notify_all();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some((tenant, mut computation)) = self.next() {
            let began = Instant::now();
            // What panics is over; whoever waits for it learns that from its being dropped.
            let slice = catch_unwind(AssertUnwindSafe(|| computation.slice()));
            self.metrics.computed(&tenant, began.elapsed());
            if matches!(slice, Ok(ControlFlow::Continue(()))) {
                self.queue().put(tenant, computation);
            }
        }
    }

    /// Waits for a computation; none if there will be no more.
    fn next(&self) -> Option<(TenantId, Box<dyn Computation>)> {
        let mut queue = self.queue();
        loop {
            if queue.closed {
                return None;
            }
            if let Some(next) = queue.take() {
                return Some(next);
            }
            queue = (self.waiting.wait(queue)).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Queue {
    fn put(&mut self, tenant: TenantId, computation: Box<dyn Computation>) {
        if self.closed {
            return;
        }
        let own = self.tenants.entry(tenant.clone()).or_default();
        own.push_back(computation);
        if own.len() == 1 {
            self.order.push_back(tenant);
        }
    }

    fn take(&mut self) -> Option<(TenantId, Box<dyn Computation>)> {
        let tenant = self.order.pop_front()?;
        let own = self.tenants.get_mut(&tenant)?;
        let computation = own.pop_front()?;
        if own.is_empty() {
            self.tenants.remove(&tenant);
        } else {
            self.order.push_back(tenant.clone());
        }
        Some((tenant, computation))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// Tells its name at each of its slices.
    struct Told(&'static str, usize, mpsc::Sender<&'static str>);

    impl Computation for Told {
        fn slice(&mut self) -> ControlFlow<()> {
            self.2.send(self.0).unwrap();
            self.1 -= 1;
            match self.1 {
                0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }

    /// Waits until it is let go.
    struct Gate(mpsc::Receiver<()>);

    impl Computation for Gate {
        fn slice(&mut self) -> ControlFlow<()> {
            let _open = self.0.recv_timeout(LONG);
            ControlFlow::Break(())
        }
    }

    struct Panics;

    impl Computation for Panics {
        fn slice(&mut self) -> ControlFlow<()> {
            panic!("on purpose");
        }
    }

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn one_thread() -> ComputePool {
        ComputePool::start(NonZeroUsize::new(1), ComputeMetrics::default()).unwrap()
    }

    #[test]
    fn each_tenant_gets_a_slice_in_its_turn_however_much_another_one_has() {
        let pool = one_thread();
        let (open, gate) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        pool.run(&tenant("gate"), Box::new(Gate(gate)));
        let (loud, quiet) = (tenant("loud"), tenant("quiet"));
        for name in ["l1", "l2", "l3"] {
            pool.run(&loud, Box::new(Told(name, 2, tell.clone())));
        }
        pool.run(&quiet, Box::new(Told("q", 2, tell.clone())));
        drop(tell);
        open.send(()).unwrap();
        let slices: Vec<_> = told.iter().collect();
        assert_eq!(slices, ["l1", "q", "l2", "q", "l3", "l1", "l2", "l3"]);
    }

    #[test]
    fn a_panic_costs_one_computation_and_no_thread() {
        let pool = one_thread();
        pool.run(&tenant("t"), Box::new(Panics));
        let (tell, told) = mpsc::channel();
        pool.run(&tenant("t"), Box::new(Told("next", 1, tell)));
        assert_eq!(told.recv_timeout(LONG), Ok("next"));
    }

    #[test]
    fn what_waits_is_dropped_with_the_pool() {
        let pool = one_thread();
        let (open, gate) = mpsc::channel();
        let (tell, told) = mpsc::channel();
        pool.run(&tenant("t"), Box::new(Gate(gate)));
        pool.run(&tenant("t"), Box::new(Told("never", 1, tell)));
        drop(pool);
        assert_eq!(
            told.recv_timeout(LONG),
            Err(mpsc::RecvTimeoutError::Disconnected)
        );
        drop(open);
    }
}
