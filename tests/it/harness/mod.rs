//! What every integration test stands on.
//!
//! - [`Servers`]: NATS and Redis, shared by the tests of this binary or owned by one of them.
//! - [`WorkerProcess`]: the built worker, to be stopped, killed, paused and read.
//! - [`Tenant`]: a tenant that no other test uses, with gtbinds of its own. [`FixturePack`]: a pack that a test writes.
//! - [`Neighbour`]: a second tenant, whose latency shows what an attack does to it.
//! - [`Provider`]: the other side of the contract: publishes activities, collects replies and dead letters.
//!
//! A test reads like this:
//!
//! ```ignore
//! let servers = Servers::shared().await;
//! let tenant = fresh_tenant().binds("hello-pack", &["main"]);
//! let worker = WorkerProcess::start(&servers, &tenant).await;
//! let mut provider = Provider::connect(&servers, &tenant).await;
//! provider.send(&Message::new("c1", "hi").from("ada")).await;
//! let question = provider.expect_reply().await;
//! worker.kill().await;
//! ```
//!
//! Everything that is started here ends with its owner, and with this process at the latest, however that ends.
#![allow(
    dead_code,
    unused_imports,
    reason = "the harness is one vocabulary; not every word of it is used at any time"
)]

mod activities;
mod certificates;
mod containers;
mod guarded;
mod native;
mod neighbour;
mod packs;
mod processes;
mod servers;
mod tenant;
mod worker_process;

mod tests;

pub use activities::{Dead, Message, Provider, Reply};
pub use certificates::certificate;
pub use guarded::{Guarded, scratch};
pub use native::{NatsServer, RedisServer, free_port};
pub use neighbour::{ConnectedNeighbour, MOST_SLOWDOWN, Neighbour};
pub use packs::FixturePack;
pub use processes::{cpu_seconds, resident_bytes};
pub use servers::{Servers, redis_connection, setting};
pub use tenant::{Tenant, fresh_tenant, pack_id};
pub use worker_process::{WorkerBuilder, WorkerProcess};

use std::time::Duration;

/// How long a test waits for something that should happen soon. Generous, since it costs only a failing test.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Asks again and again, at short distances, until there is an answer; `None` when the time is over.
pub async fn poll<T>(within: Duration, mut ask: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(within, asking).await.ok()
}
