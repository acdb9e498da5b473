//! A store of its own in the Redis that all tests share.

use std::time::Duration;

use greentic_worker::adapters::redis::keys::Keys;
use greentic_worker::adapters::redis::{Config, RedisStore, ServerUrl};
use greentic_worker::model::Activity;
use greentic_worker::ports::TurnStore;
use redis::aio::MultiplexedConnection;

use crate::contract::{Backend, DEDUPE_WINDOW};
use crate::harness::{DEADLINE, Servers, redis_connection};

/// A store under a namespace and an environment that no other test uses, and a connection to look at what it does.
pub struct Redis {
    pub store: RedisStore,
    pub config: Config,
    pub connection: MultiplexedConnection,
    env: String,
}

impl Redis {
    /// One on the shared server.
    pub async fn start() -> Self {
        Self::on(&Servers::shared().await.redis_url).await
    }

    /// One on this server.
    pub async fn on(url: &str) -> Self {
        Self::on_with(url, DEDUPE_WINDOW).await
    }

    /// One on this server that remembers for so long what was applied.
    pub async fn on_with(url: &str, dedupe_window: Duration) -> Self {
        let config = Config {
            url: ServerUrl::new(url),
            namespace: format!("test-{:016x}", fastrand::u64(..)),
            dedupe_window,
            response_timeout: DEADLINE,
            ..Config::default()
        };
        let connection = redis_connection(url).await;
        Self::with(config, connection).await
    }

    /// One with these settings, looked at through this connection.
    pub async fn with(config: Config, connection: MultiplexedConnection) -> Self {
        Self {
            store: RedisStore::connect(&config).await.unwrap(),
            connection,
            env: config.namespace.clone(),
            config,
        }
    }

    /// The keys of an activity.
    pub fn keys<'a>(&'a self, activity: &'a Activity) -> Keys<'a> {
        Keys::new(&self.config.namespace, activity)
    }

    /// Runs a command.
    pub async fn run<T: redis::FromRedisValue>(&self, command: &[&str]) -> T {
        let mut cmd = redis::cmd(command[0]);
        cmd.arg(&command[1..]);
        cmd.query_async(&mut self.connection.clone()).await.unwrap()
    }

    /// All keys of this test, state and all, sorted, with how long they last yet; none for ever.
    pub async fn key_space(&self) -> Vec<(String, Option<Duration>)> {
        let mut keys: Vec<String> = self
            .run(&["KEYS", &format!("{}:{{*", self.config.namespace)])
            .await;
        let state = format!("greentic:state:{}*", self.env);
        keys.extend(self.run::<Vec<String>>(&["KEYS", &state]).await);
        keys.sort();
        let mut found = Vec::new();
        for key in keys {
            let lasts: i64 = self.run(&["PTTL", &key]).await;
            // -2: it expired just now.
            if lasts != -2 {
                let lasts = u64::try_from(lasts).ok().map(Duration::from_millis);
                found.push((key, lasts));
            }
        }
        found
    }

    /// The names of all keys of this test.
    pub async fn key_names(&self) -> Vec<String> {
        let all = self.key_space().await;
        all.into_iter().map(|(key, _)| key).collect()
    }
}

impl Backend for Redis {
    fn store(&self) -> &impl TurnStore {
        &self.store
    }

    fn env(&self) -> &str {
        &self.env
    }

    /// Nobody waits: what each key has left is cut by this time.
    async fn pass(&self, time: Duration) {
        for (key, lasts) in self.key_space().await {
            let Some(lasts) = lasts else { continue };
            let left = lasts.saturating_sub(time).as_millis().to_string();
            let _: i64 = self.run(&["PEXPIRE", &key, &left]).await;
        }
    }
}
