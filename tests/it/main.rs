//! The integration tests: real NATS and Redis servers, real worker processes. `harness` starts both and cleans up.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test that cannot go on fails by panicking, and says so on the terminal"
)]

mod backlog;
mod bounded_memory;
mod bounded_steps;
mod bounds;
mod check;
#[allow(dead_code, reason = "shared with tests that use all of it")]
#[path = "../support/components.rs"]
mod components;
mod contention;
#[path = "../contract/mod.rs"]
mod contract;
mod dead_letters;
mod edges;
mod endpoint;
mod environments;
mod fairness;
mod hanging_backends;
mod harness;
mod hostile_components;
mod kill_points;
mod late_replies;
mod load_balancer_safety;
mod long_turns;
mod messages;
mod metrics;
mod multi_pack;
mod multi_wait;
mod nats;
mod operations;
mod outages;
mod poison;
#[allow(dead_code, reason = "shared with tests that use all of it")]
#[path = "../chaos/proxy.rs"]
mod proxy;
mod refusals;
mod reload;
mod replays;
mod reused_ids;
mod roll_outs;
mod starting;
mod stopped_tenants;
mod tenants;
mod traffic;
mod turn_log;
mod turn_store;
mod unserved;
