//! Where a pack's archive is kept that has to be fetched over a network.

use std::fmt;

use super::pack_ref::InvalidPackRef;

/// A `pack_ref` that leads to another machine. It carries no credentials: those belong into the settings.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RemoteRef {
    /// `https://<host>/<path>`, or `http://`.
    Web(WebRef),
    /// `s3://<bucket>/<key>`, `gs://<bucket>/<key>`, `az://<container>/<key>`.
    Object(ObjectRef),
    /// `oci://<registry>/<repository>:<tag>`, or `@sha256:<digest>` in place of the tag.
    Oci(OciRef),
}

/// A file on a web server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebRef {
    /// Whether it goes over TLS.
    pub tls: bool,
    /// The host, with its port if one is given.
    pub host: String,
    /// What follows the host, from its slash on; a query may hold a signature.
    pub path: String,
}

/// An object in a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectRef {
    /// Whose bucket it is.
    pub cloud: Cloud,
    /// The bucket; on Azure, the container.
    pub bucket: String,
    /// The object in it.
    pub key: String,
}

/// Who keeps a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cloud {
    /// Amazon S3, and whatever speaks its protocol.
    S3,
    /// Google Cloud Storage.
    Gs,
    /// Azure Blob Storage.
    Az,
}

/// An artifact in an OCI registry.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OciRef {
    /// The registry's host, with its port if one is given.
    pub registry: String,
    /// The repository in it.
    pub repository: String,
    /// Which of its versions.
    pub version: OciVersion,
}

/// Which version of an artifact.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OciVersion {
    /// By a name that may move.
    Tag(String),
    /// By the digest of its manifest: `sha256:<hex>`.
    Digest(String),
}

impl RemoteRef {
    /// Reads what follows `<scheme>://`; none if the scheme is no remote one.
    pub(super) fn parse(scheme: &str, rest: &str) -> Option<Result<Self, InvalidPackRef>> {
        Some(match scheme {
            "https" => web(true, rest).map(Self::Web),
            "http" => web(false, rest).map(Self::Web),
            "s3" => object(Cloud::S3, rest).map(Self::Object),
            "gs" => object(Cloud::Gs, rest).map(Self::Object),
            "az" => object(Cloud::Az, rest).map(Self::Object),
            "oci" => oci(rest).map(Self::Oci),
            _ => return None,
        })
    }
}

impl WebRef {
    /// The whole address, query included.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}{}", self.host, self.path)
    }
}

fn web(tls: bool, rest: &str) -> Result<WebRef, InvalidPackRef> {
    let (host, path) = split(rest)?;
    // A fragment never reaches a server.
    let path = path.split('#').next().unwrap_or_default();
    Ok(WebRef {
        tls,
        host: checked_host(host)?,
        path: format!("/{path}"),
    })
}

fn object(cloud: Cloud, rest: &str) -> Result<ObjectRef, InvalidPackRef> {
    let (bucket, key) = split(rest)?;
    Ok(ObjectRef {
        cloud,
        bucket: checked_host(bucket)?,
        key: key.to_owned(),
    })
}

fn oci(rest: &str) -> Result<OciRef, InvalidPackRef> {
    let (registry, artifact) = split(rest)?;
    let (repository, version) = match (artifact.split_once('@'), artifact.split_once(':')) {
        (Some((repository, digest)), _) => {
            let digits = digest.strip_prefix("sha256:").unwrap_or_default();
            if digits.len() != 64 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(InvalidPackRef::Digest(digest.to_owned()));
            }
            // What a tag before the digest says is decided by the digest.
            let repository = repository.split(':').next().unwrap_or_default();
            (repository, OciVersion::Digest(digest.to_owned()))
        }
        (None, Some((repository, tag))) if !tag.is_empty() => {
            (repository, OciVersion::Tag(tag.to_owned()))
        }
        (None, _) => return Err(InvalidPackRef::NoTag),
    };
    let admitted =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-');
    let parts = || repository.split('/');
    if !parts().all(|part| !part.is_empty() && part.bytes().all(admitted)) {
        return Err(InvalidPackRef::Repository(repository.to_owned()));
    }
    Ok(OciRef {
        registry: checked_host(registry)?,
        repository: repository.to_owned(),
        version,
    })
}

/// The host, or what stands for it, and what follows its slash.
fn split(rest: &str) -> Result<(&str, &str), InvalidPackRef> {
    let (host, path) = rest.split_once('/').ok_or(InvalidPackRef::NoPath)?;
    if path.is_empty() {
        return Err(InvalidPackRef::NoPath);
    }
    if path.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(InvalidPackRef::Blank);
    }
    Ok((host, path))
}

fn checked_host(host: &str) -> Result<String, InvalidPackRef> {
    if host.contains('@') {
        return Err(InvalidPackRef::Credentials);
    }
    let admitted =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
    if host.is_empty() || !host.bytes().all(admitted) {
        return Err(InvalidPackRef::Host(host.to_owned()));
    }
    Ok(host.to_ascii_lowercase())
}

/// As it was written, save that a query is not shown: it may hold a signature.
impl fmt::Display for RemoteRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Web(web) => match web.url().split_once('?') {
                Some((shown, _)) => write!(f, "{shown}?***"),
                None => f.write_str(&web.url()),
            },
            Self::Object(ObjectRef { cloud, bucket, key }) => write!(f, "{cloud}://{bucket}/{key}"),
            Self::Oci(oci) => oci.fmt(f),
        }
    }
}

impl fmt::Display for Cloud {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::S3 => "s3",
            Self::Gs => "gs",
            Self::Az => "az",
        })
    }
}

impl fmt::Display for OciRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci://{}/{}", self.registry, self.repository)?;
        match &self.version {
            OciVersion::Tag(tag) => write!(f, ":{tag}"),
            OciVersion::Digest(digest) => write!(f, "@{digest}"),
        }
    }
}
