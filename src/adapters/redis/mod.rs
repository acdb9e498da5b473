//! Sessions, state and the record of what was applied, in Redis: a look and a commit for each turn.
//!
//! - `config`: the settings under `redis`.
//! - `link`: the one connection of a worker, which mends itself.
//! - `notes`: the notes that outboxes are published, gathered into few calls.
//! - [`keys`]: every Redis key there is; nothing else builds one.
//! - `begin.lua`, `commit.lua`: what happens inside Redis, and why in that order.
//! - `script`: how a script is called. `begin`, `commit`: the arguments and answers of BEGIN and COMMIT.
//! - `server`: what the server says about itself, for readiness and warnings.
//!
//! Waits are kept in greentic-session's layout and state in greentic-state's, so that their stock stores read what we
//! write and the other way round. `docs/redis.md` has the table of all keys.

mod begin;
mod commit;
mod config;
pub mod keys;
mod link;
mod notes;
mod script;
mod server;
mod store;

pub use config::{Config, ServerUrl};
pub use link::ConnectError;
pub use store::RedisStore;
