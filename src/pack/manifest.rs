//! Reading a manifest, in every form that the ecosystem's tools have written.

use std::collections::{BTreeMap, BTreeSet};

use ciborium::Value;
use greentic_types::{ExtensionRef, PackManifest, decode_pack_manifest};

use crate::model::{Problem, Problems};

use super::archive::ArchiveError;
use super::older::{self, OlderComponent};
use super::runtime_flows;

/// The file in an archive that holds the manifest.
pub(super) const MANIFEST: &str = "manifest.cbor";

/// What the designer of the ecosystem writes in its place, for packs that drive agents only.
const DESIGNER_MANIFEST: &str = "manifest.json";

/// A manifest, and what its form keeps elsewhere.
#[derive(Debug)]
pub(super) struct Read {
    pub manifest: PackManifest,
    /// The components of the older form, which names their files itself.
    pub older: Vec<OlderComponent>,
}

/// Reads the manifest of these files. Its flows are those that the pack runs, wherever the form keeps them.
pub(super) fn read(
    files: &BTreeMap<String, Vec<u8>>,
    notes: &mut Problems,
) -> Result<Read, ArchiveError> {
    let Some(bytes) = files.get(MANIFEST) else {
        return Err(if files.contains_key(DESIGNER_MANIFEST) {
            ArchiveError::Designer
        } else {
            ArchiveError::Missing { entry: MANIFEST }
        });
    };
    let value: Value =
        ciborium::from_reader(bytes.as_slice()).map_err(|error| unreadable(&error))?;
    let mut read = if has(&value, "meta") {
        older::read(&value, files, notes)?
    } else {
        Read {
            manifest: current(bytes, value, notes)?,
            older: Vec::new(),
        }
    };
    if let Some(flows) = runtime_flows::find(&read.manifest, notes) {
        read.manifest.flows = flows;
    }
    name_flows_once(&mut read.manifest)?;
    Ok(read)
}

pub(super) fn unreadable(error: &dyn std::fmt::Display) -> ArchiveError {
    ArchiveError::Manifest {
        reason: error.to_string(),
    }
}

/// The form with its ids in symbol tables, or the same plain. What an extension looks like is up to whoever made it up,
/// so one that cannot be read is left out, and nothing else is lost with it.
fn current(
    bytes: &[u8],
    mut value: Value,
    notes: &mut Problems,
) -> Result<PackManifest, ArchiveError> {
    match decode(bytes, &value) {
        Ok(manifest) => Ok(manifest),
        Err(error) => {
            let dropped = drop_extensions(&mut value);
            if dropped.is_empty() {
                return Err(unreadable(&error));
            }
            let mut bytes = Vec::new();
            ciborium::into_writer(&value, &mut bytes).map_err(|error| unreadable(&error))?;
            let manifest = decode(&bytes, &value).map_err(|error| unreadable(&error))?;
            notes.push(
                Problem::warning(format!(
                    "the manifest's extensions {} cannot be read and are left out",
                    dropped.join(", ")
                ))
                .at("manifest.cbor, extensions")
                .remedy("give each of them a `kind` and a `version`"),
            );
            Ok(manifest)
        }
    }
}

fn decode(bytes: &[u8], value: &Value) -> Result<PackManifest, String> {
    if has(value, "symbols") {
        decode_pack_manifest(bytes).map_err(|error| error.to_string())
    } else {
        ciborium::from_reader(bytes).map_err(|error| error.to_string())
    }
}

/// Takes out the extensions that are none, and names them.
fn drop_extensions(manifest: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    let fields = manifest.as_map_mut().into_iter().flatten();
    for (name, value) in fields {
        if name.as_text() == Some("extensions")
            && let Some(extensions) = value.as_map_mut()
        {
            extensions.retain(|(id, extension)| {
                let reads = id.is_text() && extension.deserialized::<ExtensionRef>().is_ok();
                if !reads {
                    dropped.push(format!("`{}`", id.as_text().unwrap_or("?")));
                }
                reads
            });
        }
    }
    dropped
}

fn has(value: &Value, field: &str) -> bool {
    let fields = value.as_map().into_iter().flatten();
    fields
        .into_iter()
        .any(|(key, _)| key.as_text() == Some(field))
}

/// A manifest names each flow twice, in its list and in the flow itself; the list is what gtbinds and other flows see.
fn name_flows_once(manifest: &mut PackManifest) -> Result<(), ArchiveError> {
    let mut seen = BTreeSet::new();
    for entry in &mut manifest.flows {
        if !seen.insert(entry.id.clone()) {
            return Err(unreadable(&format!("it lists flow `{}` twice", entry.id)));
        }
        entry.flow.id = entry.id.clone();
    }
    Ok(())
}
