//! Opening the connection: options, the patience of the start, and errors that say what to do.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::{ConnectErrorKind, ConnectOptions, Event, ServerError};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::config::Config;
use super::link::{Changes, Link, Live};
use crate::adapters::patience::wait_for;

/// Why there is no connection at the start. Each message names the server and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server answered in time.
    #[error(
        "no NATS server at {url} within {patience:?}: {source}; check `nats.url` and that the server runs"
    )]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// For how long.
        patience: Duration,
        /// What the last attempt failed with.
        source: async_nats::ConnectError,
    },
    /// The server does not know us.
    #[error("the NATS server at {url} refused {identity}; check the credentials in the settings")]
    Refused {
        /// The server.
        url: String,
        /// How the worker introduced itself.
        identity: &'static str,
        /// What the server said.
        source: async_nats::ConnectError,
    },
    /// There is a server, but no trusted way to talk to it.
    #[error(
        "no TLS with the NATS server at {url}: {source}; check `nats.tls` and the host name in `nats.url`"
    )]
    Tls {
        /// The server.
        url: String,
        /// Why not.
        source: async_nats::ConnectError,
    },
    /// A file with credentials is no help.
    #[error("`{key}` {} cannot be used: {source}", file.display())]
    Credentials {
        /// The key in the settings.
        key: &'static str,
        /// The file.
        file: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The client took neither the addresses nor the credentials.
    #[error("`nats.url` or the credentials cannot be used: {0}")]
    Invalid(#[source] async_nats::ConnectError),
}

/// Connects, trying for up to `connect_timeout`. Afterwards the client reconnects by itself, for ever.
pub(super) async fn connect(config: &Config) -> Result<Arc<Link>, ConnectError> {
    let patience = config.connect_timeout;
    let opened = wait_for("NATS", patience, || open(config)).await?;
    let live = opened.map_err(|source| ConnectError::Unreachable {
        url: config.url.clone(),
        patience,
        source,
    })?;
    let link = Arc::new(Link::new(live, config.request_timeout));
    tokio::spawn(replace_when_broken(Arc::downgrade(&link), config.clone()));
    Ok(link)
}

/// One attempt. The inner error is one that time may heal.
async fn open(config: &Config) -> Result<Result<Live, async_nats::ConnectError>, ConnectError> {
    let (changed, changes) = watch::channel(Changes::default());
    let options = options(config, changed)?;
    let servers: Vec<&str> = config.servers().collect();
    let client = match options.connect(servers).await {
        Ok(client) => client,
        Err(error) => return verdict(error, config).map(Err),
    };
    let server = client.server_info();
    info!(
        server = %server.server_name,
        version = %server.version,
        max_payload = server.max_payload,
        "connected to NATS"
    );
    Ok(Ok(Live { client, changes }))
}

/// Has another client take over should this one break down: a message whose headers hold a stray carriage return makes
/// it panic. Ends with the link.
async fn replace_when_broken(link: Weak<Link>, config: Config) {
    loop {
        let Some(mut changes) = link.upgrade().map(|link| link.live().changes.clone()) else {
            return;
        };
        while changes.changed().await.is_ok() {}
        let mut attempt = 1;
        loop {
            let Some(link) = link.upgrade().filter(|link| !link.is_closing()) else {
                return;
            };
            match open(&config).await {
                Ok(Ok(live)) => {
                    link.replace(live);
                    warn!("the NATS client had broken down; another one has taken over");
                    break;
                }
                Ok(Err(error)) => debug!(%error, "no NATS server yet"),
                Err(error) => warn!(%error, "cannot connect to NATS anew"),
            }
            attempt += 1;
            tokio::time::sleep(pause(&config, attempt)).await;
        }
    }
}

/// Whether trying again may help (`Ok`), or what to tell instead.
fn verdict(
    source: async_nats::ConnectError,
    config: &Config,
) -> Result<async_nats::ConnectError, ConnectError> {
    let url = config.url.clone();
    match source.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            Err(ConnectError::Refused {
                url,
                identity: identity(config),
                source,
            })
        }
        ConnectErrorKind::Tls => Err(ConnectError::Tls { url, source }),
        ConnectErrorKind::Io if is_tls(&source) => Err(ConnectError::Tls { url, source }),
        ConnectErrorKind::ServerParse | ConnectErrorKind::MaxReconnects => {
            Err(ConnectError::Invalid(source))
        }
        ConnectErrorKind::Io | ConnectErrorKind::Dns | ConnectErrorKind::TimedOut => Ok(source),
    }
}

/// Whether a failed handshake is behind an I/O error.
fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        if inner.is_some_and(|inner| inner.is::<rustls::Error>()) {
            return true;
        }
        next = error.source();
    }
    false
}

fn identity(config: &Config) -> &'static str {
    if config.user.is_some() {
        "the user and password"
    } else if config.token.is_some() {
        "the token"
    } else if config.creds_file.is_some() {
        "the credentials file"
    } else if config.nkey_seed.is_some() || config.nkey_seed_file.is_some() {
        "the nkey"
    } else if config.tls.cert_file.is_some() {
        "a client with this certificate and no other credentials"
    } else {
        "a client without credentials"
    }
}

fn options(
    config: &Config,
    changed: watch::Sender<Changes>,
) -> Result<ConnectOptions, ConnectError> {
    let delays = config.clone();
    let mut options = ConnectOptions::new()
        .name(&config.name)
        .connection_timeout(config.connect_timeout)
        .request_timeout(Some(config.request_timeout))
        .ping_interval(config.ping_interval)
        .require_tls(config.tls.required)
        .reconnect_delay_callback(move |attempt| pause(&delays, attempt))
        .event_callback(move |event| {
            note(&event, &changed);
            std::future::ready(())
        });
    if let Some(ca) = &config.tls.ca_file {
        options = options.add_root_certificates(ca.clone());
    }
    if let (Some(cert), Some(key)) = (&config.tls.cert_file, &config.tls.key_file) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    authenticate(options, config)
}

fn authenticate(options: ConnectOptions, config: &Config) -> Result<ConnectOptions, ConnectError> {
    if let (Some(user), Some(password)) = (&config.user, &config.password) {
        return Ok(options.user_and_password(user.clone(), password.expose().to_owned()));
    }
    if let Some(token) = &config.token {
        return Ok(options.token(token.expose().to_owned()));
    }
    if let Some(seed) = &config.nkey_seed {
        return Ok(options.nkey(seed.expose().trim().to_owned()));
    }
    if let Some(file) = &config.nkey_seed_file {
        let seed = read("nats.nkey_seed_file", file)?;
        return Ok(options.nkey(seed.trim().to_owned()));
    }
    if let Some(file) = &config.creds_file {
        const KEY: &str = "nats.creds_file";
        let creds = read(KEY, file)?;
        return options
            .credentials(&creds)
            .map_err(|source| credentials(KEY, file, source));
    }
    Ok(options)
}

fn read(key: &'static str, file: &Path) -> Result<String, ConnectError> {
    std::fs::read_to_string(file).map_err(|source| credentials(key, file, source))
}

fn credentials(key: &'static str, file: &Path, source: std::io::Error) -> ConnectError {
    ConnectError::Credentials {
        key,
        file: file.to_owned(),
        source,
    }
}

/// The pause before an attempt, counted from 1: none before the first, then doubling up to the longest one. The jitter
/// keeps many workers from coming back in the same instant.
fn pause(config: &Config, attempt: usize) -> Duration {
    let Some(doublings) = attempt.checked_sub(2) else {
        return Duration::ZERO;
    };
    let doublings = u32::try_from(doublings.min(10)).unwrap_or(10);
    let base = Duration::from_millis(10) * 2_u32.pow(doublings);
    base.min(config.reconnect_delay)
        .mul_f64(0.5 + fastrand::f64() / 2.0)
}

fn note(event: &Event, changed: &watch::Sender<Changes>) {
    match event {
        Event::Connected => changed.send_modify(|changes| changes.connected += 1),
        Event::Disconnected => {
            warn!("the connection to NATS is lost; reconnecting");
            changed.send_modify(|changes| changes.lost += 1);
        }
        Event::ServerError(error) => complaint(error, changed),
        Event::ClientError(error) => debug!(%error, "NATS client"),
        Event::SlowConsumer(_) => warn!("messages came faster than they were taken; some are lost"),
        Event::LameDuckMode => info!("the NATS server is about to stop; moving to another one"),
        Event::Draining | Event::Closed => {}
    }
}

/// What the server says without being asked. A missing permission is for the caller that it concerns.
fn complaint(error: &ServerError, changed: &watch::Sender<Changes>) {
    let mut is_news = true;
    if let ServerError::Other(text) = error
        && let Some(subject) = denied(text)
    {
        changed.send_modify(|changes| is_news = changes.deny(subject));
    }
    match is_news {
        true => warn!(%error, "the NATS server complains; a missing permission shows like this"),
        false => debug!(%error, "the NATS server complains again"),
    }
}

/// The subject of a permissions violation. The protocol has no code for it, only this line.
fn denied(text: &str) -> Option<&str> {
    const VIOLATION: &str = "permissions violation for ";
    let start = text.get(..VIOLATION.len())?;
    if !start.eq_ignore_ascii_case(VIOLATION) {
        return None;
    }
    let subject = text.split('"').nth(1)?;
    // Each acknowledgement has a subject of its own.
    (!subject.starts_with("$JS.ACK.")).then_some(subject)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_subject_of_a_violation_is_found() {
        #[track_caller]
        fn check(text: &str, subject: Option<&str>) {
            assert_eq!(denied(text), subject, "{text}");
        }
        check(
            "Permissions Violation for Publish to \"outbound.Beta\"",
            Some("outbound.Beta"),
        );
        check(
            "Permissions Violation for Subscription to \"inbound.b\" using queue \"greentic-worker\"",
            Some("inbound.b"),
        );
        check("permissions violation for publish to \"a\"", Some("a"));
        check("Permissions Violation for Publish to \"$JS.ACK.a.b\"", None);
        check("Maximum Payload Violation", None);
        check("é", None);
    }

    #[test]
    fn pauses_grow_with_jitter_and_never_pass_the_longest() {
        let config = Config::default();
        for attempt in 0..1_000 {
            let pause = pause(&config, attempt);
            assert!(pause <= config.reconnect_delay, "{attempt}: {pause:?}");
            if attempt > 10 {
                assert!(pause >= config.reconnect_delay / 2, "{attempt}: {pause:?}");
            }
        }
    }
}
