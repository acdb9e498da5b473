//! Sessions, state and the record of what was applied, in memory: for `chat`, unit tests and the simulation.
//!
//! Waits are kept by greentic-session's own in-memory store (`waits`), the rest by maps (`store`). Time is the clock's
//! alone, so that a test or a simulation can move it.

mod store;
mod waits;

pub use store::MemoryStore;
