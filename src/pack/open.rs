//! Opening an archive that nobody vouches for yet.

use std::collections::BTreeMap;

use bytes::Bytes;
use greentic_types::PackManifest;

use crate::model::{PackId, Problems};

use super::archive::{ArchiveError, Limits};
use super::component::{self, Component};
use super::manifest;
use super::sbom::{self, Listing};
use super::unpack::unpack;

/// Where an archive keeps what its components and cards read.
pub(super) const ASSETS: &str = "assets/";

/// An opened pack: everything in it was checked against its SBOM, if it has one.
#[derive(Clone, Debug)]
pub struct Pack {
    /// The digest of the archive.
    pub id: PackId,
    /// What the pack is, with the flows that it runs.
    pub manifest: PackManifest,
    /// Its components, each once, in the order of their ids.
    pub components: Vec<Component>,
    /// All files by their path in the archive, the manifest and the SBOM among them.
    pub files: BTreeMap<String, Vec<u8>>,
    /// The SBOM that the files were checked against.
    pub listing: Listing,
    /// What is odd about it, as warnings.
    pub notes: Problems,
}

impl Pack {
    /// A component's code, if the archive holds it.
    pub fn code(&self, component: &Component) -> Option<&[u8]> {
        let file = self.files.get(component.file()?)?;
        Some(file)
    }

    /// Takes out what the pack's components and cards read, by its path in the archive.
    pub fn take_assets(&mut self) -> impl Iterator<Item = (String, Bytes)> {
        let assets = |path: &String, _: &mut Vec<u8>| path.starts_with(ASSETS);
        let taken: Vec<_> = self.files.extract_if(.., assets).collect();
        taken
            .into_iter()
            .map(|(path, content)| (path, content.into()))
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
    let mut notes = Problems::default();
    let listing = sbom::verify(&files, &mut notes)?;
    let read = manifest::read(&files, &mut notes)?;
    let components = component::find(&read, &files, limits, &mut notes)?;
    Ok(Pack {
        id,
        manifest: read.manifest,
        components,
        files,
        listing,
        notes,
    })
}

#[cfg(test)]
mod tests;
