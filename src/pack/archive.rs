//! Opening an archive that nobody vouches for yet.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use greentic_types::{PackManifest, decode_pack_manifest};
use zip::ZipArchive;
use zip::result::ZipError;

use crate::model::PackId;

use super::sbom;

/// The file in an archive that holds the manifest.
pub(super) const MANIFEST: &str = "manifest.cbor";

/// Entries up to this size are never over-compressed: they cannot hurt.
const RATIO_FREE_BYTES: u64 = 1 << 20;

/// How much of an archive is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The archive itself, in bytes.
    pub archive_bytes: u64,
    /// The files in it.
    pub files: usize,
    /// All files in it together, unpacked, in bytes.
    pub unpacked_bytes: u64,
    /// A file's unpacked size over its packed size; files up to 1 MiB are not held to it.
    pub compression_ratio: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            archive_bytes: 64 << 20,
            files: 4_096,
            unpacked_bytes: 256 << 20,
            compression_ratio: 100,
        }
    }
}

/// An opened pack: everything in it was checked against its SBOM.
#[derive(Clone, Debug)]
pub struct Pack {
    /// The digest of the archive.
    pub id: PackId,
    /// What the pack is, with its flows.
    pub manifest: PackManifest,
    /// All files by their path in the archive, the manifest and the SBOM among them.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// Why an archive is not taken.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// Another archive than the one that was asked for.
    #[error("the archive is {found}, not {expected}")]
    Identity {
        /// The pack id that was asked for.
        expected: PackId,
        /// What the archive's digest is.
        found: PackId,
    },
    /// Larger than [`Limits::archive_bytes`].
    #[error("the archive has {bytes} bytes, more than the {limit} that are taken")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Not a zip archive, or a broken one.
    #[error("this is not a readable zip archive: {0}")]
    NotZip(#[source] ZipError),
    /// More than [`Limits::files`].
    #[error("the archive has {files} files, more than the {limit} that are taken")]
    TooManyFiles {
        /// Their number.
        files: usize,
        /// The limit.
        limit: usize,
    },
    /// Two entries have one name.
    #[error("the archive holds `{entry}` twice")]
    Duplicate {
        /// The name.
        entry: String,
    },
    /// A path that leads out of the archive, or may be read as such somewhere.
    #[error("the entry `{entry}` has an unsafe path: {reason}")]
    UnsafePath {
        /// The path.
        entry: String,
        /// What is unsafe about it.
        reason: &'static str,
    },
    /// A link, device or other thing that is no file.
    #[error("the entry `{entry}` is a link or another special file")]
    NotAFile {
        /// Its path.
        entry: String,
    },
    /// It cannot be unpacked.
    #[error("the entry `{entry}` cannot be unpacked: {source}")]
    Entry {
        /// Its path.
        entry: String,
        /// Why not.
        source: ZipError,
    },
    /// With this entry, more than [`Limits::unpacked_bytes`].
    #[error(
        "with the entry `{entry}` the archive unpacks to more than the {limit} bytes that are taken"
    )]
    UnpackedTooLarge {
        /// Its path.
        entry: String,
        /// The limit.
        limit: u64,
    },
    /// More than [`Limits::compression_ratio`].
    #[error("the entry `{entry}` unpacks to more than {limit} times its packed size")]
    OverCompressed {
        /// Its path.
        entry: String,
        /// The limit.
        limit: u64,
    },
    /// A file that every pack has.
    #[error("the archive has no `{entry}`")]
    Missing {
        /// Its path.
        entry: &'static str,
    },
    /// The SBOM cannot be read.
    #[error("`{entry}` cannot be read: {reason}")]
    SbomUnreadable {
        /// The SBOM's path.
        entry: &'static str,
        /// Why not.
        reason: String,
    },
    /// The SBOM and the file differ.
    #[error("the entry `{entry}` does not match the SBOM: {reason}")]
    SbomMismatch {
        /// The file's path.
        entry: String,
        /// What differs.
        reason: String,
    },
    /// The manifest cannot be read.
    #[error("`manifest.cbor` cannot be read: {reason}")]
    Manifest {
        /// Why not.
        reason: String,
    },
}

impl ArchiveError {
    /// What to do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Identity { .. } => {
                "if this archive is the right one, put its id into the gtbind; if not, the store holds another one under this name"
            }
            Self::TooLarge { .. } | Self::TooManyFiles { .. } | Self::UnpackedTooLarge { .. } => {
                "leave build output and other ballast out of the pack"
            }
            Self::NotZip(_) | Self::Entry { .. } => "fetch or build the archive again",
            Self::Missing { .. } | Self::Manifest { .. } => {
                "build the archive with `greentic-worker pack build` or greentic-pack"
            }
            Self::Duplicate { .. }
            | Self::UnsafePath { .. }
            | Self::NotAFile { .. }
            | Self::OverCompressed { .. }
            | Self::SbomUnreadable { .. }
            | Self::SbomMismatch { .. } => {
                "do not use this archive: it was changed after it was built, or built to do harm"
            }
        }
    }
}

/// Opens an archive. If `expected` is given and the digest of the bytes is another one, nothing in it is looked at.
pub fn open(
    bytes: &[u8],
    expected: Option<&PackId>,
    limits: &Limits,
) -> Result<Pack, ArchiveError> {
    let size = bytes.len() as u64;
    if size > limits.archive_bytes {
        return Err(ArchiveError::TooLarge {
            bytes: size,
            limit: limits.archive_bytes,
        });
    }
    let id = PackId::of_archive(bytes);
    if let Some(expected) = expected
        && *expected != id
    {
        return Err(ArchiveError::Identity {
            expected: *expected,
            found: id,
        });
    }
    let files = unpack(bytes, limits)?;
    sbom::verify(&files)?;
    let manifest = files
        .get(MANIFEST)
        .ok_or(ArchiveError::Missing { entry: MANIFEST })?;
    let manifest = read_manifest(manifest)?;
    Ok(Pack {
        id,
        manifest,
        files,
    })
}

fn unpack(bytes: &[u8], limits: &Limits) -> Result<BTreeMap<String, Vec<u8>>, ArchiveError> {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).map_err(ArchiveError::NotZip)?;
    if archive.has_duplicate_names() {
        let entry = doubled_name(bytes, archive.central_directory_start());
        return Err(ArchiveError::Duplicate { entry });
    }
    if archive.len() > limits.files {
        return Err(ArchiveError::TooManyFiles {
            files: archive.len(),
            limit: limits.files,
        });
    }
    let mut files = BTreeMap::new();
    let mut left = limits.unpacked_bytes;
    for index in 0..archive.len() {
        let entry = archive.by_index_data(index).map_err(ArchiveError::NotZip)?;
        let entry = safe_path(entry.name_raw())?;
        let mut file = match archive.by_index(index) {
            Ok(file) => file,
            Err(source) => return Err(ArchiveError::Entry { entry, source }),
        };
        if file.is_dir() {
            continue;
        }
        // The file type bits of a Unix mode; other systems leave them empty.
        let kind = file.unix_mode().unwrap_or_default() & 0o170_000;
        if file.is_symlink() || !matches!(kind, 0 | 0o100_000) {
            return Err(ArchiveError::NotAFile { entry });
        }
        let ratio = limits.compression_ratio;
        let ratio_bytes = file.compressed_size().saturating_mul(ratio);
        let allowed = left.min(ratio_bytes.max(RATIO_FREE_BYTES));
        let mut content = Vec::new();
        // What a header says of the size proves nothing: one byte past what is allowed is enough to know.
        if let Err(error) = (&mut file).take(allowed + 1).read_to_end(&mut content) {
            let source = ZipError::Io(error);
            return Err(ArchiveError::Entry { entry, source });
        }
        if content.len() as u64 > allowed {
            return Err(if allowed == left {
                let limit = limits.unpacked_bytes;
                ArchiveError::UnpackedTooLarge { entry, limit }
            } else {
                let limit = ratio;
                ArchiveError::OverCompressed { entry, limit }
            });
        }
        left -= content.len() as u64;
        files.insert(entry, content);
    }
    Ok(files)
}

/// A path that means the same file inside the archive to everyone, or why it is none.
fn safe_path(raw: &[u8]) -> Result<String, ArchiveError> {
    let Ok(path) = std::str::from_utf8(raw) else {
        return Err(ArchiveError::UnsafePath {
            entry: String::from_utf8_lossy(raw).into_owned(),
            reason: "it is not UTF-8",
        });
    };
    let steps = path.strip_suffix('/').unwrap_or(path);
    let reason = if path.starts_with('/') {
        "it is absolute"
    } else if path.contains('\\') || path.as_bytes().get(1) == Some(&b':') {
        "it is a path of Windows"
    } else if path.chars().any(char::is_control) {
        "it has control characters"
    } else if steps.split('/').any(|step| step == "..") {
        "it leads out of the archive"
    } else if steps.split('/').any(|step| step.is_empty() || step == ".") {
        "it has empty steps"
    } else {
        return Ok(path.to_owned());
    };
    Err(ArchiveError::UnsafePath {
        entry: path.escape_debug().to_string(),
        reason,
    })
}

/// The name that a central directory holds twice. The zip library only tells that there is one.
fn doubled_name(bytes: &[u8], directory: u64) -> String {
    const HEADER: usize = 46;
    let mut seen = std::collections::BTreeSet::new();
    let mut rest = usize::try_from(directory)
        .ok()
        .and_then(|start| bytes.get(start..))
        .unwrap_or_default();
    while rest.starts_with(b"PK\x01\x02") && rest.len() >= HEADER {
        let length = |at: usize| usize::from(u16::from_le_bytes([rest[at], rest[at + 1]]));
        let (name, extra, comment) = (length(28), length(30), length(32));
        let Some(found) = rest.get(HEADER..HEADER + name) else {
            break;
        };
        if !seen.insert(found) {
            return String::from_utf8_lossy(found).into_owned();
        }
        rest = rest
            .get(HEADER + name + extra + comment..)
            .unwrap_or_default();
    }
    "?".to_owned()
}

/// Reads a manifest in either of the forms that the ecosystem writes: with its ids in symbol tables, or plain.
fn read_manifest(bytes: &[u8]) -> Result<PackManifest, ArchiveError> {
    let unreadable = |reason: String| ArchiveError::Manifest { reason };
    let value: ciborium::Value =
        ciborium::from_reader(bytes).map_err(|error| unreadable(error.to_string()))?;
    let has_symbols = value.as_map().is_some_and(|fields| {
        fields
            .iter()
            .any(|(key, _)| key.as_text() == Some("symbols"))
    });
    let manifest = if has_symbols {
        decode_pack_manifest(bytes).map_err(|error| unreadable(error.to_string()))?
    } else {
        ciborium::from_reader(bytes).map_err(|error| unreadable(error.to_string()))?
    };
    consistent(&manifest).map_err(unreadable)?;
    Ok(manifest)
}

/// A manifest names each flow twice, in its list and in the flow itself.
fn consistent(manifest: &PackManifest) -> Result<(), String> {
    let mut seen = std::collections::BTreeSet::new();
    for entry in &manifest.flows {
        if entry.id != entry.flow.id {
            return Err(format!(
                "it lists flow `{}`, which calls itself `{}`",
                entry.id, entry.flow.id
            ));
        }
        if !seen.insert(&entry.id) {
            return Err(format!("it lists flow `{}` twice", entry.id));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
