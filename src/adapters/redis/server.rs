//! What the server says about itself.

use redis::{ErrorKind, RedisError, RedisResult};

use super::link::{ConnectError, Link};

/// The oldest server whose `SET` knows `KEEPTTL`.
const OLDEST: u32 = 6;

/// Makes sure that there is a server which answers us and understands the scripts. The inner error is one that time may
/// heal.
pub async fn greet(link: &Link, server: &str) -> Result<RedisResult<()>, ConnectError> {
    let server = server.to_owned();
    let about = match introduction(link).await {
        Ok(about) => about,
        Err(source) if is_refused(&source) => return Err(ConnectError::Login { server, source }),
        Err(source) => return Ok(Err(source)),
    };
    match about
        .as_deref()
        .and_then(|about| field(about, "redis_version"))
    {
        Some(version) if is_too_old(version) => Err(ConnectError::TooOld {
            server,
            version: version.to_owned(),
        }),
        _ => Ok(Ok(())),
    }
}

/// What the server says of itself; none where its ACL withholds it: then the operator has to know.
async fn introduction(link: &Link) -> RedisResult<Option<String>> {
    let mut connection = link.open_once().await?;
    redis::cmd("PING")
        .query_async::<()>(&mut connection)
        .await?;
    let about = redis::cmd("INFO")
        .arg("server")
        .query_async(&mut connection)
        .await;
    match about {
        Err(error) if error.code() == Some("NOPERM") => Ok(None),
        about => about.map(Some),
    }
}

fn is_refused(error: &RedisError) -> bool {
    error.kind() == ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM"))
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
