//! From a pack's sources to its archive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use greentic_types::pack_manifest::PackSignatures;
use greentic_types::{
    ComponentManifest, PackFlowEntry, PackManifest, SecretRequirement, encode_pack_manifest,
};

use crate::model::{PackId, Problem, Problems};
use crate::yaml::read_text;

use super::manifest::MANIFEST;
use super::write::{WriteError, write_archive};

mod assets;
mod component;
mod config;
mod document;
mod node;
mod place;
mod routing;

use config::{FlowSource, PackConfig};
pub use document::parse_flow;
pub(super) use node::NODE_FIELDS;
pub use place::place_of;

const CONFIG: &str = "pack.yaml";
const FLOWS: &str = "flows";
const FLOW_EXTENSION: &str = "ygtc";

/// A pack that was built.
#[derive(Clone, Debug)]
pub struct BuiltPack {
    /// The archive.
    pub bytes: Vec<u8>,
    /// Its digest.
    pub id: PackId,
    /// Its manifest.
    pub manifest: PackManifest,
    /// The file that each flow came from, in the manifest's order.
    pub flow_files: Vec<PathBuf>,
    /// What is worth knowing though it did not stop the build.
    pub warnings: Problems,
}

impl BuiltPack {
    /// The name under which the pack store keeps the archive.
    pub fn file_name(&self) -> String {
        format!("{}-{}.gtpack", self.manifest.pack_id, self.manifest.version)
    }

    /// The `pack_ref` under which the pack store finds it.
    pub fn store_ref(&self) -> String {
        format!(
            "store://{}@{}",
            self.manifest.pack_id, self.manifest.version
        )
    }
}

/// Builds the pack whose `pack.yaml` is in this folder. The archive depends on what the sources say only: neither the
/// time nor the place nor comments nor the order of keys change its id.
///
/// All problems of all files are reported at once. The flows are read and encoded here; whether they would run is for
/// [`crate::catalog::build_pack`] to find.
pub fn build(dir: &Path) -> Result<BuiltPack, Problems> {
    let mut problems = Problems::default();
    let config = read(&dir.join(CONFIG), &mut problems)
        .and_then(|text| PackConfig::parse(&dir.join(CONFIG), &text, &mut problems));
    let sources = match &config {
        Some(PackConfig {
            flows: Some(flows), ..
        }) => flows.clone(),
        _ => all_flows(dir, &mut problems),
    };
    let (flows, flow_files) = read_flows(dir, sources, &mut problems);
    let listed = config.as_ref().map_or(&[][..], |config| &config.assets);
    let mut files = assets::collect(dir, listed, &mut problems);
    let sources = config.as_ref().map_or(&[][..], |config| &config.components);
    let mut components = Vec::new();
    for source in sources {
        if let Some((manifest, code)) = source.clone().read(dir, &mut problems) {
            files.insert(format!("components/{}.wasm", manifest.id), code);
            components.push(manifest);
        }
    }
    let (Some(config), false) = (config, problems.has_errors()) else {
        return Err(problems);
    };
    let manifest = manifest(config, flows, components);
    match archive(&manifest, files) {
        Ok(bytes) => Ok(BuiltPack {
            id: PackId::of_archive(&bytes),
            bytes,
            manifest,
            flow_files,
            warnings: problems,
        }),
        Err(error) => {
            problems.push(Problem::error(error.to_string()).in_file(dir));
            Err(problems)
        }
    }
}

fn archive(
    manifest: &PackManifest,
    mut files: BTreeMap<String, Vec<u8>>,
) -> Result<Vec<u8>, WriteError> {
    let encoded = encode_pack_manifest(manifest).map_err(|error| WriteError::Encode {
        entry: MANIFEST,
        reason: error.to_string(),
    })?;
    files.insert(MANIFEST.to_owned(), encoded);
    write_archive(files)
}

fn manifest(
    config: PackConfig,
    flows: Vec<PackFlowEntry>,
    mut components: Vec<ComponentManifest>,
) -> PackManifest {
    components.sort_by(|a, b| a.id.cmp(&b.id));
    PackManifest {
        schema_version: "pack-v1".to_owned(),
        pack_id: config.pack_id,
        name: config.name,
        version: config.version,
        kind: config.kind,
        publisher: config.publisher,
        secret_requirements: secrets(&components),
        components,
        flows,
        dependencies: config.dependencies,
        capabilities: config.capabilities,
        signatures: PackSignatures::default(),
        bootstrap: None,
        extensions: Some(config.extensions).filter(|extensions| !extensions.is_empty()),
        agents: BTreeMap::new(),
    }
}

/// The secrets that the components ask for, each once; one that any of them needs is needed.
fn secrets(components: &[ComponentManifest]) -> Vec<SecretRequirement> {
    let mut all: BTreeMap<String, SecretRequirement> = BTreeMap::new();
    let asked = components
        .iter()
        .filter_map(|c| c.capabilities.host.secrets.as_ref());
    for secret in asked.flat_map(|secrets| &secrets.required) {
        let known = all.entry(secret.key.as_str().to_owned());
        let known = known.or_insert_with(|| secret.clone());
        known.required |= secret.required;
    }
    all.into_values().collect()
}

/// Without a list in `pack.yaml`, every flow of the folder in the order of their names.
fn all_flows(dir: &Path, problems: &mut Problems) -> Vec<FlowSource> {
    let folder = dir.join(FLOWS);
    let listed = fs::read_dir(&folder).and_then(|entries| {
        entries
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<PathBuf>, std::io::Error>>()
    });
    let mut files = match listed {
        Ok(files) => files,
        Err(error) => {
            problems.push(
                Problem::error(format!("the folder cannot be read: {error}"))
                    .in_file(&folder)
                    .remedy("put the pack's flows there, as `flows/main.ygtc`"),
            );
            return Vec::new();
        }
    };
    files.retain(|file| file.extension().is_some_and(|e| e == FLOW_EXTENSION));
    files.sort();
    if files.is_empty() {
        problems.push(
            Problem::error("the folder holds no `*.ygtc` file")
                .in_file(&folder)
                .remedy("a pack has at least one flow: write `flows/main.ygtc`"),
        );
    }
    let within = |file: PathBuf| file.strip_prefix(dir).map_or(file.clone(), Path::to_owned);
    files
        .into_iter()
        .map(|file| FlowSource {
            file: within(file),
            ..FlowSource::default()
        })
        .collect()
}

fn read_flows(
    dir: &Path,
    sources: Vec<FlowSource>,
    problems: &mut Problems,
) -> (Vec<PackFlowEntry>, Vec<PathBuf>) {
    let mut seen = BTreeSet::new();
    let mut entries = Vec::new();
    let mut files = Vec::new();
    for source in sources {
        let file = dir.join(&source.file);
        let Some(text) = read(&file, problems) else {
            continue;
        };
        let flow = match parse_flow(&file, &text) {
            Ok((flow, warnings)) => {
                problems.extend(warnings);
                flow
            }
            Err(found) => {
                problems.extend(found);
                continue;
            }
        };
        if let Some(id) = source.id.as_ref().filter(|id| **id != flow.id) {
            problems.push(
                Problem::error(format!(
                    "pack.yaml lists this file as flow `{id}`, but it calls itself `{}`",
                    flow.id
                ))
                .in_file(&file)
                .remedy("make both say the same"),
            );
        }
        if !seen.insert(flow.id.clone()) {
            problems.push(
                Problem::error(format!("the pack has another flow `{}`", flow.id))
                    .in_file(&file)
                    .remedy("give one of them another id"),
            );
        }
        let entrypoints = match source.entrypoints {
            listed if !listed.is_empty() => listed,
            _ => flow.entrypoints.keys().cloned().collect(),
        };
        entries.push(PackFlowEntry {
            id: flow.id.clone(),
            kind: flow.kind,
            flow,
            tags: source.tags,
            entrypoints,
        });
        files.push(file);
    }
    (entries, files)
}

fn read(file: &Path, problems: &mut Problems) -> Option<String> {
    read_text(file)
        .map_err(|problem| problems.push(problem))
        .ok()
}

#[cfg(test)]
mod tests;
