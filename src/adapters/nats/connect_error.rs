//! The reasons why there is no connection at the start, each with its remedy.

use std::time::Duration;

use async_nats::{ConnectErrorKind, ServerError};

use super::config::Config;
use crate::adapters::secret_file::FileError;

/// The reason why there is no connection at the start. Each message names the server and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No server answered in time.
    #[error("no NATS server at {url} within {patience:?}: {source}; {advice}")]
    Unreachable {
        /// Where it was looked for.
        url: String,
        /// For how long.
        patience: Duration,
        /// What the last attempt failed with.
        source: async_nats::ConnectError,
        /// The remedy.
        advice: &'static str,
    },
    /// The server does not know us.
    #[error(
        "the NATS server at {url} refused {identity}: {source}; check the credentials in the settings"
    )]
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
    #[error(transparent)]
    Credentials(#[from] FileError),
    /// Something else than a NATS server answers.
    #[error(
        "what answers at {url} does not speak the protocol of NATS: {source}; check host and port in `nats.url`, and set \
         `nats.tls.handshake_first` if the server shakes hands for TLS first"
    )]
    NotNats {
        /// The server.
        url: String,
        /// The failure to read it.
        source: async_nats::ConnectError,
    },
    /// The client took neither the addresses nor the credentials.
    #[error("`nats.url` or the credentials cannot be used: {0}")]
    Invalid(#[source] async_nats::ConnectError),
}

/// Hands an error back that time may heal (`Ok`), or the words that end the waiting.
pub(super) fn verdict(
    source: async_nats::ConnectError,
    config: &Config,
) -> Result<async_nats::ConnectError, ConnectError> {
    let url = config.url.clone();
    match source.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => {
            Err(refused(url, source, config))
        }
        ConnectErrorKind::Tls => Err(ConnectError::Tls { url, source }),
        ConnectErrorKind::Io if is_tls(&source) => Err(ConnectError::Tls { url, source }),
        ConnectErrorKind::Io if is_over(&source) => Err(refused(url, source, config)),
        ConnectErrorKind::Io if is_foreign(&source) => Err(ConnectError::NotNats { url, source }),
        ConnectErrorKind::ServerParse | ConnectErrorKind::MaxReconnects => {
            Err(ConnectError::Invalid(source))
        }
        ConnectErrorKind::Io | ConnectErrorKind::Dns | ConnectErrorKind::TimedOut => Ok(source),
    }
}

fn refused(url: String, source: async_nats::ConnectError, config: &Config) -> ConnectError {
    ConnectError::Refused {
        url,
        identity: identity(config),
        source,
    }
}

/// The remedy for an error that waiting did not heal.
pub(super) fn advice(error: &async_nats::ConnectError) -> &'static str {
    if error.kind() == ConnectErrorKind::TimedOut {
        "something takes connections there, but says nothing: check `nats.url`, and set `nats.tls.handshake_first` if \
         the server shakes hands for TLS first"
    } else {
        "check `nats.url` and that the server runs"
    }
}

/// Tells credentials that are no longer good from unknown ones. The protocol has no code for it, only this line.
fn is_over(error: &(dyn std::error::Error + 'static)) -> bool {
    causes(error).any(|cause| {
        let Some(ServerError::Other(text)) = cause.downcast_ref::<ServerError>() else {
            return false;
        };
        let text = text.to_lowercase();
        ["expired", "revoked", "authentication"]
            .iter()
            .any(|word| text.contains(word))
            && !text.contains("timeout")
    })
}

/// Tells the answer of another kind of server.
fn is_foreign(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind::{InvalidData, InvalidInput};
    causes(error).any(|cause| {
        let io = cause.downcast_ref::<std::io::Error>();
        io.is_some_and(|io| matches!(io.kind(), InvalidData | InvalidInput))
    })
}

/// Returns whether a failed handshake is behind an I/O error.
fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    causes(error).any(|cause| {
        let inner = cause
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        inner.is_some_and(|inner| inner.is::<rustls::Error>())
    })
}

/// An error and what it came from.
fn causes<'e>(
    error: &'e (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'e (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |error| error.source())
}

fn identity(config: &Config) -> &'static str {
    if config.user.is_some() || config.user_file.is_some() {
        "the user and password"
    } else if config.token.is_some() || config.token_file.is_some() {
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
