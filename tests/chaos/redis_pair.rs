//! Two Redis servers: a primary, and a replica that can take its place without loss.

use std::time::Duration;

use redis::{Cmd, cmd};

use crate::harness::{DEADLINE, RedisServer, poll, redis_connection};

/// The workers' user and its password. The default user is that of the test, and of the replica.
pub const USER: &str = "worker";

/// The pair. Which one is the primary changes with each failover.
pub struct RedisPair {
    servers: [RedisServer; 2],
    primary: usize,
}

impl RedisPair {
    /// Starts both, the second one as a replica of the first.
    pub async fn start(appendfsync: &str) -> Self {
        let password = format!(">{USER}");
        let user = ["--user", USER, "on", &password, "~*", "&*", "+@all"];
        let replicating = ["--repl-diskless-sync-delay", "0"];
        let arguments = [&["--appendfsync", appendfsync], &user[..], &replicating].concat();
        let (first, second) = tokio::join!(
            RedisServer::start_own_with(&arguments),
            RedisServer::start_own_with(&arguments)
        );
        let of_first = cmd("REPLICAOF")
            .arg("127.0.0.1")
            .arg(first.port())
            .to_owned();
        ask::<()>(&second, &of_first)
            .await
            .expect("a server becomes a replica");
        let pair = Self {
            servers: [first, second],
            primary: 0,
        };
        pair.in_step().await;
        pair
    }

    /// The server that is the primary now.
    pub fn primary(&mut self) -> &mut RedisServer {
        &mut self.servers[self.primary]
    }

    /// Runs a command on both: what it changes is not replicated.
    pub async fn configure(&self, command: &Cmd) {
        for server in &self.servers {
            let configured = ask::<()>(server, command).await;
            configured.expect("Redis can be configured");
        }
    }

    /// Makes the replica the primary and the primary its replica, without loss; the port of the new primary.
    pub async fn fail_over(&mut self) -> u16 {
        let coordinated = cmd("FAILOVER").arg("TIMEOUT").arg(5000).to_owned();
        let changed = poll(DEADLINE * 3, async || {
            self.in_step().await;
            // A replica that has just lost its connection is refused; then it is tried again.
            ask::<()>(&self.servers[self.primary], &coordinated)
                .await
                .ok()?;
            poll(Duration::from_secs(10), async || self.has_changed().await).await
        });
        changed.await.expect("Redis fails over to its replica");
        self.primary = 1 - self.primary;
        self.primary().port()
    }

    /// Waits until the replica has everything, in its memory and in its file. A replica that was sent all of the data writes
    /// its file anew after that; killed before it is written, it would start with the data of before.
    async fn in_step(&self) {
        let (primary, replica) = (&self.servers[self.primary], &self.servers[1 - self.primary]);
        let in_step = poll(DEADLINE * 3, async || {
            let known = information(primary).await?;
            let own = information(replica).await?;
            let is = |information: &str, what: &str| information.contains(what);
            (is(&known, "state=online")
                && is(&own, "master_link_status:up")
                && is(&own, "master_sync_in_progress:0")
                && is(&own, "aof_rewrite_in_progress:0")
                && is(&own, "aof_rewrite_scheduled:0"))
            .then_some(())
        });
        in_step
            .await
            .expect("the replica of Redis gets into step with its primary");
    }

    async fn has_changed(&self) -> Option<()> {
        let (old, new) = (&self.servers[self.primary], &self.servers[1 - self.primary]);
        let (old, new) = (information(old).await?, information(new).await?);
        (old.contains("role:slave") && new.contains("role:master")).then_some(())
    }
}

async fn information(server: &RedisServer) -> Option<String> {
    ask(server, &cmd("INFO")).await.ok()
}

async fn ask<T: redis::FromRedisValue>(
    server: &RedisServer,
    command: &Cmd,
) -> redis::RedisResult<T> {
    let mut redis = redis_connection(&server.url()).await;
    command.query_async(&mut redis).await
}
