//! Compiled components on disk, so that the second start compiles nothing.
//!
//! A file is named after the digest of the component and after everything that its machine code depends on: the
//! wasmtime version, the processor and the engine's settings. It begins with a checksum of the rest. Machine code is
//! as trusted as the worker's own: files and folders of anybody else are refused.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::{Hash, Hasher};
use std::io::{self, Read, Write};
#[cfg(unix)]
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasmtime::Engine;
use wasmtime::component::Component;

use crate::model::ComponentDigest;

/// A folder of compiled components that only this user can write.
#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
    /// What the machine code depends on besides the component.
    engine: String,
    owner: u32,
}

/// Why there is no cache.
#[derive(Debug, thiserror::Error)]
pub(super) enum CacheError {
    #[error("it cannot be written: {0}")]
    Io(#[from] io::Error),
    #[error(
        "others than its owner may write it, or it is owned by somebody else than who runs the worker"
    )]
    NotOurs,
}

impl Cache {
    /// Opens a folder, and makes it if it is not there.
    pub(super) fn open(dir: &Path, engine: &Engine) -> Result<Self, CacheError> {
        make(dir)?;
        // What we write is ours: its owner tells who we are.
        let probe = dir.join(temporary_name("probe"));
        let ours = write_new(&probe, &[]).and_then(|file| file.metadata());
        fs::remove_file(&probe)?;
        let owner = owner(&ours?);
        let cache = Self {
            dir: dir.to_owned(),
            engine: compatibility(engine),
            owner,
        };
        match cache.is_ours(&fs::metadata(dir)?) {
            true => Ok(cache),
            false => Err(CacheError::NotOurs),
        }
    }

    /// A component as it was compiled before. What cannot be used is as good as not there.
    pub(super) fn load(&self, engine: &Engine, digest: ComponentDigest) -> Option<Component> {
        let path = self.path(digest);
        match self.read(&path) {
            Ok(Some(code)) => Compiled(code).load(engine).inspect_err(|error| {
                tracing::warn!(file = %path.display(), %error, "a compiled component cannot be used, and is compiled anew");
            }).ok(),
            Ok(None) => {
                tracing::warn!(file = %path.display(), "a compiled component is damaged or not ours, and is compiled anew");
                None
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "a compiled component cannot be read, and is compiled anew");
                None
            }
        }
    }

    /// Keeps a component for the next start. A file is there as a whole or not at all.
    pub(super) fn store(
        &self,
        digest: ComponentDigest,
        Compiled(code): &Compiled,
    ) -> io::Result<()> {
        let temporary = self.dir.join(temporary_name(&digest.to_string()));
        let written = write_new(&temporary, blake3::hash(code).as_bytes())
            .and_then(|mut file| file.write_all(code))
            .and_then(|()| fs::rename(&temporary, self.path(digest)));
        written.inspect_err(|_| {
            // What is left of it is in nobody's way.
            fs::remove_file(&temporary).unwrap_or_default();
        })
    }

    fn path(&self, digest: ComponentDigest) -> PathBuf {
        self.dir.join(format!("{digest}-{}.cwasm", self.engine))
    }

    /// The code in a file, if the file is ours and the code is what was written.
    fn read(&self, path: &Path) -> io::Result<Option<Vec<u8>>> {
        let mut file = File::open(path)?;
        if !self.is_ours(&file.metadata()?) {
            return Ok(None);
        }
        let mut checksum = [0; blake3::OUT_LEN];
        let mut code = Vec::new();
        if file.read_exact(&mut checksum).is_err() {
            return Ok(None);
        }
        file.read_to_end(&mut code)?;
        Ok((blake3::hash(&code) == blake3::Hash::from_bytes(checksum)).then_some(code))
    }

    #[cfg(unix)]
    fn is_ours(&self, file: &fs::Metadata) -> bool {
        const OTHERS_WRITE: u32 = 0o022;
        file.uid() == self.owner && file.mode() & OTHERS_WRITE == 0
    }

    #[cfg(not(unix))]
    fn is_ours(&self, file: &fs::Metadata) -> bool {
        owner(file) == self.owner
    }
}

/// Machine code as wasmtime wrote it: read from a file of ours whose checksum is right, or just compiled.
pub(super) struct Compiled(Vec<u8>);

impl Compiled {
    /// What the compiler gave, this process or one of this program that it started.
    pub(super) fn new(code: Vec<u8>) -> Self {
        Self(code)
    }

    /// The one unsafe call of the worker.
    #[expect(
        unsafe_code,
        reason = "machine code is run as it is: the bytes must be what wasmtime's compiler gave. `Compiled` is made of two                   things only. One is what the compiler has just given, in this process or through the pipe of a process                   of the same program that this one started, to which nobody else can write. The other is, in                   `Cache::load`, a file whose checksum holds, that this user owns and no other may write, in a folder of                   which the same is true. Who can forge either can replace the worker itself. That the code is of this                   version of wasmtime, for this processor and these settings, wasmtime checks by itself."
    )]
    pub(super) fn load(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: see the reason above.
        unsafe { Component::deserialize(engine, &self.0) }
    }
}

fn make(dir: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    builder.mode(0o700);
    builder.create(dir)
}

fn write_new(path: &Path, start: &[u8]) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    options.mode(0o600);
    let mut file = options.open(path)?;
    file.write_all(start)?;
    Ok(file)
}

#[cfg(unix)]
fn owner(file: &fs::Metadata) -> u32 {
    file.uid()
}

#[cfg(not(unix))]
fn owner(_: &fs::Metadata) -> u32 {
    0
}

/// A name that no other writer of the folder uses at the same time.
fn temporary_name(what: &str) -> String {
    static WRITTEN: AtomicUsize = AtomicUsize::new(0);
    let number = WRITTEN.fetch_add(1, Ordering::Relaxed);
    format!(".{what}.{}-{number}.tmp", process::id())
}

fn compatibility(engine: &Engine) -> String {
    let mut hash = Blake3(blake3::Hasher::new());
    engine.precompile_compatibility_hash().hash(&mut hash);
    hex::encode(&hash.0.finalize().as_bytes()[..16])
}

/// Hashes the same everywhere and always, which the standard library's hasher does not promise.
struct Blake3(blake3::Hasher);

impl Hasher for Blake3 {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0.finalize().as_bytes()[..8]);
        u64::from_le_bytes(first)
    }
}
