//! Sessions, state and the record of what was applied, in memory: for `chat`, unit tests and the simulation. And
//! components that a function plays.
//!
//! Waits are kept by greentic-session's own in-memory store (`waits`), the rest by maps (`store`). Time is the clock's
//! alone, so that a test or a simulation can move it.

mod components;
mod store;
mod waits;

pub use components::{Act, PlayedComponents};
pub use store::MemoryStore;
