//! Writing an archive: the same files give the same bytes, on every machine and with every version of this program.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, System, ZipWriter};

use super::sbom;

/// Why an archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The zip format cannot hold it.
    #[error("the archive cannot be written: {0}")]
    Zip(#[from] zip::result::ZipError),
    /// The same, from the writer underneath.
    #[error("the archive cannot be written: {0}")]
    Io(#[from] std::io::Error),
    /// The SBOM or the manifest cannot be encoded.
    #[error("`{entry}` cannot be encoded: {reason}")]
    Encode {
        /// The file in the archive.
        entry: &'static str,
        /// Why not.
        reason: String,
    },
}

/// The archive of these files, with their SBOM. Entries are sorted by path, stored and dated 1980. They are not
/// compressed: a compressor's next version may give other bytes, and with them the pack would get another id.
pub fn write_archive(mut files: BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>, WriteError> {
    sbom::add(&mut files)?;
    write_zip(&files)
}

/// The archive of exactly these files.
pub(super) fn write_zip(files: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>, WriteError> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::default())
        .system(System::Unix)
        .unix_permissions(0o644);
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    for (path, content) in files {
        writer.start_file(path.as_str(), options)?;
        writer.write_all(content)?;
    }
    Ok(writer.finish()?.into_inner())
}
