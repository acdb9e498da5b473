//! Finding the archive that a gtbind refers to.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::model::PackRef;

/// Knows where packs are kept. `store://<name>@<version>` is the file `<name>-<version>.gtpack` in the store's folder;
/// files are themselves.
#[derive(Clone, Debug)]
pub struct Resolver {
    store: PathBuf,
}

/// Why there is no archive.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The store has none of this name and version.
    #[error("the pack store has no `{}`", .file.display())]
    NotInStore {
        /// The file that was looked for.
        file: PathBuf,
    },
    /// The file does not exist.
    #[error("there is no file `{}`", .file.display())]
    NoFile {
        /// The file.
        file: PathBuf,
    },
    /// It is larger than is taken.
    #[error("`{}` has more than the {limit} bytes that are taken", .file.display())]
    TooLarge {
        /// The file.
        file: PathBuf,
        /// The limit.
        limit: u64,
    },
    /// It cannot be read.
    #[error("`{}` cannot be read: {source}", .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl ResolveError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NotInStore { .. } => {
                "put the archive there (`greentic-worker pack build` writes it), or set packs.store to the right folder"
            }
            Self::NoFile { .. } => "check the path; a relative one starts at the gtbind's folder",
            Self::TooLarge { .. } => "leave build output and other ballast out of the pack",
            Self::Unreadable { .. } => {
                "check that it is a file that the worker has the right to read"
            }
        }
    }
}

impl Resolver {
    /// Packs of `store://` are in this folder.
    pub fn new(store: impl Into<PathBuf>) -> Self {
        Self {
            store: store.into(),
        }
    }

    /// The file that a reference means.
    pub fn locate(&self, reference: &PackRef) -> PathBuf {
        match reference {
            PackRef::Store { name, version } => self.store.join(format!("{name}-{version}.gtpack")),
            PackRef::File(file) => file.clone(),
        }
    }

    /// The bytes that a reference means, `limit` at the most.
    pub fn fetch(&self, reference: &PackRef, limit: u64) -> Result<Vec<u8>, ResolveError> {
        let file = self.locate(reference);
        read(&file, limit).map_err(|error| match error {
            Failed::TooLarge => ResolveError::TooLarge { file, limit },
            Failed::Io(error) if error.kind() == io::ErrorKind::NotFound => match reference {
                PackRef::Store { .. } => ResolveError::NotInStore { file },
                PackRef::File(_) => ResolveError::NoFile { file },
            },
            Failed::Io(source) => ResolveError::Unreadable { file, source },
        })
    }
}

enum Failed {
    TooLarge,
    Io(io::Error),
}

fn read(file: &Path, limit: u64) -> Result<Vec<u8>, Failed> {
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(Failed::Io)?;
    opened
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(Failed::Io)?;
    if bytes.len() as u64 > limit {
        return Err(Failed::TooLarge);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_lead_to_files_and_their_absence_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let resolver = Resolver::new(dir.path());
        let parse = |text: &str| PackRef::parse(text, dir.path()).unwrap();
        let stored = parse("store://hello-pack@1.0.0");
        let file = dir.path().join("hello-pack-1.0.0.gtpack");
        let absent = resolver.fetch(&stored, 10).unwrap_err();
        assert!(matches!(absent, ResolveError::NotInStore { file: f } if f == file));

        std::fs::write(&file, b"bytes").unwrap();
        assert_eq!(resolver.fetch(&stored, 5).unwrap(), b"bytes");
        let by_path = parse("hello-pack-1.0.0.gtpack");
        assert_eq!(resolver.fetch(&by_path, 5).unwrap(), b"bytes");
        assert!(matches!(
            resolver.fetch(&stored, 4),
            Err(ResolveError::TooLarge { limit: 4, .. })
        ));
        assert!(matches!(
            resolver.fetch(&parse("other.gtpack"), 5),
            Err(ResolveError::NoFile { .. })
        ));
        assert!(matches!(
            resolver.fetch(&PackRef::File(dir.path().into()), 5),
            Err(ResolveError::Unreadable { .. })
        ));
    }
}
