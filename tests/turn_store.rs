//! The contract of `TurnStore` on memory; `it` runs the same cases on Redis.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails by panicking"
)]

mod contract;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use greentic_worker::adapters::memory::MemoryStore;
use greentic_worker::ports::{Clock, TurnStore};
use time::OffsetDateTime;

/// A clock that stands still unless it is moved.
#[derive(Clone)]
struct Hands(Arc<Mutex<OffsetDateTime>>);

impl Clock for Hands {
    fn now(&self) -> OffsetDateTime {
        *self.0.lock().unwrap()
    }
}

struct Memory {
    store: MemoryStore<Hands>,
    clock: Hands,
}

impl contract::Backend for Memory {
    fn store(&self) -> &impl TurnStore {
        &self.store
    }

    fn env(&self) -> &str {
        "dev"
    }

    async fn pass(&self, time: Duration) {
        *self.clock.0.lock().unwrap() += time;
    }
}

async fn memory() -> Memory {
    let clock = Hands(Arc::new(Mutex::new(OffsetDateTime::UNIX_EPOCH)));
    Memory {
        store: MemoryStore::new(clock.clone(), contract::DEDUPE_WINDOW),
        clock,
    }
}

turn_store_contract!(memory());
