//! The one connection of a worker, which mends itself.

use std::future::Future;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig, MultiplexedConnection};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, FromRedisValue, IntoConnectionInfo, Pipeline,
    RedisError, RedisResult, TlsCertificates,
};

use super::Config;
use crate::ports::{Refusal, RefusalReason, StoreError};

/// How many bytes of commands may gather before they must be written. The client's own 8 KiB are full with the commands of
/// three turns, and each write is a system call here and may be one more wake-up of the server.
const WRITE_BUFFER: usize = 64 * 1024;

/// Why there is no connection at the start.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The settings cannot work.
    #[error("the settings under `redis` cannot be used: {0}")]
    Settings(#[source] RedisError),
    /// The file of the certificate authority cannot be read.
    #[error("`redis.ca_file` cannot be read: {0}")]
    CaFile(#[source] std::io::Error),
    /// The server does not answer, or not to us.
    #[error(
        "no Redis server at {server} within {patience:?}: {source}; check `redis.url` and that the server runs"
    )]
    Unreachable {
        /// The server, without credentials.
        server: String,
        /// For how long it was waited for.
        patience: Duration,
        /// What the last attempt failed with.
        source: RedisError,
    },
    /// The server refuses the login.
    #[error(
        "redis at {server} refuses the login: {source}; check redis.username and redis.password"
    )]
    Login {
        /// The server, without credentials.
        server: String,
        /// What it says.
        source: RedisError,
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

/// One multiplexed connection. It is opened again when it breaks, and also when it falls silent: a connection whose other
/// end is gone without a word takes what is sent to it and never answers.
pub struct Link {
    client: Client,
    config: ConnectionManagerConfig,
    /// How long any call takes at the most, the time that a reconnect takes included.
    patience: Duration,
    /// Counted up with each replacement, so that many calls that time out together replace it once.
    current: RwLock<(u64, ConnectionManager)>,
}

impl Link {
    /// Prepares the connection; the first call opens it. Must be called inside tokio.
    pub fn new(config: &Config) -> Result<Self, ConnectError> {
        let client = client(config)?;
        let manager = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(config.response_timeout))
            .set_response_timeout(Some(config.response_timeout))
            .set_max_delay(Duration::from_millis(250))
            // As many turns as may be in flight, so that none waits for a place in the queue.
            .set_pipeline_buffer_size(1024)
            .set_write_backpressure_boundary(WRITE_BUFFER);
        let first = ConnectionManager::new_lazy_with_config(client.clone(), manager.clone())
            .map_err(ConnectError::Settings)?;
        Ok(Self {
            client,
            config: manager,
            patience: config.response_timeout * 2,
            current: RwLock::new((0, first)),
        })
    }

    /// Opens another connection, once and without patience: what is wrong is told as it is.
    pub async fn open_once(&self) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(self.config.connection_timeout())
            .set_response_timeout(self.config.response_timeout());
        self.client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    /// Runs a command.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let (generation, mut connection) = self.connection();
        self.settle(generation, command.query_async(&mut connection))
            .await
    }

    /// Runs commands in one write.
    pub async fn query_all<T: FromRedisValue>(&self, commands: &Pipeline) -> RedisResult<T> {
        let (generation, mut connection) = self.connection();
        self.settle(generation, commands.query_async(&mut connection))
            .await
    }

    fn connection(&self) -> (u64, ConnectionManager) {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn settle<T>(
        &self,
        generation: u64,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> RedisResult<T> {
        let answer = tokio::time::timeout(self.patience, answer).await;
        match answer {
            Ok(Err(error)) if error.is_timeout() => {
                self.replace(generation);
                Err(error)
            }
            Ok(answer) => answer,
            // It is being opened again already, which takes longer than a call may.
            Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        }
    }

    /// Drops a connection that fell silent. Calls that still wait on it keep it until they are through.
    fn replace(&self, silent: u64) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.0 != silent {
            return;
        }
        match ConnectionManager::new_lazy_with_config(self.client.clone(), self.config.clone()) {
            Ok(next) => *current = (silent + 1, next),
            Err(error) => tracing::error!(%error, "the silent redis connection was not replaced"),
        }
    }
}

fn client(config: &Config) -> Result<Client, ConnectError> {
    let info = config
        .url
        .expose()
        .into_connection_info()
        .map_err(ConnectError::Settings)?;
    let mut login = info.redis_settings().clone();
    if let Some(username) = &config.username {
        login = login.set_username(username);
    }
    if let Some(password) = &config.password {
        login = login.set_password(password.expose());
    }
    // A script's call is one small write that must not wait for the answer to the one before it.
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    let info = info.set_redis_settings(login).set_tcp_settings(tcp);
    let client = match &config.ca_file {
        Some(file) => {
            let certificates = TlsCertificates {
                client_tls: None,
                root_cert: Some(std::fs::read(file).map_err(ConnectError::CaFile)?),
            };
            Client::build_with_tls(info, certificates)
        }
        None => Client::open(info),
    };
    client.map_err(ConnectError::Settings)
}

/// A key that holds another type of value than it should is corrupt. What the ACL forbids is refused to the tenant whose keys
/// they are. Everything else may pass by itself, or be mended by an operator, so it is worth trying again.
pub fn store_error(error: RedisError) -> StoreError {
    let corrupt = error.code() == Some("WRONGTYPE")
        || matches!(error.kind(), ErrorKind::UnexpectedReturnType);
    if error.code() == Some("NOPERM") {
        StoreError::Refused(Refusal {
            reason: RefusalReason::Permission,
            detail: format!("the ACL of Redis does not let the worker's user do this: {error}"),
        })
    } else if corrupt {
        StoreError::Corrupt {
            what: "key".to_owned(),
            reason: error.to_string(),
        }
    } else {
        StoreError::Unavailable(Box::new(error))
    }
}
