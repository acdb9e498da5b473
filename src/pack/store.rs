//! Finding the archive that a gtbind refers to.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::model::{PackId, PackRef};

use super::Cache;

/// Knows where packs are kept. `store://<name>@<version>` is the file `<name>-<version>.gtpack` in the store's folder;
/// files are themselves; what is on another machine is in the cache, or was fetched into memory.
#[derive(Clone, Debug)]
pub struct Resolver {
    store: PathBuf,
    cache: Option<Cache>,
    keeps: bool,
    fetched: HashMap<PackId, Result<Vec<u8>, NotFetched>>,
}

/// Why an archive did not come from another machine, in words for the one who bound it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NotFetched {
    /// Why not.
    pub reason: String,
    /// What to do about it.
    pub remedy: String,
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
    /// It is on another machine and was not fetched.
    #[error("{0}")]
    NotFetched(NotFetched),
}

impl ResolveError {
    /// What to do about it.
    pub fn remedy(&self) -> &str {
        match self {
            Self::NotFetched(not) => &not.remedy,
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
            cache: None,
            keeps: false,
            fetched: HashMap::new(),
        }
    }

    /// Takes archives of other machines from this cache.
    #[must_use]
    pub fn with_cache(mut self, cache: Option<Cache>) -> Self {
        self.cache = cache;
        self
    }

    /// Keeps every archive that is opened in the cache, where there is one.
    #[must_use]
    pub fn keeping(mut self) -> Self {
        self.keeps = true;
        self
    }

    /// Hands over what was fetched and is not in the cache, or why it was not fetched.
    #[must_use]
    pub fn with_fetched(mut self, fetched: HashMap<PackId, Result<Vec<u8>, NotFetched>>) -> Self {
        self.fetched = fetched;
        self
    }

    /// The file that a reference means, or what stands for it in messages.
    pub fn locate(&self, reference: &PackRef) -> PathBuf {
        match reference {
            PackRef::Store { name, version } => self.store.join(format!("{name}-{version}.gtpack")),
            PackRef::File(file) => file.clone(),
            PackRef::Remote(remote) => PathBuf::from(remote.to_string()),
        }
    }

    /// The bytes that a reference means, `limit` at the most. Of a file they may be those of another pack than the one
    /// that is asked for; opening the archive tells.
    pub fn fetch(
        &self,
        pack: &PackId,
        reference: &PackRef,
        limit: u64,
    ) -> Result<Vec<u8>, ResolveError> {
        if let PackRef::Remote(_) = reference {
            return self.fetched(pack, reference, limit);
        }
        let file = self.locate(reference);
        read(&file, limit).map_err(|error| match error {
            Failed::TooLarge => ResolveError::TooLarge { file, limit },
            Failed::Io(error) if error.kind() == io::ErrorKind::NotFound => match reference {
                PackRef::Store { .. } => ResolveError::NotInStore { file },
                PackRef::File(_) | PackRef::Remote(_) => ResolveError::NoFile { file },
            },
            Failed::Io(source) => ResolveError::Unreadable { file, source },
        })
    }

    /// Keeps an opened archive in the cache, if it is to be kept.
    ///
    /// # Errors
    /// The cache cannot be written to, with its folder.
    pub fn keep(&self, pack: &PackId, bytes: &[u8]) -> Result<(), (PathBuf, io::Error)> {
        match &self.cache {
            Some(cache) if self.keeps => cache
                .keep(pack, bytes)
                .map_err(|error| (cache.folder().to_owned(), error)),
            Some(_) | None => Ok(()),
        }
    }

    fn fetched(
        &self,
        pack: &PackId,
        reference: &PackRef,
        limit: u64,
    ) -> Result<Vec<u8>, ResolveError> {
        match self.fetched.get(pack) {
            Some(Ok(bytes)) => return Ok(bytes.clone()),
            Some(Err(not)) => return Err(ResolveError::NotFetched(not.clone())),
            None => {}
        }
        let cached = self.cache.as_ref().map(|cache| {
            let unreadable = |source| ResolveError::Unreadable {
                file: cache.file(pack),
                source,
            };
            cache.take(pack, limit).map_err(unreadable)
        });
        cached.transpose()?.flatten().ok_or_else(|| {
            ResolveError::NotFetched(NotFetched {
                reason: format!("`{reference}` was fetched, and is gone from the cache since"),
                remedy: "load it again, and let nobody else clear packs.cache_dir".to_owned(),
            })
        })
    }
}

pub(super) enum Failed {
    TooLarge,
    Io(io::Error),
}

pub(super) fn read(file: &Path, limit: u64) -> Result<Vec<u8>, Failed> {
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
        let pack = PackId::of_archive(b"bytes");
        let fetch = |reference: &PackRef, limit| resolver.fetch(&pack, reference, limit);
        let parse = |text: &str| PackRef::parse(text, dir.path()).unwrap();
        let stored = parse("store://hello-pack@1.0.0");
        let file = dir.path().join("hello-pack-1.0.0.gtpack");
        let absent = fetch(&stored, 10).unwrap_err();
        assert!(matches!(absent, ResolveError::NotInStore { file: f } if f == file));

        std::fs::write(&file, b"bytes").unwrap();
        assert_eq!(fetch(&stored, 5).unwrap(), b"bytes");
        let by_path = parse("hello-pack-1.0.0.gtpack");
        assert_eq!(fetch(&by_path, 5).unwrap(), b"bytes");
        assert!(matches!(
            fetch(&stored, 4),
            Err(ResolveError::TooLarge { limit: 4, .. })
        ));
        assert!(matches!(
            fetch(&parse("other.gtpack"), 5),
            Err(ResolveError::NoFile { .. })
        ));
        assert!(matches!(
            fetch(&PackRef::File(dir.path().into()), 5),
            Err(ResolveError::Unreadable { .. })
        ));
    }
    #[test]
    fn what_was_fetched_is_in_memory_or_in_the_cache_and_else_its_reason_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let reference = PackRef::parse("https://packs.example/a.gtpack", dir.path()).unwrap();
        let pack = PackId::of_archive(b"bytes");
        let resolver = Resolver::new(dir.path()).with_cache(Some(Cache::new(dir.path())));
        let gone = resolver.fetch(&pack, &reference, 10).unwrap_err();
        assert!(gone.to_string().contains("gone from the cache"), "{gone}");
        Cache::new(dir.path()).keep(&pack, b"bytes").unwrap();
        assert_eq!(resolver.fetch(&pack, &reference, 10).unwrap(), b"bytes");

        let not = NotFetched {
            reason: "nobody answers".to_owned(),
            remedy: "try again".to_owned(),
        };
        let failed = HashMap::from([(pack, Err(not))]);
        let error = resolver.with_fetched(failed).fetch(&pack, &reference, 10);
        let error = error.unwrap_err();
        assert_eq!(
            (error.to_string().as_str(), error.remedy()),
            ("nobody answers", "try again")
        );
    }
}
