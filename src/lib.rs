//! A stateless worker that runs conversation flows from NATS, exactly once.
//!
//! The modules, in reading order:
//!
//! - [`model`]: the words of the product: ids, activities, outbound messages, problems found at load.
//! - [`flow`]: the pure flow machine: compiled graphs, templates, routing, `advance`.
//! - [`yaml`]: YAML read strictly, with the line of each problem.
//! - [`pack`]: `.gtpack` archives and the authoring format they are built from.
//! - [`bindings`]: `*.gtbind` files: which tenant runs which pack, with which variables.
//! - [`registry`]: (tenant, pack, flow) to the compiled flow; which flow a message starts.
//! - [`catalog`]: loads the registry from bindings and packs, with all problems at once.
//! - [`ports`]: what a turn needs of the outside world, as traits.
//! - [`budget`]: the memory in use, by tenant, against one limit.
//! - [`turn`]: one activity, start to end: begin, advance, commit, publish, disposition.
//! - [`worker`]: pulls deliveries, runs turns in parallel, keeps each conversation in order, drains.
//! - [`adapters`]: the ports on NATS, Redis, wasmtime and memory; the operator's HTTP endpoint.
//! - [`settings`], [`telemetry`]: configuration layers; logs, metrics and health.
//! - [`chat`]: a provider in the terminal.
//! - [`rehearsal`]: plays the tests that authors write beside their flows, on real turns.
//! - [`app`]: the composition root; [`cli`]: the commands.

pub mod adapters;
pub mod app;
pub mod bindings;
pub mod budget;
pub mod catalog;
pub mod chat;
pub mod cli;
pub mod flow;
pub mod model;
pub mod pack;
pub mod ports;
pub mod registry;
pub mod rehearsal;
pub mod settings;
pub mod telemetry;
pub mod turn;
pub mod worker;
pub mod yaml;
