//! The threads that components run on. A component that computes holds up other components at the most, and no turn that
//! calls none.

use std::num::NonZeroUsize;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle, Runtime};
use tokio_util::task::AbortOnDropHandle;

use crate::telemetry::TurnSpan;

/// How much lower their priority is.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// See the [module](self). Ends, with all that runs on it, when it is dropped.
#[derive(Debug)]
pub(super) struct Threads {
    count: usize,
    handle: Handle,
    /// There until the end.
    runtime: Option<Runtime>,
}

impl Threads {
    /// So many threads; as many as there are cores where nothing is said.
    pub(super) fn start(threads: Option<NonZeroUsize>) -> std::io::Result<Self> {
        let threads = threads.or_else(|| available_parallelism().ok());
        let count = threads.map_or(1, NonZeroUsize::get);
        let runtime = Builder::new_multi_thread()
            .worker_threads(count)
            .thread_name("component")
            .on_thread_start(lower_priority)
            // A call that begins waits for one tick of those that run, and not for sixty.
            .global_queue_interval(1)
            .enable_all()
            .build()?;
        Ok(Self {
            count,
            handle: runtime.handle().clone(),
            runtime: Some(runtime),
        })
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Runs this on one of them, for as long as its handle is kept.
    pub(super) fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> AbortOnDropHandle<T> {
        let task = match TurnSpan::current() {
            Some(turn) => self.handle.spawn(turn.around(Box::pin(work))),
            None => self.handle.spawn(work),
        };
        AbortOnDropHandle::new(task)
    }
}

/// Turns come before components that compute. On Linux this is about the calling thread alone.
fn lower_priority() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::nice(NICE) {
        tracing::debug!(%error, "the priority of a thread for components cannot be lowered");
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        // Whoever drops it may be on a thread that must not wait for others.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
