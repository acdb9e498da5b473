//! The threads that turns run on.

use std::io;
use std::num::NonZeroUsize;
use std::thread;

use tokio::runtime::{Builder, Handle};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

/// A runtime on threads of its own. Whoever drops it does not wait for what computes there.
pub struct TurnThreads {
    runtime: Handle,
    _until: DropGuard,
}

impl TurnThreads {
    /// Starts so many threads. By itself a thread keeps all of a turn in one cache, and writes what many turns send at once.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn start(threads: NonZeroUsize) -> io::Result<Self> {
        let mut builder = match threads.get() {
            1 => Builder::new_current_thread(),
            more => {
                let mut builder = Builder::new_multi_thread();
                builder.worker_threads(more).thread_name("turns");
                builder
            }
        };
        let runtime = builder.enable_all().build()?;
        let handle = runtime.handle().clone();
        let until = CancellationToken::new();
        let over = until.clone().cancelled_owned();
        thread::Builder::new()
            .name("turns".to_owned())
            .spawn(move || {
                runtime.block_on(over);
                runtime.shutdown_background();
            })?;
        Ok(Self {
            runtime: handle,
            _until: until.drop_guard(),
        })
    }

    /// Runs this on them.
    pub fn spawn<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> JoinHandle<T> {
        self.runtime.spawn(work)
    }
}
