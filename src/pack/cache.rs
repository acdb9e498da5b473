//! Archives kept by what they are: the file's name is the pack's id.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::model::PackId;

use super::store::{Failed, read};

/// How many unfinished files of other writers are passed over before one's own is begun.
const MAX_WRITERS: u32 = 1_000;

/// A folder of archives, each named by its pack id. Any number of workers may share it. What is in it was checked when it
/// was put there and is checked again when it is taken out.
#[derive(Clone, Debug)]
pub struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// The cache in this folder, which need not exist yet.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
        }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file that holds this pack, if any does.
    pub fn file(&self, pack: &PackId) -> PathBuf {
        self.folder.join(format!("{}.gtpack", pack.stored()))
    }

    /// The archive of a pack; none if it is not there, or not any more what it was: such a file is removed.
    ///
    /// # Errors
    /// It is there and cannot be read.
    pub fn take(&self, pack: &PackId, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let file = self.file(pack);
        match read(&file, limit) {
            Ok(bytes) if PackId::of_archive(&bytes) == *pack => Ok(Some(bytes)),
            Ok(_) | Err(Failed::TooLarge) => {
                fs::remove_file(&file)?;
                Ok(None)
            }
            Err(Failed::Io(error)) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(Failed::Io(error)) => Err(error),
        }
    }

    /// Keeps an archive under its id. Whoever looks meanwhile sees all of it or nothing.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn keep(&self, pack: &PackId, bytes: &[u8]) -> io::Result<()> {
        let file = self.file(pack);
        if fs::metadata(&file).is_ok_and(|there| there.len() == bytes.len() as u64) {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        let (mut unfinished, path) = self.unfinished(pack)?;
        let written = unfinished
            .write_all(bytes)
            .and_then(|()| fs::rename(&path, &file));
        if written.is_err() {
            // The first error is the one to tell.
            let _ = fs::remove_file(&path);
        }
        written
    }

    /// A new file for an archive that is being written. Another worker may be writing the same one just now, or have died
    /// over it.
    fn unfinished(&self, pack: &PackId) -> io::Result<(File, PathBuf)> {
        let mut last = io::Error::from(ErrorKind::AlreadyExists);
        for n in 0..MAX_WRITERS {
            let path = self.folder.join(format!("{}.{n}.part", pack.stored()));
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok((file, path)),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_comes_out_as_it_went_in_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().join("made/on/demand"));
        let pack = PackId::of_archive(b"archive");
        assert_eq!(cache.take(&pack, 100).unwrap(), None);
        cache.keep(&pack, b"archive").unwrap();
        cache.keep(&pack, b"archive").unwrap();
        let taken = cache.take(&pack, 100).unwrap();
        assert_eq!(taken.as_deref(), Some(&b"archive"[..]));
        let names = fs::read_dir(cache.folder()).unwrap().count();
        assert_eq!(names, 1, "something unfinished was left");

        fs::write(cache.file(&pack), b"damaged").unwrap();
        assert_eq!(cache.take(&pack, 100).unwrap(), None);
        assert!(
            !cache.file(&pack).exists(),
            "the damaged file is still there"
        );
    }

    #[test]
    fn what_another_writer_left_unfinished_is_in_nobodys_way() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path());
        let pack = PackId::of_archive(b"archive");
        let theirs = dir.path().join(format!("{}.0.part", pack.stored()));
        fs::write(&theirs, b"arch").unwrap();
        cache.keep(&pack, b"archive").unwrap();
        assert!(cache.take(&pack, 100).unwrap().is_some());
        assert_eq!(fs::read(theirs).unwrap(), b"arch");
    }

    #[test]
    fn a_folder_that_cannot_be_made_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"").unwrap();
        let cache = Cache::new(file.join("cache"));
        assert!(cache.keep(&PackId::of_archive(b"a"), b"a").is_err());
    }
}
