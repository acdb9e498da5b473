//! The ports on real things.

pub mod bus;
pub mod compute;
pub mod http;
#[cfg(any(test, feature = "it"))]
pub mod kill_points;
pub mod machine;
pub mod memory;
pub mod nats;
pub mod packs;
pub(crate) mod patience;
pub mod redis;
mod secret_file;
pub mod system;
pub mod wasm;
