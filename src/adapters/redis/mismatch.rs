//! TLS on one side only: neither side says so, one of them just waits or leaves. So the other way is tried, without any
//! credentials.

use std::time::Duration;

use redis::{Client, ConnectionAddr, IntoConnectionInfo, RedisError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Config;
use super::error::is_tls;

/// Tells a server that could be talked to if `redis.url` began with the other scheme.
pub async fn is_other_way(config: &Config, error: &RedisError) -> bool {
    let silent = error.is_timeout();
    let dropped = error.is_connection_dropped() && !error.is_connection_refusal();
    if !silent && !dropped {
        return false;
    }
    let Ok(info) = config.url.expose().into_connection_info() else {
        return false;
    };
    let other = async {
        if let ConnectionAddr::Tcp(host, port) = info.addr() {
            return speaks_tls(host, *port).await;
        }
        let ConnectionAddr::TcpTls { host, port, .. } = info.addr() else {
            return None;
        };
        speaks_plain(host, *port).await
    };
    let limit = config.response_timeout.min(Duration::from_secs(2));
    timeout(limit, other).await.ok().flatten().unwrap_or(false)
}

/// A handshake that is refused is a handshake, too.
async fn speaks_tls(host: &str, port: u16) -> Option<bool> {
    let address = ConnectionAddr::TcpTls {
        host: host.to_owned(),
        port,
        insecure: false,
        tls_params: None,
    };
    let client = Client::open(address.into_connection_info().ok()?).ok()?;
    let opened = client.get_multiplexed_async_connection().await;
    Some(opened.err().is_none_or(|error| is_tls(&error)))
}

async fn speaks_plain(host: &str, port: u16) -> Option<bool> {
    let mut stream = TcpStream::connect((host, port)).await.ok()?;
    stream.write_all(b"PING\r\n").await.ok()?;
    let mut first = [0];
    stream.read_exact(&mut first).await.ok()?;
    Some(matches!(first[0], b'+' | b'-'))
}
