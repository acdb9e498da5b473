//! Why an archive did not come.

use crate::model::PackId;

/// Why an archive did not come from another machine.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nothing is there.
    #[error("there is nothing at this address: {0}")]
    NotFound(String),
    /// It is there, perhaps, but not for us.
    #[error("access is denied: {0}")]
    Denied(String),
    /// Nobody answers, or not in time, or with trouble of their own.
    #[error("it could not be fetched: {0}")]
    Unavailable(String),
    /// The answer is one that another attempt will not change.
    #[error("it could not be fetched: {0}")]
    Refused(String),
    /// It is larger than is taken.
    #[error("the archive has more than the {limit} bytes that are taken")]
    TooLarge {
        /// The limit.
        limit: u64,
    },
    /// What came is another archive.
    #[error("the archive there is {found}, not {expected}")]
    Identity {
        /// What the gtbind says.
        expected: PackId,
        /// What came.
        found: PackId,
    },
    /// The artifact has no layer with this archive.
    #[error("no layer of the artifact is {expected}; its layers are: {}", found.join(", "))]
    NoLayer {
        /// What the gtbind says.
        expected: PackId,
        /// The layers, each with its digest and media type.
        found: Vec<String>,
    },
    /// Plain HTTP to a host that it is not allowed for.
    #[error(
        "plain HTTP lets anyone on the way see what is fetched, and `{host}` is not allowed to"
    )]
    Plain {
        /// The host.
        host: String,
    },
    /// The settings do not do.
    #[error("the settings under `{section}` do not do: {reason}")]
    Settings {
        /// Which ones.
        section: &'static str,
        /// Why not.
        reason: String,
    },
}

impl FetchError {
    /// What a server's status means; none if it is a success.
    pub(super) fn of_status(status: u16) -> Option<Self> {
        let said = format!("the server answers with status {status}");
        match status {
            200..=299 => None,
            404 | 410 => Some(Self::NotFound(said)),
            401 | 403 | 407 => Some(Self::Denied(said)),
            408 | 425 | 429 | 500..=599 => Some(Self::Unavailable(said)),
            _ => Some(Self::Refused(said)),
        }
    }

    /// Whether another attempt could end otherwise.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unavailable(_) => true,
            Self::NotFound(_)
            | Self::Denied(_)
            | Self::Refused(_)
            | Self::TooLarge { .. }
            | Self::Identity { .. }
            | Self::NoLayer { .. }
            | Self::Plain { .. }
            | Self::Settings { .. } => false,
        }
    }

    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotFound(_) => "check pack_ref, or put the archive there",
            Self::Denied(_) => {
                "set the credentials that the server asks for: packs.hosts, packs.s3, packs.gs or packs.az in the settings"
            }
            Self::Unavailable(_) => {
                "it was tried several times; check the address, the network and the server"
            }
            Self::Refused(_) => "check pack_ref against what the server has",
            Self::TooLarge { .. } => "leave build output and other ballast out of the pack",
            Self::Identity { .. } | Self::NoLayer { .. } => {
                "correct pack_id if this is the pack that you mean, else pack_ref"
            }
            Self::Plain { .. } => {
                "write https://, or set packs.hosts.\"<host>\".plain_http: true in the settings"
            }
            Self::Settings { .. } => {
                "mend them; docs/pack-sources.md says what each kind of address needs"
            }
        }
    }
}

/// An error with all that caused it, on one line.
pub(super) fn chain(error: impl std::error::Error + Send + Sync + 'static) -> String {
    format!("{:#}", anyhow::Error::new(error))
}
