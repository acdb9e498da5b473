//! The operator's endpoint: `GET /livez`, `/readyz` and `/metrics`.
//!
//! It is open to whoever reaches its port, so nothing that a client does or leaves undone may cost more than a connection,
//! and that not for long: `server` bounds the connections, `pages` what is answered.

mod pages;
mod server;

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

use crate::telemetry::{Health, Metrics};

/// The settings under `http`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where the endpoint listens.
    pub listen: Listen,
    /// Connections that are open at once. One more closes the one whose last request is the oldest.
    pub connections: NonZeroUsize,
    /// How long a connection stays open without a further request: in that time a request must arrive and its answer be
    /// read.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// The worker counts as stalled when no pull has come to its end for this long.
    #[serde(with = "humantime_serde")]
    pub stalled_after: Duration,
}

/// Where the endpoint listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Listen {
    /// Nowhere.
    Off,
    /// At this address.
    At(SocketAddr),
}

/// A text that is neither an address nor `off`.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is nowhere to listen: expected an address such as `127.0.0.1:8080`, or `off`")]
pub struct InvalidListen(String);

/// The sources of what the endpoint answers.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// For `/livez` and `/readyz`.
    pub health: Arc<Health>,
    /// For `/metrics`.
    pub metrics: Arc<Metrics>,
}

/// Serves the endpoint on a bound listener until the future is dropped, which closes every connection.
pub async fn serve(listener: TcpListener, endpoint: Endpoint, config: Config) {
    server::serve(listener, pages::Pages::new(endpoint), &config).await;
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: Listen::At(SocketAddr::from(([127, 0, 0, 1], 8080))),
            connections: const { NonZeroUsize::new(64).unwrap() },
            timeout: Duration::from_secs(10),
            stalled_after: Duration::from_secs(60),
        }
    }
}

impl FromStr for Listen {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse()
            .map(Self::At)
            .map_err(|_| InvalidListen(text.to_owned()))
    }
}

impl TryFrom<String> for Listen {
    type Error = InvalidListen;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::At(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests;
