//! Taking a zip archive apart that may have been built to do harm.

use std::collections::BTreeMap;
use std::io::{Cursor, Read};

use zip::ZipArchive;
use zip::result::ZipError;

use super::archive::{ArchiveError, Limits};

/// Entries up to this size are never over-compressed: they cannot hurt.
const RATIO_FREE_BYTES: u64 = 1 << 20;

/// All files of an archive, by their paths.
pub(super) fn unpack(
    bytes: &[u8],
    limits: &Limits,
) -> Result<BTreeMap<String, Vec<u8>>, ArchiveError> {
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
