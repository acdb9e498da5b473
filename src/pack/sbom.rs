//! The list of an archive's files with their sizes and BLAKE3 digests.

use std::collections::{BTreeMap, BTreeSet};

use greentic_types::cbor::canonical::to_canonical_cbor;
use serde::{Deserialize, Serialize};

use crate::model::{Problem, Problems};

use super::archive::ArchiveError;
use super::signature::{SIGNATURE, SIGNATURE_CHAIN};
use super::write::WriteError;

const FORMAT: &str = "greentic-sbom-v1";
pub(super) const SBOM: &str = "sbom.cbor";
const SBOM_JSON: &str = "sbom.json";

/// What no SBOM lists: itself, and the signature over it.
const UNLISTED: [&str; 4] = [SBOM, SBOM_JSON, SIGNATURE, SIGNATURE_CHAIN];

#[derive(Serialize, Deserialize)]
struct Sbom {
    format: String,
    files: Vec<SbomFile>,
}

#[derive(Serialize, Deserialize)]
struct SbomFile {
    path: String,
    size: u64,
    hash_blake3: String,
    #[serde(default)]
    media_type: String,
}

/// The list of an archive's files that was checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// This file holds it.
    File(&'static str),
    /// The archive has none, as some tools of the ecosystem leave it.
    None,
}

/// Checks that the SBOM lists exactly the files that are there, as they are. An archive without one passes with a note.
pub(super) fn verify(
    files: &BTreeMap<String, Vec<u8>>,
    notes: &mut Problems,
) -> Result<Listing, ArchiveError> {
    let Some((entry, sbom)) = read(files)? else {
        notes.push(
            Problem::warning("it has no SBOM, so its files were not checked one by one")
                .remedy("build it again with a newer tool; the pack_id in the gtbind still vouches for the whole"),
        );
        return Ok(Listing::None);
    };
    let mut listed = BTreeSet::new();
    for file in &sbom.files {
        let mismatch = |reason: String| ArchiveError::SbomMismatch {
            entry: file.path.clone(),
            reason,
        };
        if !listed.insert(file.path.as_str()) {
            return Err(mismatch("it is listed twice".to_owned()));
        }
        let content = files
            .get(&file.path)
            .ok_or_else(|| mismatch("it is listed, but not there".to_owned()))?;
        if content.len() as u64 != file.size {
            let found = content.len();
            let reason = format!("it has {found} bytes, {} are listed", file.size);
            return Err(mismatch(reason));
        }
        let digest = blake3::hash(content).to_hex();
        if !digest.eq_ignore_ascii_case(&file.hash_blake3) {
            return Err(mismatch("its content has another digest".to_owned()));
        }
    }
    let unlisted = files
        .keys()
        .find(|path| !listed.contains(path.as_str()) && !UNLISTED.contains(&path.as_str()));
    match unlisted {
        None => Ok(Listing::File(entry)),
        Some(path) => Err(ArchiveError::SbomMismatch {
            entry: path.clone(),
            reason: "it is there, but not listed".to_owned(),
        }),
    }
}

/// Gives these files their SBOM, as canonical CBOR.
pub(super) fn add(files: &mut BTreeMap<String, Vec<u8>>) -> Result<(), WriteError> {
    let sbom = encode(files).map_err(|reason| WriteError::Encode {
        entry: SBOM,
        reason,
    })?;
    files.insert(SBOM.to_owned(), sbom);
    Ok(())
}

/// Which of the files is the SBOM.
pub(super) fn file_of(files: &BTreeMap<String, Vec<u8>>) -> Option<&'static str> {
    [SBOM, SBOM_JSON]
        .into_iter()
        .find(|path| files.contains_key(*path))
}

/// The path and digest of each file that the SBOM lists, as it says them.
pub(super) fn digests(files: &BTreeMap<String, Vec<u8>>) -> Option<Vec<(String, String)>> {
    let (_, sbom) = read(files).ok()??;
    let listed = sbom.files.into_iter();
    Some(listed.map(|file| (file.path, file.hash_blake3)).collect())
}

pub(super) fn encode(files: &BTreeMap<String, Vec<u8>>) -> Result<Vec<u8>, String> {
    let files = files
        .iter()
        .map(|(path, content)| SbomFile {
            path: path.clone(),
            size: content.len() as u64,
            hash_blake3: blake3::hash(content).to_hex().to_string(),
            media_type: media_type(path).to_owned(),
        })
        .collect();
    let format = FORMAT.to_owned();
    to_canonical_cbor(&Sbom { format, files }).map_err(|error| error.to_string())
}

/// Older tools of the ecosystem write the same document as JSON.
fn read(files: &BTreeMap<String, Vec<u8>>) -> Result<Option<(&'static str, Sbom)>, ArchiveError> {
    let (entry, read) = if let Some(bytes) = files.get(SBOM) {
        let read = ciborium::from_reader::<Sbom, _>(bytes.as_slice());
        (SBOM, read.map_err(|error| error.to_string()))
    } else if let Some(bytes) = files.get(SBOM_JSON) {
        let read = serde_json::from_slice::<Sbom>(bytes);
        (SBOM_JSON, read.map_err(|error| error.to_string()))
    } else {
        return Ok(None);
    };
    let unreadable = |reason| ArchiveError::SbomUnreadable { entry, reason };
    let sbom = read.map_err(unreadable)?;
    if sbom.format != FORMAT {
        let reason = format!("its format is `{}`, expected `{FORMAT}`", sbom.format);
        return Err(unreadable(reason));
    }
    Ok(Some((entry, sbom)))
}

fn media_type(path: &str) -> &'static str {
    match path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("cbor") => "application/cbor",
        Some("json") => "application/json",
        Some("wasm") => "application/wasm",
        Some("ygtc" | "yaml") => "application/yaml",
        _ => "application/octet-stream",
    }
}
