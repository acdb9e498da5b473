//! Opening a connection: address, certificates and credentials are looked up anew each time.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, ClientTlsConfig, Cmd, ErrorKind, IntoConnectionInfo,
    RedisConnectionInfo, RedisError, RedisResult, TlsCertificates,
};

use super::Config;
use crate::adapters::secret_file::{self, FileError};

/// The most bytes of commands that gather before they must be written. The client's own 8 KiB are full with the commands of
/// three turns, and each write is a system call here and may be one more wake-up of the server.
const WRITE_BUFFER: usize = 64 * 1024;

/// As many commands as turns may be in flight, so that none waits for a place in the queue.
const QUEUE: usize = 1024;

/// The reason why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The settings cannot be used.
    #[error("the settings under `redis` cannot be used: {0}")]
    Settings(#[source] RedisError),
    /// A file of the settings cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The server cannot be reached, or what answers is not a Redis server.
    #[error(transparent)]
    Reach(RedisError),
    /// The server refuses the login.
    #[error(transparent)]
    Login(RedisError),
    /// The server refuses the database.
    #[error(transparent)]
    Database(RedisError),
}

/// A server to connect to, with how to log in.
struct Target {
    client: Client,
    login: Option<Cmd>,
    select: Option<Cmd>,
}

/// Opens a connection and logs in, once and without patience.
pub async fn open(config: &Config) -> Result<MultiplexedConnection, OpenError> {
    let (of_target, timeout) = (config.clone(), config.response_timeout);
    // Files may be on another machine, so they are not read on a thread that runs turns.
    let target = tokio::task::spawn_blocking(move || target(&of_target)).await;
    let target =
        target.map_err(|error| OpenError::Reach(std::io::Error::other(error).into()))??;
    let options = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(timeout))
        .set_response_timeout(Some(timeout))
        .set_pipeline_buffer_size(QUEUE)
        .set_write_backpressure_boundary(WRITE_BUFFER);
    let opened = target
        .client
        .get_multiplexed_async_connection_with_config(&options);
    let mut connection = in_time(timeout, opened).await.map_err(OpenError::Reach)?;
    if let Some(login) = &target.login {
        let answer: RedisResult<()> = login.query_async(&mut connection).await;
        answer.map_err(|error| answered(error, OpenError::Login))?;
    }
    if let Some(select) = &target.select {
        let answer: RedisResult<()> = select.query_async(&mut connection).await;
        answer.map_err(|error| answered(error, OpenError::Database))?;
    }
    Ok(connection)
}

async fn in_time<T>(limit: Duration, work: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    let done = tokio::time::timeout(limit, work).await;
    done.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
}

/// The server's answer to a command of the handshake is about that command, unless it is no answer at all or is one that
/// every command gets.
fn answered(error: RedisError, about: fn(RedisError) -> OpenError) -> OpenError {
    use redis::ServerErrorKind::{BusyLoading, ClusterDown, MasterDown, ReadOnly};
    let kind = error.kind();
    let of_every_command = matches!(
        kind,
        ErrorKind::Server(BusyLoading | ClusterDown | MasterDown | ReadOnly)
    );
    let is_answer = matches!(kind, ErrorKind::Server(_) | ErrorKind::Extension);
    match is_answer && !of_every_command {
        true => about(error),
        false => OpenError::Reach(error),
    }
}

/// The client's own handshake tells neither why a login nor why a database is refused, so both are ours.
fn target(config: &Config) -> Result<Target, OpenError> {
    let info = config.url.expose().into_connection_info();
    let info = info.map_err(OpenError::Settings)?;
    let given = info.redis_settings().clone();
    // A script's call is one small write that must not wait for the answer to the one before it.
    let tcp = info.tcp_settings().clone().set_nodelay(true);
    let bare = RedisConnectionInfo::default().set_skip_set_lib_name();
    let info = info.set_redis_settings(bare).set_tcp_settings(tcp);
    let certificates = certificates(config)?;
    let client = match certificates {
        Some(certificates) => Client::build_with_tls(info, certificates),
        None => Client::open(info),
    };
    Ok(Target {
        client: client.map_err(OpenError::Settings)?,
        login: login(config, &given)?,
        select: (given.db() != 0).then(|| redis::cmd("SELECT").arg(given.db()).take()),
    })
}

fn certificates(config: &Config) -> Result<Option<TlsCertificates>, OpenError> {
    let root_cert = match &config.ca_file {
        Some(file) => Some(secret_file::read("redis.ca_file", file)?),
        None => None,
    };
    let client_tls = match (&config.cert_file, &config.key_file) {
        (Some(cert), Some(key)) => Some(ClientTlsConfig {
            client_cert: secret_file::read("redis.cert_file", cert)?,
            client_key: secret_file::read("redis.key_file", key)?,
        }),
        _ => None,
    };
    Ok(
        (root_cert.is_some() || client_tls.is_some()).then_some(TlsCertificates {
            client_tls,
            root_cert,
        }),
    )
}

/// The login, if there is one: what the settings say wins over what the URL says.
fn login(config: &Config, url: &RedisConnectionInfo) -> Result<Option<Cmd>, OpenError> {
    let username = match (&config.username, &config.username_file) {
        (None, Some(file)) => Some(secret_file::read_text("redis.username_file", file)?),
        (name, _) => name.clone().or_else(|| url.username().map(str::to_owned)),
    };
    let password = secret_file::secret(
        config.password.as_ref(),
        "redis.password_file",
        config.password_file.as_deref(),
    )?;
    let password = password.or_else(|| url.password().map(str::to_owned));
    Ok(password.map(|password| {
        let mut login = redis::cmd("AUTH");
        login.arg(username).arg(password);
        login
    }))
}
