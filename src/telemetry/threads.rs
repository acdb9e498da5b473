//! Which turn each thread is at. A thread writes it down around each poll of a turn, for its own log lines and for the
//! watchdog, which is on another thread.

use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;

use super::span::TurnSpan;

thread_local! {
    static THIS: Arc<ThreadTurn> = ThreadTurn::registered();
}

/// The threads that have been at any turn.
static THREADS: Mutex<Vec<Weak<ThreadTurn>>> = Mutex::new(Vec::new());

/// The turn that a thread is at.
pub(super) struct ThreadTurn {
    thread: String,
    turn: Mutex<Option<TurnSpan>>,
}

/// A thread that is at a turn.
#[derive(Clone, Debug)]
pub struct Occupied {
    /// The thread's name.
    pub thread: String,
    /// The turn.
    pub turn: TurnSpan,
}

/// The threads that are at a turn at this instant.
pub fn occupied() -> Vec<Occupied> {
    let threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
    let threads = threads.iter().filter_map(Weak::upgrade);
    let occupied = threads.filter_map(|thread| {
        let turn = thread.get()?;
        let thread = thread.thread.clone();
        Some(Occupied { thread, turn })
    });
    occupied.collect()
}

/// Does something with what is written down of this thread.
pub(super) fn this_thread<T>(work: impl FnOnce(&ThreadTurn) -> T) -> T {
    THIS.with(|thread| work(thread))
}

impl ThreadTurn {
    fn registered() -> Arc<Self> {
        let name = thread::current().name().unwrap_or("unnamed").to_owned();
        let this = Arc::new(Self {
            thread: name,
            turn: Mutex::new(None),
        });
        let mut threads = THREADS.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|thread| thread.strong_count() > 0);
        threads.push(Arc::downgrade(&this));
        this
    }

    pub(super) fn get(&self) -> Option<TurnSpan> {
        self.lock().clone()
    }

    pub(super) fn replace(&self, turn: Option<TurnSpan>) -> Option<TurnSpan> {
        std::mem::replace(&mut *self.lock(), turn)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<TurnSpan>> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
