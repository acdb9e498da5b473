//! Where a pack's archive is kept.

use std::fmt;
use std::path::{Path, PathBuf};

use semver::Version;

use super::RemoteRef;

/// A gtbind's `pack_ref`: where to find the archive. What it must be is said by the pack id alone.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PackRef {
    /// `store://<name>@<version>`: in the pack store.
    Store {
        /// The pack's name: ASCII letters, digits, `.`, `_`, `-`.
        name: String,
        /// Its version.
        version: Version,
    },
    /// `file://<path>`, or just a path: relative ones start at the folder of the gtbind.
    File(PathBuf),
    /// On another machine.
    Remote(RemoteRef),
}

/// A text that is not a reference to a pack.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPackRef {
    /// There is nothing.
    #[error("it is empty")]
    Empty,
    /// A scheme that is not known.
    #[error(
        "`{0}://` is not a known place for packs: there are store://, file://, https://, s3://, gs://, az:// and oci://"
    )]
    Scheme(String),
    /// A store reference without a version.
    #[error("the version is missing: expected `store://<name>@<version>`")]
    NoVersion,
    /// A store reference with a name that no file can have.
    #[error(
        "`{0}` is not a pack name: only letters, digits, `.`, `_` and `-` are, and no leading dot"
    )]
    Name(String),
    /// A store reference with a version that is none.
    #[error("`{version}` is not a version like 1.0.0: {reason}")]
    Version {
        /// What is there.
        version: String,
        /// Why it is none.
        reason: String,
    },
    /// An address that ends with its host.
    #[error("the path is missing: expected `<scheme>://<host or bucket>/<path>`")]
    NoPath,
    /// A blank or control character.
    #[error("it holds a blank or a control character; write `%20` for a blank")]
    Blank,
    /// A host or bucket with characters that none can have.
    #[error("`{0}` is not the name of a host or bucket")]
    Host(String),
    /// User and password in the address.
    #[error("it carries credentials, which belong into the settings (`packs.hosts`)")]
    Credentials,
    /// An OCI reference that names no version.
    #[error(
        "the tag is missing: expected `oci://<registry>/<repository>:<tag>` or `@sha256:<digest>`"
    )]
    NoTag,
    /// An OCI reference whose digest is none.
    #[error("`{0}` is not a digest: expected `sha256:` and 64 hexadecimal digits")]
    Digest(String),
    /// An OCI reference to a repository that cannot be.
    #[error(
        "`{0}` is not a repository: only lower-case letters, digits, `.`, `_`, `-` and `/` are"
    )]
    Repository(String),
}

impl PackRef {
    /// Reads a reference; a relative path in it starts at `base`.
    pub fn parse(text: &str, base: &Path) -> Result<Self, InvalidPackRef> {
        let path = match text.split_once("://") {
            Some(("store", rest)) => return Self::in_store(rest),
            Some(("file", path)) => path,
            Some((scheme, rest)) => {
                return match RemoteRef::parse(scheme, rest) {
                    Some(read) => read.map(Self::Remote),
                    None => Err(InvalidPackRef::Scheme(scheme.to_owned())),
                };
            }
            None => text,
        };
        if path.is_empty() {
            return Err(InvalidPackRef::Empty);
        }
        // Collecting the components drops `.` and doubled slashes, so that two spellings of a path compare equal.
        Ok(Self::File(base.join(path).components().collect()))
    }

    /// The reference as other workers can read it. None if it may hold a secret: the query of an address may be a signature.
    pub fn for_others(&self) -> Option<String> {
        match self {
            Self::Remote(RemoteRef::Web(web)) if web.path.contains('?') => None,
            Self::File(path) => Some(format!("file://{}", path.display())),
            Self::Store { .. } | Self::Remote(_) => Some(self.to_string()),
        }
    }

    fn in_store(rest: &str) -> Result<Self, InvalidPackRef> {
        let (name, version) = rest.split_once('@').ok_or(InvalidPackRef::NoVersion)?;
        let admitted = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(admitted) {
            return Err(InvalidPackRef::Name(name.to_owned()));
        }
        let parsed = Version::parse(version).map_err(|error| InvalidPackRef::Version {
            version: version.to_owned(),
            reason: error.to_string(),
        })?;
        Ok(Self::Store {
            name: name.to_owned(),
            version: parsed,
        })
    }
}

impl fmt::Display for PackRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store { name, version } => write!(f, "store://{name}@{version}"),
            Self::File(path) => path.display().fmt(f),
            Self::Remote(remote) => remote.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_workers_read_the_same_and_no_secret() {
        for text in [
            "store://a@1.0.0",
            "file:///srv/a.gtpack",
            "https://host/a.gtpack",
            "s3://bucket/a.gtpack",
            "oci://host/a:1",
        ] {
            let reference = PackRef::parse(text, Path::new("bindings")).unwrap();
            let told = reference.for_others().unwrap();
            let read = PackRef::parse(&told, Path::new("elsewhere"));
            assert_eq!(read, Ok(reference), "{text}");
        }
        let signed = PackRef::parse("https://host/a.gtpack?sig=1", Path::new(""));
        assert_eq!(signed.unwrap().for_others(), None);
    }

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let read = PackRef::parse(text, Path::new("bindings"));
        let read = read.map(|r| r.to_string()).map_err(|e| e.to_string());
        match (&read, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(part)) => assert!(found.contains(part), "{found}"),
            _ => panic!("{text} gave {read:?}"),
        }
    }

    #[test]
    fn references_name_a_store_entry_or_a_file() {
        check("store://hello-pack@1.0.0", Ok("store://hello-pack@1.0.0"));
        check("file:///srv/p.gtpack", Ok("/srv/p.gtpack"));
        check("file://p.gtpack", Ok("bindings/p.gtpack"));
        check("./a//p.gtpack", Ok("bindings/a/p.gtpack"));
    }

    #[test]
    fn references_lead_to_other_machines() {
        for same in [
            "https://packs.example.com/a/b.gtpack",
            "http://localhost:8080/b.gtpack",
            "s3://bucket/some/key.gtpack",
            "gs://bucket/key",
            "az://container/key",
            "oci://ghcr.io/org/pack:1.0.0",
            "oci://localhost:5000/pack:latest",
        ] {
            check(same, Ok(same));
        }
        let digest = "0".repeat(64);
        let pinned = format!("oci://ghcr.io/org/pack@sha256:{digest}");
        check(&pinned, Ok(&pinned));
        let both = format!("oci://ghcr.io/org/pack:1.0.0@sha256:{digest}");
        check(&both, Ok(&pinned));
        check("https://H.example/p?sig=1", Ok("https://h.example/p?***"));
    }

    #[test]
    fn addresses_that_lead_nowhere_are_told_why_not() {
        check("https://example.com", Err("path is missing"));
        check("s3://bucket/", Err("path is missing"));
        check("https:///p", Err("not the name of a host"));
        check("https://u:p@example.com/p", Err("credentials"));
        check("https://example.com/a b", Err("blank"));
        check("oci://ghcr.io/org/pack", Err("tag is missing"));
        check("oci://ghcr.io/org/pack:", Err("tag is missing"));
        check("oci://ghcr.io/org/pack@sha256:12", Err("not a digest"));
        check("oci://ghcr.io/Org/pack:1", Err("not a repository"));
        check("ftp://example.com/p", Err("`ftp://`"));
    }

    #[test]
    fn anything_else_is_told_why_not() {
        check("", Err("empty"));
        check("file://", Err("empty"));
        check("store://hello-pack", Err("version is missing"));
        check(
            "store://hello-pack@latest",
            Err("`latest` is not a version"),
        );
        check("store://../x@1.0.0", Err("`../x` is not a pack name"));
        check("store://.x@1.0.0", Err("not a pack name"));
    }
}
