//! Sessions, state and the record of what was applied, in Redis: a look and a commit for each turn.
//!
//! - `config`: the settings under `redis`.
//! - `connect`: how a connection is opened. `link`: the one connection of a worker, which mends itself.
//! - `error`: the reasons why a worker does not start. `probe`: what the server must allow, tried out.
//! - `applied`: the record of an applied activity. `notes`: the notes that outboxes are published, gathered into few calls.
//! - [`keys`]: every Redis key there is; nothing else builds one.
//! - `begin.lua`, `commit.lua`: what happens inside Redis, and why in that order.
//! - `script`: how a script is called. `begin`, `commit`: the arguments and answers of BEGIN and COMMIT.
//! - `server`: what the server says about itself, for readiness and warnings.
//!
//! Waits are kept in greentic-session's layout and state in greentic-state's, so that their stock stores read what we
//! write and the other way round. `docs/redis.md` has the table of all keys.

mod applied;
mod begin;
mod commit;
mod config;
mod connect;
mod error;
pub mod keys;
mod link;
mod mismatch;
mod notes;
mod probe;
mod script;
mod server;
mod store;

pub use config::{Config, ServerUrl};
pub use error::ConnectError;
pub use store::RedisStore;
