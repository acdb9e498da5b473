//! The one connection of a worker, which mends itself.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, ErrorKind, FromRedisValue, Pipeline, RedisError, RedisResult, ServerErrorKind};
use tokio::time::Instant;

use super::Config;
use super::connect::{self, OpenError};
use crate::ports::{Refusal, RefusalReason, StoreError};

/// The pauses between two attempts to connect: doubled from the first to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// One multiplexed connection. Another one is opened, to the address that the server's name has by then and with the
/// credentials that the files have by then, when it breaks, when it falls silent (a connection whose other end is gone without
/// a word takes what is sent to it and never answers), and when the server says that another one is in charge.
pub struct Link {
    config: Arc<Config>,
    /// How long any call takes at the most, the time that a reconnect takes included.
    patience: Duration,
    current: RwLock<Current>,
    /// The last error of the attempts to open the current connection.
    trouble: Trouble,
}

type Opening = Shared<BoxFuture<'static, RedisResult<MultiplexedConnection>>>;
type Trouble = Arc<Mutex<Option<RedisError>>>;

#[derive(Clone)]
struct Current {
    /// Counted up with each replacement, so that many calls that fail together replace it once.
    generation: u64,
    connection: Opening,
}

impl Current {
    async fn ready(&self) -> RedisResult<MultiplexedConnection> {
        match self.connection.peek() {
            Some(Ok(connection)) => Ok(connection.clone()),
            _ => self.connection.clone().await,
        }
    }

    fn failed_to_open(&self) -> bool {
        matches!(self.connection.peek(), Some(Err(_)))
    }
}

impl Link {
    /// Goes on with a connection that was opened with these settings. Must be called inside tokio.
    pub fn new(config: Config, first: MultiplexedConnection) -> Self {
        let connection = std::future::ready(Ok(first)).boxed().shared();
        // Polled once, so that it is at hand without another look.
        let _at_hand = connection.clone().now_or_never();
        Self {
            patience: config.response_timeout * 2,
            config: Arc::new(config),
            current: RwLock::new(Current {
                generation: 0,
                connection,
            }),
            trouble: Trouble::default(),
        }
    }

    /// Runs a command.
    pub async fn query<T: FromRedisValue>(&self, command: &Cmd) -> RedisResult<T> {
        let current = self.current();
        let answer = async {
            let mut connection = current.ready().await?;
            command.query_async(&mut connection).await
        };
        self.settle(&current, answer).await
    }

    /// Runs commands in one write.
    pub async fn query_all<T: FromRedisValue>(&self, commands: &Pipeline) -> RedisResult<T> {
        let current = self.current();
        let answer = async {
            let mut connection = current.ready().await?;
            commands.query_async(&mut connection).await
        };
        self.settle(&current, answer).await
    }

    /// Runs commands in one write, each with an answer of its own.
    pub async fn query_each<T: FromRedisValue>(
        &self,
        commands: &mut Pipeline,
    ) -> RedisResult<Vec<RedisResult<T>>> {
        commands.ignore_errors();
        let current = self.current();
        let answers = async {
            let mut connection = current.ready().await?;
            let answers: Vec<RedisResult<T>> = commands.query_async(&mut connection).await?;
            match answers.iter().find_map(|answer| answer.as_ref().err()) {
                Some(error) if wants_another(error) => Err(error.clone()),
                _ => Ok(answers),
            }
        };
        self.settle(&current, answers).await
    }

    fn current(&self) -> Current {
        self.current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    async fn settle<T>(
        &self,
        current: &Current,
        answer: impl Future<Output = RedisResult<T>>,
    ) -> RedisResult<T> {
        let answer = tokio::time::timeout(self.patience, answer).await;
        match answer {
            Ok(Err(error)) if wants_another(&error) || current.failed_to_open() => {
                self.replace(current, &error);
                Err(error)
            }
            Ok(answer) => answer,
            // It is being opened, which takes longer than a call may.
            Err(_) => Err(self.trouble().unwrap_or_else(silence)),
        }
    }

    /// Drops a connection. Calls that still wait on it keep it until they are through.
    fn replace(&self, failed: &Current, error: &RedisError) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if current.generation != failed.generation {
            return;
        }
        if matches!(failed.connection.peek(), Some(Ok(_))) {
            tracing::warn!(%error, "the connection to redis is dropped; connecting anew");
        }
        let opening = tokio::spawn(reopen(
            Arc::clone(&self.config),
            self.patience,
            Arc::clone(&self.trouble),
        ));
        let opening = async {
            let opened = opening.await;
            opened.unwrap_or_else(|ended| Err(std::io::Error::other(ended).into()))
        };
        *current = Current {
            generation: failed.generation + 1,
            connection: opening.boxed().shared(),
        };
    }

    fn trouble(&self) -> Option<RedisError> {
        let trouble = self.trouble.lock();
        trouble.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Opens a connection to a server that takes writes, trying for `patience`.
async fn reopen(
    config: Arc<Config>,
    patience: Duration,
    trouble: Trouble,
) -> RedisResult<MultiplexedConnection> {
    let deadline = Instant::now() + patience;
    let mut pause = FIRST_PAUSE;
    loop {
        let opened = connect::open(&config).await;
        let opened = match opened {
            Ok(connection) => in_charge(&config, connection).await,
            Err(error) => Err(plain(error)),
        };
        let failure = opened.as_ref().err().cloned();
        *trouble.lock().unwrap_or_else(PoisonError::into_inner) = failure;
        if opened.is_ok() || Instant::now() + pause >= deadline {
            if opened.is_ok() {
                tracing::info!("connected to redis again");
            }
            return opened;
        }
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// The connection, if no other server is in charge: a name may go on leading to a server that was demoted for a while. To
/// delete a key that is not there changes nothing, and a server that may not write refuses it.
async fn in_charge(
    config: &Config,
    mut connection: MultiplexedConnection,
) -> RedisResult<MultiplexedConnection> {
    let probe = super::keys::probe(&config.namespace);
    let probed: RedisResult<()> = redis::cmd("DEL")
        .arg(probe)
        .query_async(&mut connection)
        .await;
    match probed {
        Err(error) if wants_another(&error) => Err(error),
        // Whatever else it is, it is not the connection's fault.
        _ => Ok(connection),
    }
}

/// Tells errors that another connection may heal: this one is broken or silent, its login no longer holds, or its server is not the one
/// in charge.
pub fn wants_another(error: &RedisError) -> bool {
    use ErrorKind::{AuthenticationFailed, InvalidClientConfig, Io, Parse, Server};
    use ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly};
    matches!(
        error.kind(),
        Io | Parse
            | AuthenticationFailed
            | InvalidClientConfig
            | Server(BusyLoading | ClusterDown | MasterDown | Moved | ReadOnly)
    ) || matches!(
        error.code(),
        // NOREPLICAS: a master that its replicas have left, perhaps for another one.
        Some("NOAUTH" | "WRONGPASS" | "NOREPLICAS")
    )
}

fn plain(error: OpenError) -> RedisError {
    match error {
        OpenError::Reach(error) | OpenError::Login(error) | OpenError::Database(error) => error,
        OpenError::Settings(_) | OpenError::File(_) => (
            ErrorKind::InvalidClientConfig,
            "no connection to redis can be opened",
            error.to_string(),
        )
            .into(),
    }
}

fn silence() -> RedisError {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
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
