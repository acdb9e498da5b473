//! Makes running components yield: a guest that computes gives its thread to others at every tick, and can be ended
//! there.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use wasmtime::Engine;

/// How long a guest may hold a thread at the most.
const TICK: Duration = Duration::from_millis(2);

/// A thread that ticks while calls run and sleeps while none does. Ends when it is dropped.
#[derive(Debug)]
pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    calls: AtomicUsize,
    over: AtomicBool,
}

/// A call that is under way.
#[derive(Debug)]
pub(super) struct Ticking<'a>(&'a Ticker);

impl Ticker {
    pub(super) fn new(engine: &Engine) -> std::io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let (ours, engine) = (Arc::clone(&shared), engine.weak());
        let thread = thread::Builder::new()
            .name("component-ticker".to_owned())
            .spawn(move || {
                while !ours.over.load(Ordering::Acquire) {
                    if ours.calls.load(Ordering::Acquire) == 0 {
                        // An unpark that came before is not lost: this returns at once then.
                        thread::park();
                        continue;
                    }
                    thread::sleep(TICK);
                    let Some(engine) = engine.upgrade() else {
                        return;
                    };
                    engine.increment_epoch();
                }
            })?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Ticks until this is dropped.
    pub(super) fn tick(&self) -> Ticking<'_> {
        if self.shared.calls.fetch_add(1, Ordering::AcqRel) == 0 {
            self.wake();
        }
        Ticking(self)
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }
}

impl Drop for Ticking<'_> {
    fn drop(&mut self) {
        self.0.shared.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the ticker of the components has failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_sleeps_while_nothing_runs_and_ends_with_its_owner() {
        let engine = Engine::default();
        let ticker = Ticker::new(&engine).unwrap();
        let shared = Arc::downgrade(&ticker.shared);
        drop(ticker.tick());
        assert_eq!(ticker.shared.calls.load(Ordering::Acquire), 0);
        drop(ticker);
        assert!(shared.upgrade().is_none(), "the thread still runs");
    }
}
