//! The worker's credentials. Files are read at each connect, so that rotated credentials are found.

use std::path::Path;

use async_nats::{Auth, AuthError, ConnectOptions};
use nkeys::KeyPair;

use super::config::Config;
use crate::adapters::secret_file::{self, FileError};

const CREDS_FILE: &str = "nats.creds_file";

/// The credentials that the settings and their files hold now.
enum Credentials {
    None,
    Password { user: String, password: String },
    Token(String),
    Nkey { seed: String },
    Jwt { jwt: String, seed: String },
}

/// Options of a connection that reads its credentials each time it is opened.
///
/// # Errors
///
/// A file cannot be used now.
pub(super) fn options(config: &Config) -> Result<ConnectOptions, FileError> {
    if matches!(read(config)?, Credentials::None) {
        return Ok(ConnectOptions::new());
    }
    let config = config.clone();
    Ok(ConnectOptions::with_auth_callback(move |nonce| {
        let config = config.clone();
        async move {
            // Files may be on another machine, so they are not read on a thread that runs turns.
            let read = tokio::task::spawn_blocking(move || read(&config)).await;
            read.map_err(AuthError::new)?
                .map_err(AuthError::new)?
                .answer(&nonce)
        }
    }))
}

fn read(config: &Config) -> Result<Credentials, FileError> {
    let user = match (&config.user, &config.user_file) {
        (None, Some(file)) => Some(secret_file::read_text("nats.user_file", file)?),
        (user, _) => user.clone(),
    };
    let password = secret_file::secret(
        config.password.as_ref(),
        "nats.password_file",
        config.password_file.as_deref(),
    )?;
    if let (Some(user), Some(password)) = (user, password) {
        return Ok(Credentials::Password { user, password });
    }
    let token = secret_file::secret(
        config.token.as_ref(),
        "nats.token_file",
        config.token_file.as_deref(),
    )?;
    if let Some(token) = token {
        return Ok(Credentials::Token(token));
    }
    let seed = secret_file::secret(
        config.nkey_seed.as_ref(),
        "nats.nkey_seed_file",
        config.nkey_seed_file.as_deref(),
    )?;
    if let Some(seed) = seed {
        let seed = seed.trim().to_owned();
        return Ok(Credentials::Nkey { seed });
    }
    match &config.creds_file {
        Some(file) => creds(file),
        None => Ok(Credentials::None),
    }
}

/// The user JWT and the seed in a credentials file: what stands between its first two pairs of dashed lines.
fn creds(file: &Path) -> Result<Credentials, FileError> {
    let text = secret_file::read_text(CREDS_FILE, file)?;
    let mut lines = text.lines().map(str::trim).peekable();
    let mut blocks = Vec::new();
    while let Some(line) = lines.next() {
        if line.starts_with("---")
            && line.contains("BEGIN")
            && let Some(content) = lines.next_if(|line| !line.starts_with("---"))
        {
            blocks.push(content.to_owned());
        }
    }
    let mut blocks = blocks.into_iter();
    match (blocks.next(), blocks.next()) {
        (Some(jwt), Some(seed)) if KeyPair::from_seed(&seed).is_ok() => {
            Ok(Credentials::Jwt { jwt, seed })
        }
        _ => Err(FileError {
            key: CREDS_FILE,
            file: file.to_owned(),
            source: std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                "it holds no user JWT and seed, as `nsc generate creds` writes them",
            ),
        }),
    }
}

impl Credentials {
    /// Answers a server that wants this signed.
    fn answer(self, nonce: &[u8]) -> Result<Auth, AuthError> {
        let mut auth = Auth::new();
        match self {
            Self::None => {}
            Self::Password { user, password } => {
                auth.username = Some(user);
                auth.password = Some(password);
            }
            Self::Token(token) => auth.token = Some(token),
            Self::Nkey { seed } => {
                let key = KeyPair::from_seed(&seed).map_err(AuthError::new)?;
                auth.signature = Some(key.sign(nonce).map_err(AuthError::new)?);
                auth.nkey = Some(key.public_key());
            }
            Self::Jwt { jwt, seed } => {
                let key = KeyPair::from_seed(&seed).map_err(AuthError::new)?;
                auth.signature = Some(key.sign(nonce).map_err(AuthError::new)?);
                auth.jwt = Some(jwt);
            }
        }
        Ok(auth)
    }
}
