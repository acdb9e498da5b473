//! The turn store on Redis: the contract, what is left in the server, greentic's stock stores, failing servers.

pub mod backend;
mod connection;
mod failover;
mod keyspace;
mod notes;
mod refusals;
mod state_interop;
mod unreadable;
mod wait_interop;

use backend::Redis;

crate::turn_store_contract!(Redis::start());
