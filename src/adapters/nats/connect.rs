//! Opening the connection: options, the patience of the start, and what the client reports of it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_nats::{ConnectOptions, Event, ServerError};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::config::Config;
use super::connect_error::ConnectError;
use super::connect_error::{advice, verdict};
use super::credentials;
use super::link::{Changes, Link, Live};
use super::rights;
use crate::adapters::patience::wait_for;

/// Connects, trying for up to `connect_timeout`. Afterwards the client reconnects by itself, for ever.
pub(super) async fn connect(config: &Config) -> Result<Arc<Link>, ConnectError> {
    let patience = config.connect_timeout;
    let opened = wait_for("NATS", patience, || open(config)).await?;
    let live = opened.map_err(|source| ConnectError::Unreachable {
        url: config.url.clone(),
        patience,
        advice: advice(&source),
        source,
    })?;
    let link = Arc::new(Link::new(live, config));
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

fn options(
    config: &Config,
    changed: watch::Sender<Changes>,
) -> Result<ConnectOptions, ConnectError> {
    let (delays, inboxes) = (config.clone(), config.inbox_prefix().to_owned());
    let mut options = credentials::options(config)?
        .name(&config.name)
        .custom_inbox_prefix(&inboxes)
        .connection_timeout(config.connect_timeout)
        .request_timeout(Some(config.request_timeout))
        .ping_interval(config.ping_interval)
        .require_tls(config.tls.required)
        .reconnect_delay_callback(move |attempt| pause(&delays, attempt))
        .event_callback(move |event| {
            note(&event, &changed, &inboxes);
            std::future::ready(())
        });
    if config.tls.handshake_first {
        options = options.tls_first();
    }
    if config.ignore_discovered_servers {
        options = options.ignore_discovered_servers();
    }
    if config.retain_servers_order {
        options = options.retain_servers_order();
    }
    if let Some(ca) = &config.tls.ca_file {
        options = options.add_root_certificates(ca.clone());
    }
    if let (Some(cert), Some(key)) = (&config.tls.cert_file, &config.tls.key_file) {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    Ok(options)
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

fn note(event: &Event, changed: &watch::Sender<Changes>, inboxes: &str) {
    match event {
        Event::Connected => changed.send_modify(|changes| {
            changes.connected += 1;
            changes.inbox_denied = None;
        }),
        Event::Disconnected => {
            warn!("the connection to NATS is lost; reconnecting");
            changed.send_modify(|changes| changes.lost += 1);
        }
        Event::ServerError(error) => complaint(error, changed, inboxes),
        Event::ClientError(error) => debug!(%error, "NATS client"),
        Event::SlowConsumer(_) => warn!("messages came faster than they were taken; some are lost"),
        Event::LameDuckMode => info!("the NATS server is about to stop; moving to another one"),
        Event::Draining | Event::Closed => {}
    }
}

/// What the server says without being asked. A missing permission is for the caller that it concerns.
fn complaint(error: &ServerError, changed: &watch::Sender<Changes>, inboxes: &str) {
    let mut is_news = true;
    if let ServerError::Other(text) = error
        && let Some(subject) = denied(text)
    {
        let of_inbox = subject.strip_prefix(inboxes);
        let of_inbox = of_inbox.is_some_and(|rest| rest.starts_with('.'));
        changed.send_modify(|changes| {
            is_news = changes.deny(subject);
            if of_inbox {
                changes.inbox_denied = Some(format!("{inboxes}.>"));
            }
        });
        // We asked for it.
        is_news &= !subject.starts_with(rights::RESERVED);
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
