//! The reasons why a worker does not start with its Redis, each with its remedy.

use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::connect::OpenError;
use crate::adapters::secret_file::FileError;

/// The reason why there is no connection at the start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings cannot work.
    #[error("the settings under `redis` cannot be used: {0}")]
    Settings(#[source] RedisError),
    /// A file of the settings cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The server does not answer, or is not ready for work.
    #[error("no Redis server at {server} within {patience:?}: {source}; {advice}")]
    Unreachable {
        /// The server, without credentials.
        server: String,
        /// For how long it was waited for.
        patience: Duration,
        /// The last attempt's error.
        source: RedisError,
        /// The remedy.
        advice: &'static str,
    },
    /// The server refuses the login.
    #[error("redis at {server} refuses the login: {source}; {advice}")]
    Login {
        /// The server, without credentials.
        server: String,
        /// The server's words.
        source: RedisError,
        /// The remedy.
        advice: &'static str,
    },
    /// The server refuses the database of the URL.
    #[error("redis at {server} refuses the database that the URL names: {source}; {advice}")]
    Database {
        /// The server, without credentials.
        server: String,
        /// The server's words.
        source: RedisError,
        /// The remedy.
        advice: &'static str,
    },
    /// There is no trusted way to talk to the server.
    #[error(
        "no TLS with redis at {server}: {source}; check `redis.ca_file`, `redis.cert_file`, `redis.key_file` and the host name in `redis.url`, and write redis:// if the server does not speak TLS"
    )]
    Tls {
        /// The server, without credentials.
        server: String,
        /// The failure of the handshake.
        source: RedisError,
    },
    /// The server speaks TLS and we do not, or the other way round.
    #[error("{}", mismatch(server))]
    Scheme {
        /// The server, without credentials.
        server: String,
    },
    /// Something else than a Redis server answers.
    #[error(
        "what answers at {server} does not speak the protocol of Redis: {source}; check host and port in `redis.url`, and write rediss:// if the server expects TLS"
    )]
    NotRedis {
        /// The server, without credentials.
        server: String,
        /// The failure to read it.
        source: RedisError,
    },
    /// The server is a Redis, but not one that holds data by itself.
    #[error("redis at {server} is {mode}")]
    Mode {
        /// The server, without credentials.
        server: String,
        /// The kind of server, and the remedy.
        mode: &'static str,
    },
    /// The server refuses what every worker does.
    #[error("redis at {server} refuses the worker: {source}; {advice}")]
    Refused {
        /// The server, without credentials.
        server: String,
        /// The server's words.
        source: RedisError,
        /// The remedy.
        advice: &'static str,
    },
    /// The server is older than what the scripts need.
    #[error("redis at {server} is version {version}; the worker needs 6.0 or later")]
    TooOld {
        /// The server, without credentials.
        server: String,
        /// Its version.
        version: String,
    },
}

fn mismatch(server: &str) -> String {
    match server.starts_with("rediss:") || server.starts_with("valkeys:") {
        true => format!(
            "redis at {server} does not speak TLS; write redis:// in `redis.url`, or the port that it has for TLS"
        ),
        false => format!("redis at {server} expects TLS; write rediss:// in `redis.url`"),
    }
}

/// A sentinel, in the words of [`ConnectError::Mode`].
pub const SENTINEL: &str =
    "a Sentinel, which holds no data; `redis.url` must name the master, or a name that follows it";
/// A node of a cluster, in the words of [`ConnectError::Mode`].
pub const CLUSTER: &str = "a node of a Redis Cluster, and a turn's keys are in several slots; `redis.url` must name one \
                           server (with replicas as you like)";

/// An error of opening a connection: one that time may heal, or the words that end the waiting.
pub fn verdict(error: OpenError, server: &str) -> Result<RedisError, ConnectError> {
    let server = server.to_owned();
    match error {
        OpenError::Settings(source) => Err(ConnectError::Settings(source)),
        OpenError::File(error) => Err(error.into()),
        OpenError::Reach(source) => reach(source, server),
        // Sent to whoever connects, and so to the first command; there is no code for it.
        OpenError::Login(source) | OpenError::Database(source) if is_crowded(&source) => Ok(source),
        OpenError::Login(source) => Err(refused(source, server, login)),
        OpenError::Database(source) => Err(database(source, server)),
    }
}

fn reach(source: RedisError, server: String) -> Result<RedisError, ConnectError> {
    let kind = source.kind();
    if kind == ErrorKind::Parse {
        Err(ConnectError::NotRedis { server, source })
    } else if kind == ErrorKind::InvalidClientConfig {
        Err(ConnectError::Settings(source))
    } else if is_tls(&source) {
        Err(ConnectError::Tls { server, source })
    } else {
        Ok(source)
    }
}

/// The verdict on the answer to a command that every worker sends.
pub fn command(source: RedisError, server: &str) -> Result<RedisError, ConnectError> {
    use ServerErrorKind::{ClusterDown, CrossSlot, Moved};
    let server = server.to_owned();
    if matches!(
        source.kind(),
        ErrorKind::Server(ClusterDown | CrossSlot | Moved)
    ) {
        return Err(ConnectError::Mode {
            server,
            mode: CLUSTER,
        });
    }
    if is_crowded(&source) {
        return Ok(source);
    }
    match source.code() {
        Some("NOAUTH" | "NOPERM") => Err(refused(source, server, login)),
        Some("DENIED") => Err(ConnectError::Refused {
            server,
            source,
            advice: "give the server a password (`requirepass`) or switch its protected mode off",
        }),
        _ => reach(source, server),
    }
}

fn refused(
    source: RedisError,
    server: String,
    advice: fn(&RedisError) -> &'static str,
) -> ConnectError {
    ConnectError::Login {
        advice: advice(&source),
        server,
        source,
    }
}

fn login(source: &RedisError) -> &'static str {
    match source.code() {
        Some("NOAUTH") => {
            "the server wants a password: set `redis.password` or `redis.password_file` (and `redis.username` for an ACL user)"
        }
        Some("NOPERM") => "grant the user what docs/redis.md lists",
        Some("ERR") => {
            "the server has no password for its default user: leave `redis.password` out, or set `redis.username`"
        }
        _ => "check `redis.username` and `redis.password`, or the files that hold them",
    }
}

fn database(source: RedisError, server: String) -> ConnectError {
    let advice = match source.code() {
        Some("NOAUTH") => return refused(source, server, login),
        Some("NOPERM") => {
            "grant the user `+select`, or leave the number at the end of `redis.url` out"
        }
        _ => {
            "check the number at the end of `redis.url`: the server has as many as its setting `databases` says (16 by default), from 0 on"
        }
    };
    ConnectError::Database {
        server,
        source,
        advice,
    }
}

/// The remedy for an error that waiting did not heal.
pub fn advice(error: &RedisError) -> &'static str {
    use ServerErrorKind::{BusyLoading, MasterDown, ReadOnly};
    let kind = error.kind();
    if matches!(kind, ErrorKind::Server(ReadOnly | MasterDown)) {
        "it is a replica: `redis.url` must name the master, or a name that follows it"
    } else if kind == ErrorKind::Server(BusyLoading) {
        "it is still loading its data: raise `redis.connect_timeout`"
    } else if error.code() == Some("NOREPLICAS") {
        "too few replicas are connected for its `min-replicas-to-write`; check `redis.url` and the replicas"
    } else if is_crowded(error) {
        "raise the server's `maxclients`"
    } else if error.is_connection_dropped() && !error.is_connection_refusal() {
        "it closes the connection at once: check `redis.url`, and what stands between the worker and the server"
    } else if error.is_timeout() {
        "it does not answer: check `redis.url`, that the server runs and that no firewall is between"
    } else {
        "check `redis.url` and that the server runs"
    }
}

/// The one refusal that has no code of its own and passes by itself.
fn is_crowded(error: &RedisError) -> bool {
    let detail = error.detail().unwrap_or_default();
    error.code() == Some("ERR") && detail.contains("max number of clients")
}

/// Tells a failed handshake from other I/O errors.
pub fn is_tls(error: &RedisError) -> bool {
    // The client shares what it got from below, and shows the share.
    type Shared = Arc<dyn std::error::Error + Send + Sync>;
    let cause = std::error::Error::source(error);
    let shared = cause.and_then(|cause| cause.downcast_ref::<Shared>());
    let io = shared.and_then(|cause| cause.downcast_ref::<std::io::Error>());
    io.and_then(std::io::Error::get_ref)
        .is_some_and(|inner| inner.is::<rustls::Error>())
}
