//! Which NATS and Redis the tests use: `IT_SERVERS` is `containers`, `native` or `external` (`IT_NATS_URL`,
//! `IT_REDIS_URL`) and then nothing else will do; unset, containers where they work, else native ones.

use std::any::Any;
use std::sync::OnceLock;

use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

use super::native::{NatsServer, RedisServer};
use super::{DEADLINE, containers};

/// The addresses of a NATS server with JetStream and of a Redis server.
#[derive(Clone, Debug)]
pub struct Servers {
    /// `nats://host:port`.
    pub nats_url: String,
    /// `redis://host:port`.
    pub redis_url: String,
}

impl Servers {
    /// The servers that all tests of this process share. The first caller starts them.
    pub async fn shared() -> Self {
        static SHARED: OnceLock<Result<Servers, String>> = OnceLock::new();
        let shared = tokio::task::spawn_blocking(|| SHARED.get_or_init(start));
        match shared.await.expect("starting servers does not panic") {
            Ok(servers) => servers.clone(),
            Err(why) => panic!("no servers to test against: {why}"),
        }
    }

    /// Servers of the test's own.
    pub fn own(nats: &NatsServer, redis: &RedisServer) -> Self {
        Self {
            nats_url: nats.url(),
            redis_url: redis.url(),
        }
    }
}

/// A connection of the test's own to Redis. The client's own half a second for an answer is too short for a busy machine.
pub async fn redis_connection(url: &str) -> MultiplexedConnection {
    let client = redis::Client::open(url).expect("the URL of a server");
    let patient = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(DEADLINE))
        .set_response_timeout(Some(DEADLINE));
    let connection = client.get_multiplexed_async_connection_with_config(&patient);
    connection.await.expect("Redis is there")
}

/// The harness's settings: nothing of the product reads the environment here.
pub fn setting(name: &str) -> Option<String> {
    #[expect(clippy::disallowed_methods, reason = "tests have no settings file")]
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// Starts the servers on a thread of their own that keeps them until the process ends: a test's tokio ends with it.
fn start() -> Result<Servers, String> {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a thread can have a tokio");
        let (servers, _kept) = match tokio.block_on(choose()) {
            Ok((servers, kept)) => (Ok(servers), Some(kept)),
            Err(why) => (Err(why), None),
        };
        // The receiver waits for exactly this.
        let _told = tell.send(servers);
        tokio.block_on(std::future::pending::<()>());
    });
    told.recv()
        .map_err(|_| "starting them panicked".to_owned())?
}

/// What must stay alive for the servers to stay up.
type Kept = Box<dyn Any>;

async fn choose() -> Result<(Servers, Kept), String> {
    let wanted = setting("IT_SERVERS");
    let (chosen, how) = match wanted.as_deref() {
        Some("containers") => (in_containers().await?, "containers"),
        Some("native") => (natively().await?, "native"),
        Some("external") => (externally()?, "external"),
        Some(other) => {
            return Err(format!(
                "IT_SERVERS is `{other}`; it can be `containers`, `native` or `external`"
            ));
        }
        None => match in_containers().await {
            Ok(chosen) => (chosen, "containers"),
            Err(why) => {
                eprintln!("integration tests: no containers ({why}), so native servers");
                (natively().await?, "native")
            }
        },
    };
    let Servers {
        nats_url,
        redis_url,
    } = &chosen.0;
    eprintln!("integration tests: {how} servers, {nats_url} and {redis_url}");
    Ok(chosen)
}

async fn in_containers() -> Result<(Servers, Kept), String> {
    let them = containers::start().await?;
    let servers = Servers {
        nats_url: them.nats_url.clone(),
        redis_url: them.redis_url.clone(),
    };
    Ok((servers, Box::new(them)))
}

async fn natively() -> Result<(Servers, Kept), String> {
    let (nats, redis) = tokio::join!(NatsServer::try_start(""), RedisServer::try_start(&[]));
    let them = (nats?, redis?);
    let servers = Servers::own(&them.0, &them.1);
    Ok((servers, Box::new(them)))
}

fn externally() -> Result<(Servers, Kept), String> {
    let url = |name| setting(name).ok_or_else(|| format!("IT_SERVERS=external needs {name}"));
    let servers = Servers {
        nats_url: url("IT_NATS_URL")?,
        redis_url: url("IT_REDIS_URL")?,
    };
    Ok((servers, Box::new(())))
}
