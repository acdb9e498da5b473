//! The components that a pack brings along, and the files that hold their code.

use std::collections::BTreeMap;

use greentic_types::pack::extensions::component_sources::{
    ArtifactLocationV1, ComponentSourceEntryV1,
};
use greentic_types::{ComponentCapabilities, ComponentManifest, PackManifest};
use semver::Version;
use sha2::{Digest, Sha256};

use crate::model::{Problem, Problems};

use super::archive::{ArchiveError, Limits};
use super::manifest::Read;
use super::older::OlderComponent;

type Files = BTreeMap<String, Vec<u8>>;

/// A component of a pack.
#[derive(Clone, Debug, PartialEq)]
pub struct Component {
    /// What flows call it.
    pub id: String,
    /// Its version, if the pack says.
    pub version: Option<Version>,
    /// The WIT world that it says it has.
    pub world: Option<String>,
    /// What it says that it needs; none where the pack says nothing of it.
    pub capabilities: Option<ComponentCapabilities>,
    /// Where its code is.
    pub code: Code,
    /// Whether the manifest says which digest the code has.
    pub pinned: bool,
    /// The place of its description.
    pub description: Description,
}

/// The place of what a pack says about a component: its version, its world and what it needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Description {
    /// In the pack's manifest.
    Manifest,
    /// In this file of the archive, beside the code.
    File(String),
    /// Nowhere. This file would be read if it were there.
    Missing(String),
}

/// Where a component's code is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Code {
    /// In this file of the archive.
    File(String),
    /// Somewhere else, by this reference; the archive only refers to it.
    Elsewhere(String),
    /// Nowhere.
    Missing,
}

impl Component {
    /// The file of the archive that holds its code.
    pub fn file(&self) -> Option<&str> {
        match &self.code {
            Code::File(path) => Some(path),
            Code::Elsewhere(_) | Code::Missing => None,
        }
    }

    /// Finds its code. What the pack says of its digest must hold.
    fn locate(
        &mut self,
        source: Option<&ComponentSourceEntryV1>,
        files: &Files,
    ) -> Result<(), ArchiveError> {
        let digest = source.map(|source| source.resolved.digest.trim());
        let found = self
            .places(source)
            .find_map(|place| files.get_key_value(&place));
        self.code = match (found, source) {
            (Some((file, _)), _) => Code::File(file.clone()),
            (None, Some(source)) => Code::Elsewhere(source.source.to_string()),
            (None, None) => Code::Missing,
        };
        if let (Some((file, content)), Some(digest)) = (found, digest) {
            if !is_digest_of(digest, content) {
                return Err(ArchiveError::ComponentMismatch {
                    component: self.id.clone(),
                    entry: file.clone(),
                });
            }
            self.pinned = true;
        }
        Ok(())
    }

    /// Where the tools of the ecosystem put code, the most explicit place first.
    fn places<'a>(
        &'a self,
        source: Option<&'a ComponentSourceEntryV1>,
    ) -> impl Iterator<Item = String> + 'a {
        let id = &self.id;
        let inline = source.and_then(|source| match &source.artifact {
            ArtifactLocationV1::Inline { wasm_path, .. } => Some(wasm_path.clone()),
            ArtifactLocationV1::Remote => None,
        });
        let version = self.version.iter();
        let blob = source.and_then(|source| source.resolved.digest.strip_prefix("sha256:"));
        inline
            .into_iter()
            .chain([format!("components/{id}.wasm")])
            .chain(version.map(move |version| format!("components/{id}@{version}/component.wasm")))
            .chain([
                format!("components/{id}/component.wasm"),
                format!("components/{id}/{id}.wasm"),
            ])
            .chain(blob.map(|hex| format!("blobs/sha256/{hex}.wasm")))
    }
}

/// Finds the components: those of the manifest, then those that only the extension for component sources names, then
/// those whose code is there.
pub(super) fn find(
    read: &Read,
    files: &Files,
    limits: &Limits,
    notes: &mut Problems,
) -> Result<Vec<Component>, ArchiveError> {
    let sources = sources(&read.manifest, notes);
    let mut found: BTreeMap<String, Component> = BTreeMap::new();
    for manifest in &read.manifest.components {
        let id = manifest.id.to_string();
        let source = sources.iter().find(|source| is_of(source, &id));
        let mut component = described(manifest);
        component.locate(source, files)?;
        found.entry(id).or_insert(component);
    }
    for older in &read.older {
        let component = listed(older, files);
        found.entry(older.name.clone()).or_insert(component);
    }
    for source in &sources {
        let id = source
            .component_id
            .as_ref()
            .map_or(source.name.as_str(), |id| id.as_str());
        if !found.contains_key(id) {
            let mut component = beside(id, source, files);
            component.locate(Some(source), files)?;
            found.insert(id.to_owned(), component);
        }
    }
    for id in files.keys().filter_map(|path| unlisted(path)) {
        if !found.contains_key(id) {
            let mut component = undescribed(id);
            component.locate(None, files)?;
            found.insert(id.to_owned(), component);
        }
    }
    let found: Vec<Component> = found.into_values().collect();
    within(&found, files, limits)?;
    Ok(found)
}

/// The component whose code this file is, though no list may name it: tools leave a component of which they have no
/// manifest out of the pack's.
fn unlisted(path: &str) -> Option<&str> {
    let id = path.strip_prefix("components/")?.strip_suffix(".wasm")?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

fn sources(manifest: &PackManifest, notes: &mut Problems) -> Vec<ComponentSourceEntryV1> {
    match manifest.get_component_sources_v1() {
        Ok(sources) => sources
            .map(|sources| sources.components)
            .unwrap_or_default(),
        Err(error) => {
            notes.push(
                Problem::warning(format!(
                    "where its components come from cannot be read: {error}"
                ))
                .at("manifest.cbor, extensions")
                .remedy("build the pack again with its own tool"),
            );
            Vec::new()
        }
    }
}

fn is_of(source: &ComponentSourceEntryV1, id: &str) -> bool {
    match &source.component_id {
        Some(named) => named.as_str() == id,
        None => source.name == id,
    }
}

/// Whether this is the digest of the content, in one of the spellings that the ecosystem's tools use.
fn is_digest_of(digest: &str, content: &[u8]) -> bool {
    if let Some(hex) = digest.strip_prefix("blake3:") {
        return blake3::hash(content).to_hex().eq_ignore_ascii_case(hex);
    }
    let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
    hex::encode(Sha256::digest(content)).eq_ignore_ascii_case(hex)
}

/// A component that the pack's manifest leaves out, with what the archive keeps beside its code about it.
fn beside(id: &str, source: &ComponentSourceEntryV1, files: &Files) -> Component {
    let named = match &source.artifact {
        ArtifactLocationV1::Inline { manifest_path, .. } => manifest_path.clone(),
        ArtifactLocationV1::Remote => None,
    };
    let path = named.unwrap_or_else(|| description_path(id));
    let read = |bytes: &Vec<u8>| ciborium::from_reader::<ComponentManifest, _>(&bytes[..]).ok();
    let manifest = files.get(&path).and_then(read);
    match manifest.filter(|manifest| manifest.id.as_str() == id) {
        Some(manifest) => Component {
            description: Description::File(path),
            ..described(&manifest)
        },
        None => Component {
            description: Description::Missing(path),
            ..undescribed(id)
        },
    }
}

fn description_path(id: &str) -> String {
    format!("components/{id}.manifest.cbor")
}

fn described(manifest: &ComponentManifest) -> Component {
    Component {
        version: Some(manifest.version.clone()),
        world: Some(manifest.world.clone()),
        capabilities: Some(manifest.capabilities.clone()),
        description: Description::Manifest,
        ..undescribed(manifest.id.as_str())
    }
}

fn undescribed(id: &str) -> Component {
    Component {
        id: id.to_owned(),
        version: None,
        world: None,
        capabilities: None,
        code: Code::Missing,
        pinned: false,
        description: Description::Missing(description_path(id)),
    }
}

fn listed(older: &OlderComponent, files: &Files) -> Component {
    let there = files.contains_key(&older.file_wasm);
    Component {
        version: Some(older.version.clone()),
        world: older.world.clone(),
        capabilities: older.capabilities(),
        code: if there {
            Code::File(older.file_wasm.clone())
        } else {
            Code::Missing
        },
        description: Description::Manifest,
        ..undescribed(&older.name)
    }
}

fn within(components: &[Component], files: &Files, limits: &Limits) -> Result<(), ArchiveError> {
    if components.len() > limits.components {
        return Err(ArchiveError::TooManyComponents {
            components: components.len(),
            limit: limits.components,
        });
    }
    for component in components {
        let code = component.file().and_then(|file| files.get(file));
        let bytes = code.map_or(0, Vec::len) as u64;
        if bytes > limits.component_bytes {
            return Err(ArchiveError::ComponentTooLarge {
                component: component.id.clone(),
                bytes,
                limit: limits.component_bytes,
            });
        }
    }
    Ok(())
}
