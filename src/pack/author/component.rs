//! A component of a pack's sources: what `pack.yaml` says of it, and its code.

use std::fs;
use std::path::{Path, PathBuf};

use greentic_types::ComponentManifest;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::model::{Problem, Problems};
use crate::yaml::Node;

use super::config::inside;

const FIELDS: [&str; 12] = [
    "id",
    "version",
    "world",
    "supports",
    "profiles",
    "capabilities",
    "configurators",
    "operations",
    "config_schema",
    "resources",
    "wasm",
    "manifest",
];

/// The world of a component that does not say which it has.
const WORLD: &str = "greentic:component/node@0.6.0";

/// The file beside a component's code that says what it is.
const MANIFEST: &str = "component.manifest.json";

/// A component of a `pack.yaml`.
#[derive(Clone, Debug)]
pub(super) struct ComponentSource {
    /// What `pack.yaml` says of it.
    pub manifest: ComponentManifest,
    /// Its code, or the folder with its code, relative to the pack's folder.
    wasm: PathBuf,
    /// The file that says what it is, where it is named.
    described_in: Option<PathBuf>,
}

/// Reads the `components` of a `pack.yaml`.
pub(super) fn components(node: &Node<'_>, problems: &mut Problems) -> Vec<ComponentSource> {
    let items = node.items(problems).unwrap_or_default().into_iter();
    let mut components: Vec<ComponentSource> = Vec::new();
    for item in items {
        let Some(component) = component(&item, problems) else {
            continue;
        };
        let id = &component.manifest.id;
        if components.iter().any(|other| other.manifest.id == *id) {
            problems.push(
                item.error(format!("the pack has another component `{id}`"))
                    .remedy("give one of them another id"),
            );
        }
        components.push(component);
    }
    components
}

fn component(item: &Node<'_>, problems: &mut Problems) -> Option<ComponentSource> {
    let fields = item.fields(problems)?;
    fields.only(&FIELDS, problems);
    let id = fields.require("id", "example.greeter", problems);
    let version = fields.require("version", "1.0.0", problems);
    let wasm = fields
        .require("wasm", "components/greeter.wasm", problems)
        .and_then(|node| inside(node, problems));
    let described_in = match fields.get("manifest") {
        Some(node) => Some(inside(node, problems)?),
        None => None,
    };
    let mut manifest = json!({
        "id": id?.text(problems)?,
        "version": version?.text(problems)?,
        "world": WORLD,
        "profiles": {},
        "capabilities": {},
    });
    for (name, node) in fields
        .iter()
        .filter(|(name, _)| !["wasm", "manifest"].contains(name))
    {
        manifest[name] = node.json(problems)?;
    }
    let manifest = with_usual_spelling(manifest);
    let manifest = ComponentManifest::deserialize(&manifest).map_err(|error| {
        item.error(format!("this is no component: {error}")).remedy(
            "write what the ecosystem's `pack.yaml` takes: docs/pack-format.md has an example",
        )
    });
    Some(ComponentSource {
        manifest: manifest.map_err(|problem| problems.push(problem)).ok()?,
        wasm: wasm?,
        described_in,
    })
}

/// What the ecosystem's `pack.yaml` lets one leave out or spell otherwise, as a manifest has it.
fn with_usual_spelling(mut manifest: Value) -> Value {
    if let Some(capabilities) = manifest["capabilities"].as_object_mut() {
        for surface in ["wasi", "host"] {
            let empty = || Value::Object(Map::new());
            capabilities.entry(surface).or_insert_with(empty);
        }
    }
    let kinds = manifest.get_mut("supports").and_then(Value::as_array_mut);
    for kind in kinds.into_iter().flatten() {
        if matches!(kind.as_str(), Some("componentconfig" | "component-config")) {
            *kind = json!("component_config");
        }
    }
    manifest
}

impl ComponentSource {
    /// Its code, and what it is: by the file beside the code, else by `pack.yaml`.
    pub fn read(self, dir: &Path, problems: &mut Problems) -> Option<(ComponentManifest, Vec<u8>)> {
        let file = code_file(&dir.join(&self.wasm), problems)?;
        let code = read(&file).map_err(|problem| problems.push(problem)).ok()?;
        let beside = file.with_file_name(MANIFEST);
        let described = match &self.described_in {
            Some(path) => Some(dir.join(path)),
            None => beside.is_file().then_some(beside),
        };
        let manifest = match described {
            Some(path) => described_by(&path, &self, problems)?,
            None => self.manifest,
        };
        Some((manifest, code))
    }
}

/// The file that holds the code: the path itself, or the only one of its kind in the folder.
fn code_file(path: &Path, problems: &mut Problems) -> Option<PathBuf> {
    if !path.is_dir() {
        return Some(path.to_owned());
    }
    let listed = fs::read_dir(path).and_then(|entries| {
        entries
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<PathBuf>, std::io::Error>>()
    });
    let mut files = listed.unwrap_or_default();
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "wasm")
    });
    if let [file] = &mut files[..] {
        return Some(std::mem::take(file));
    }
    problems.push(
        Problem::error(format!("the folder holds {} `*.wasm` files", files.len()))
            .in_file(path)
            .remedy("name the component's file in pack.yaml: `wasm: components/greeter.wasm`"),
    );
    None
}

/// What the file beside the code says. It must be about this component: its version counts as what the code is.
fn described_by(
    file: &Path,
    source: &ComponentSource,
    problems: &mut Problems,
) -> Option<ComponentManifest> {
    let bytes = read(file).map_err(|problem| problems.push(problem)).ok()?;
    let manifest = match serde_json::from_slice::<ComponentManifest>(&bytes) {
        Ok(manifest) => manifest,
        Err(error) => {
            problems.push(
                Problem::error(format!("this is no component's manifest: {error}"))
                    .in_file(file)
                    .remedy("write it anew with greentic-component, or take it away: pack.yaml then says it all"),
            );
            return None;
        }
    };
    let (id, version) = (&source.manifest.id, &source.manifest.version);
    if (&manifest.id, &manifest.version) == (id, version) {
        return Some(manifest);
    }
    problems.push(
        Problem::error(format!(
            "it is about `{}` {}, but pack.yaml lists the component as `{id}` {version}",
            manifest.id, manifest.version
        ))
        .in_file(file)
        .remedy("make both say the same"),
    );
    None
}

pub(super) fn read(file: &Path) -> Result<Vec<u8>, Problem> {
    fs::read(file).map_err(|error| {
        Problem::error(format!("the file cannot be read: {error}"))
            .in_file(file)
            .remedy("check the path in pack.yaml, and that the file may be read")
    })
}
