//! Archives from other machines: web servers, buckets, OCI registries.
//!
//! - [`config`]: the settings. [`FetchError`]: what can go wrong.
//! - `web`, `object`, `oci`: one kind of address each. `intake`: the limit on what comes in, and its progress.

pub mod config;
mod error;
mod intake;
mod object;
mod oci;
mod web;

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

pub use config::Access;
pub use error::FetchError;

use crate::model::{PackId, RemoteRef};

/// How long a server may take to answer a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a download may stand still.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How often an archive is asked for, where trouble may pass.
const ATTEMPTS: u32 = 4;
/// The pause after the first attempt that failed; doubled after each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Fetches archives from other machines. Nothing is connected before the first one is asked for.
pub struct Remote {
    access: Access,
    environment: BTreeMap<String, String>,
    web: OnceLock<reqwest::Client>,
}

impl Remote {
    /// With these settings; what they leave open of the clouds' credentials is taken from this environment.
    pub fn new(access: Access, environment: BTreeMap<String, String>) -> Self {
        Self {
            access,
            environment,
            web: OnceLock::new(),
        }
    }

    /// The archive of a pack, `limit` bytes at the most, its digest checked. Trouble that may pass is waited out for a
    /// moment.
    pub async fn fetch(
        &self,
        pack: &PackId,
        reference: &RemoteRef,
        limit: u64,
    ) -> Result<Vec<u8>, FetchError> {
        // An error says that there is one already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (mut attempt, mut pause) = (1, FIRST_PAUSE);
        loop {
            let error = match self.once(pack, reference, limit).await {
                Ok(bytes) => {
                    tracing::info!(pack_ref = %reference, bytes = bytes.len(), "fetched a pack");
                    return Ok(bytes);
                }
                Err(error) => error,
            };
            if !error.may_pass() || attempt >= ATTEMPTS {
                return Err(error);
            }
            tracing::warn!(pack_ref = %reference, %error, attempt, "a pack could not be fetched; trying again");
            tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
            (attempt, pause) = (attempt + 1, pause * 2);
        }
    }

    async fn once(
        &self,
        pack: &PackId,
        reference: &RemoteRef,
        limit: u64,
    ) -> Result<Vec<u8>, FetchError> {
        let access = &self.access;
        let bytes = match reference {
            RemoteRef::Web(web) => {
                let host = access.host(&web.host);
                web::fetch(self.web()?, host, (web, reference), limit).await?
            }
            RemoteRef::Object(object) => {
                object::fetch(access, &self.environment, (object, reference), limit).await?
            }
            RemoteRef::Oci(oci) => oci::fetch(access, pack, (oci, reference), limit).await?,
        };
        let found = PackId::of_archive(&bytes);
        if found != *pack {
            let expected = *pack;
            return Err(FetchError::Identity { expected, found });
        }
        Ok(bytes)
    }

    fn web(&self) -> Result<&reqwest::Client, FetchError> {
        if let Some(client) = self.web.get() {
            return Ok(client);
        }
        let client = web::client(&self.access)?;
        Ok(self.web.get_or_init(|| client))
    }
}

/// The authorities that the settings add to the system's, in PEM.
fn roots(access: &Access) -> Result<Option<Vec<u8>>, FetchError> {
    let read = access.ca_file.as_ref().map(std::fs::read).transpose();
    read.map_err(|error| FetchError::Settings {
        section: "packs.ca_file",
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests;
