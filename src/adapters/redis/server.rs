//! What the server says about itself.

use redis::aio::MultiplexedConnection;
use redis::{Cmd, FromRedisValue, RedisError, RedisResult};

use super::Config;
use super::connect;
use super::error::{self, CLUSTER, ConnectError, SENTINEL};
use super::keys;
use super::link::{Link, wants_another};
use super::mismatch;

/// The oldest server whose `SET` knows `KEEPTTL`.
const OLDEST: u32 = 6;

/// A server that can be worked with.
pub struct Greeting {
    pub connection: MultiplexedConnection,
    /// Its name and version, such as `Redis 7.0.15`; none where its ACL withholds it.
    pub version: Option<String>,
}

/// Makes sure that there is a server which answers us, takes writes and understands the scripts. The inner error is one that
/// time may heal.
pub async fn greet(config: &Config) -> Result<RedisResult<Greeting>, ConnectError> {
    let server = config.url.to_string();
    let mut connection = match connect::open(config).await {
        Ok(connection) => connection,
        Err(error) => {
            let source = error::verdict(error, &server)?;
            return suspect(config, source).await.map(Err);
        }
    };
    let ping: RedisResult<()> = ask(&mut connection, &redis::cmd("PING")).await;
    if let Err(source) = ping {
        let source = error::command(source, &server)?;
        return suspect(config, source).await.map(Err);
    }
    let about: RedisResult<String> = ask(&mut connection, redis::cmd("INFO").arg("server")).await;
    let about = match about {
        Ok(about) => Some(about),
        // Then the operator has to know.
        Err(error) if error.code() == Some("NOPERM") => None,
        Err(source) => return error::command(source, &server).map(Err),
    };
    suits(about.as_deref().unwrap_or_default(), &server)?;
    let delete = redis::cmd("DEL").arg(keys::probe(&config.namespace)).take();
    let written: RedisResult<()> = ask(&mut connection, &delete).await;
    match written {
        Err(source) if wants_another(&source) => return error::command(source, &server).map(Err),
        Err(source) if source.code() == Some("ERR") => {
            return Err(ConnectError::Refused {
                server,
                source,
                advice: "`redis.url` must name a Redis or Valkey server, and no Sentinel or proxy that knows other commands only",
            });
        }
        // What a user may not do is found out for all commands together.
        _ => {}
    }
    Ok(Ok(Greeting {
        version: about.as_deref().and_then(version),
        connection,
    }))
}

/// An error that time may heal, unless it comes of TLS on one side only.
async fn suspect(config: &Config, source: RedisError) -> Result<RedisError, ConnectError> {
    match mismatch::is_other_way(config, &source).await {
        true => Err(ConnectError::Scheme {
            server: config.url.to_string(),
        }),
        false => Ok(source),
    }
}

/// The words for the end of the waiting.
pub fn given_up(config: &Config, source: RedisError) -> ConnectError {
    ConnectError::Unreachable {
        server: config.url.to_string(),
        patience: config.connect_timeout,
        advice: error::advice(&source),
        source,
    }
}

async fn ask<T: FromRedisValue>(
    connection: &mut MultiplexedConnection,
    command: &Cmd,
) -> RedisResult<T> {
    command.query_async(connection).await
}

fn suits(about: &str, server: &str) -> Result<(), ConnectError> {
    let server = server.to_owned();
    // Valkey has a name of its own for it.
    match field(about, "redis_mode").or_else(|| field(about, "server_mode")) {
        Some("sentinel") => {
            return Err(ConnectError::Mode {
                server,
                mode: SENTINEL,
            });
        }
        Some("cluster") => {
            return Err(ConnectError::Mode {
                server,
                mode: CLUSTER,
            });
        }
        _ => {}
    }
    match field(about, "redis_version") {
        Some(version) if is_too_old(version) => Err(ConnectError::TooOld {
            server,
            version: version.to_owned(),
        }),
        _ => Ok(()),
    }
}

/// The version by the name of the product: a Valkey also tells which Redis it is like.
fn version(about: &str) -> Option<String> {
    if let Some(valkey) = field(about, "valkey_version") {
        return Some(format!("Valkey {valkey}"));
    }
    Some(format!("Redis {}", field(about, "redis_version")?))
}

/// What an operator should know about the server's memory settings.
pub async fn warnings(link: &Link) -> Vec<String> {
    match link.query::<String>(redis::cmd("INFO").arg("memory")).await {
        Ok(memory) => eviction(&memory).into_iter().collect(),
        Err(error) => vec![format!(
            "it is unknown whether redis may evict keys, for it does not tell: {error}; its maxmemory-policy must be noeviction"
        )],
    }
}

fn eviction(memory: &str) -> Option<String> {
    let policy = field(memory, "maxmemory_policy").unwrap_or("unknown");
    if policy == "noeviction" {
        return None;
    }
    let when = match field(memory, "maxmemory") {
        Some("0") => "once a maxmemory is set",
        _ => "when its memory is full",
    };
    Some(format!(
        "redis may evict keys {when}: its maxmemory-policy is {policy}; evicted waits are lost conversations and \
         evicted records are messages applied twice, so set it to noeviction"
    ))
}

fn is_too_old(version: &str) -> bool {
    let major = version.split('.').next().and_then(|part| part.parse().ok());
    major.is_some_and(|major: u32| major < OLDEST)
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check_eviction(memory: &str, says: Option<&str>) {
        let warning = eviction(memory);
        assert_eq!(warning.is_some(), says.is_some(), "{warning:?}");
        if let (Some(warning), Some(says)) = (warning, says) {
            assert!(warning.contains(says), "{warning}");
        }
    }

    #[test]
    fn a_policy_that_may_evict_is_warned_of() {
        check_eviction("maxmemory:0\r\nmaxmemory_policy:noeviction\r\n", None);
        check_eviction("maxmemory:1\r\nmaxmemory_policy:noeviction\r\n", None);
        check_eviction(
            "maxmemory:0\r\nmaxmemory_policy:allkeys-lru\r\n",
            Some("once a maxmemory is set: its maxmemory-policy is allkeys-lru"),
        );
        check_eviction(
            "maxmemory:9\r\nmaxmemory_policy:volatile-ttl\r\n",
            Some("when its memory is full"),
        );
        check_eviction("", Some("unknown"));
    }

    #[test]
    fn only_servers_without_keepttl_are_too_old() {
        let about = "# Server\r\nredis_version:5.0.14\r\n";
        assert!(is_too_old(field(about, "redis_version").unwrap()));
        for fine in ["6.0.0", "7.0.15", "255.255.255", "unstable"] {
            assert!(!is_too_old(fine), "{fine}");
        }
    }
}
