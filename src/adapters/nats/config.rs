//! The settings of the connection, of delivery and of the streams.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::ServerAddr;
use serde::{Deserialize, Serialize};

use super::names::{Names, StreamName};
use crate::model::Secret;

mod validate;

/// The shortest window that nats-server takes for recognising duplicates.
pub(super) const SHORTEST_WINDOW: Duration = Duration::from_millis(100);

/// How to reach NATS and what to find there: the `nats` section of the settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The server, or several of one cluster separated by commas: `nats://host:4222`, or `tls://` where TLS is a must.
    pub url: String,
    /// The name under which the server lists this connection.
    pub name: String,
    /// The user, where the server asks for user and password.
    pub user: Option<String>,
    /// A file that holds the user's name; in place of `user`. All files with credentials are read again at each connect.
    pub user_file: Option<PathBuf>,
    /// The user's password.
    pub password: Option<Secret>,
    /// A file that holds the user's password; in place of `password`.
    pub password_file: Option<PathBuf>,
    /// The token, where the server asks for one.
    pub token: Option<Secret>,
    /// A file that holds the token; in place of `token`.
    pub token_file: Option<PathBuf>,
    /// A credentials file (JWT and seed), as `nsc` writes it.
    pub creds_file: Option<PathBuf>,
    /// The seed of an nkey user, `SU...`.
    pub nkey_seed: Option<Secret>,
    /// A file that holds the seed of an nkey user.
    pub nkey_seed_file: Option<PathBuf>,
    /// TLS. A server that demands TLS gets it whatever is said here.
    pub tls: Tls,
    /// The beginning of the subjects that answers and pulled messages come to; `_INBOX` unless set. For users that may
    /// subscribe to inboxes of their own only.
    pub inbox_prefix: Option<String>,
    /// The place of JetStream.
    pub jetstream: JetStream,
    /// Connect to the servers in `url` only, and not to others of their cluster that they tell of: where those have addresses
    /// that cannot be reached from here.
    pub ignore_discovered_servers: bool,
    /// Try the servers in the order of `url`, and not in a random one.
    pub retain_servers_order: bool,
    /// How long the start waits for a server; afterwards the worker reconnects for ever.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long the worker waits for an answer of the server, such as the acknowledgement of a publish.
    #[serde(with = "humantime_serde")]
    pub request_timeout: Duration,
    /// How often the connection is probed. A dead one is noticed after about three times this.
    #[serde(with = "humantime_serde")]
    pub ping_interval: Duration,
    /// The longest pause between two attempts to reconnect.
    #[serde(with = "humantime_serde")]
    pub reconnect_delay: Duration,
    /// `jetstream`: messages are stored and delivered until they are settled. `core`: for a server without JetStream;
    /// what is in flight when a worker or the server stops is lost.
    pub delivery: DeliveryMode,
    /// `on`: make the streams and consumers that are missing. `off`: make nothing and say what is missing.
    pub provision: Provision,
    /// The beginning of the names of subjects, streams and consumers, where several environments share a NATS account.
    pub prefix: Option<String>,
    /// How long the server waits for a worker's sign of life before it delivers a message again.
    #[serde(with = "humantime_serde")]
    pub ack_wait: Duration,
    /// How long the outbound and dead letter streams recognise a message that is published again. A reply that is later than
    /// half of it is looked for in the stream before it is published. The server keeps every id of the window in memory.
    #[serde(with = "humantime_serde")]
    pub duplicate_window: Duration,
    /// The time between two looks for messages of tenants that nobody serves; zero for never.
    #[serde(with = "humantime_serde")]
    pub unserved_every: Duration,
    /// The time between two looks at how many messages wait; zero for never.
    #[serde(with = "humantime_serde")]
    pub backlog_every: Duration,
    /// The stream of inbound messages. Whatever an age or size limit drops from it is lost.
    pub inbound: StreamConfig,
    /// The stream of replies. It keeps them for as long as its limits say, whether they were read or not.
    pub outbound: OutboundConfig,
    /// The stream of dead letters.
    pub deadletter: StreamConfig,
}

/// The `nats.jetstream` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JetStream {
    /// The domain of the JetStream to use, where it is that of another server than the one that the worker connects to.
    pub domain: Option<String>,
    /// The beginning of the subjects of its API, where an account imports it under a name of its own; in place of `domain`.
    pub api_prefix: Option<String>,
}

/// The `nats.tls` section.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Refuse a server that does not speak TLS.
    pub required: bool,
    /// Shake hands before anything else is said, as a server with `handshake_first` wants it.
    pub handshake_first: bool,
    /// The certificates (PEM) to trust, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The worker's own certificate (PEM), for a server that verifies its clients.
    pub cert_file: Option<PathBuf>,
    /// The private key (PEM) of that certificate.
    pub key_file: Option<PathBuf>,
}

/// A stream as it is made. One that exists is compared with this and left as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StreamConfig {
    /// `file`, or `memory`, which a restart of the server empties.
    pub storage: Storage,
    /// How many servers of a cluster hold each message: 1 to 5.
    pub replicas: usize,
    /// Messages older than this are dropped; none keeps them.
    #[serde(with = "humantime_serde")]
    pub max_age: Option<Duration>,
    /// The largest size in bytes; none is no limit. A full stream takes nothing more.
    pub max_bytes: Option<u64>,
}

/// The stream of replies as it is made: as [`StreamConfig`], and what it does when it is full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OutboundConfig {
    /// See [`StreamConfig::storage`].
    pub storage: Storage,
    /// See [`StreamConfig::replicas`].
    pub replicas: usize,
    /// See [`StreamConfig::max_age`].
    #[serde(with = "humantime_serde")]
    pub max_age: Option<Duration>,
    /// The largest size in bytes; none is no limit.
    pub max_bytes: Option<u64>,
    /// What a full stream does.
    pub discard: Discard,
}

/// What the full stream of replies does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Discard {
    /// It drops its oldest replies, whether they were read or not.
    Old,
    /// It takes no reply until there is room: the turns of the tenants that it refuses wait in the inbound stream.
    New,
}

/// See [`Config::delivery`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryMode {
    /// At least once from the server, exactly once in effect.
    JetStream,
    /// At most once.
    Core,
}

/// See [`Config::provision`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provision {
    /// Make what is missing.
    On,
    /// Make nothing.
    Off,
}

/// Where a stream keeps its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// On disk.
    File,
    /// In the server's memory.
    Memory,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            url: "nats://127.0.0.1:4222".to_owned(),
            name: "greentic-worker".to_owned(),
            user: None,
            user_file: None,
            password: None,
            password_file: None,
            token: None,
            token_file: None,
            creds_file: None,
            nkey_seed: None,
            nkey_seed_file: None,
            tls: Tls::default(),
            inbox_prefix: None,
            jetstream: JetStream::default(),
            ignore_discovered_servers: false,
            retain_servers_order: false,
            connect_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(5),
            ping_interval: Duration::from_secs(5),
            reconnect_delay: Duration::from_secs(1),
            delivery: DeliveryMode::JetStream,
            provision: Provision::On,
            prefix: None,
            ack_wait: Duration::from_secs(30),
            duplicate_window: Duration::from_secs(10 * 60),
            unserved_every: Duration::from_secs(30),
            backlog_every: Duration::from_secs(10),
            inbound: StreamConfig::default(),
            outbound: OutboundConfig::default(),
            deadletter: StreamConfig::default(),
        }
    }
}

impl Default for OutboundConfig {
    fn default() -> Self {
        Self {
            storage: Storage::File,
            replicas: 1,
            max_age: Some(Duration::from_secs(7 * 24 * 60 * 60)),
            max_bytes: None,
            discard: Discard::Old,
        }
    }
}

impl From<&OutboundConfig> for StreamConfig {
    fn from(config: &OutboundConfig) -> Self {
        let OutboundConfig {
            storage,
            replicas,
            max_age,
            max_bytes,
            discard: _,
        } = *config;
        Self {
            storage,
            replicas,
            max_age,
            max_bytes,
        }
    }
}

impl Default for StreamConfig {
    fn default() -> Self {
        Self {
            storage: Storage::File,
            replicas: 1,
            max_age: None,
            max_bytes: None,
        }
    }
}

impl Config {
    /// The section of one stream.
    pub fn stream(&self, stream: StreamName) -> StreamConfig {
        match stream {
            StreamName::Inbound => self.inbound.clone(),
            StreamName::Outbound => (&self.outbound).into(),
            StreamName::DeadLetter => self.deadletter.clone(),
        }
    }

    /// The names of subjects, streams and consumers.
    pub fn names(&self) -> Names {
        Names::new(self.prefix.as_deref())
    }

    /// The servers in [`Config::url`].
    pub(super) fn servers(&self) -> impl Iterator<Item = &str> {
        self.url
            .split(',')
            .map(str::trim)
            .filter(|url| !url.is_empty())
    }

    /// The beginning of the subjects of inboxes.
    pub(super) fn inbox_prefix(&self) -> &str {
        self.inbox_prefix.as_deref().unwrap_or("_INBOX")
    }

    /// The beginning of the subjects of JetStream's API.
    pub(super) fn api_prefix(&self) -> String {
        match (&self.jetstream.api_prefix, &self.jetstream.domain) {
            (Some(prefix), _) => prefix.clone(),
            (None, Some(domain)) => format!("$JS.{domain}.API"),
            (None, None) => "$JS.API".to_owned(),
        }
    }

    /// The name or address and the port of each of these servers.
    pub fn addresses(&self) -> impl Iterator<Item = (String, u16)> {
        self.servers().filter_map(|url| {
            let server: ServerAddr = url.parse().ok()?;
            Some((server.host().to_owned(), server.port()))
        })
    }

    /// How long a stream recognises duplicates. Those of inbound messages are recognised in Redis, per tenant; the server
    /// does it per stream, where the equal ids of two tenants would swallow each other.
    pub(super) fn window(&self, stream: StreamName) -> Duration {
        match stream {
            StreamName::Inbound => SHORTEST_WINDOW,
            StreamName::Outbound | StreamName::DeadLetter => self.duplicate_window,
        }
    }
}

#[cfg(test)]
mod tests;
