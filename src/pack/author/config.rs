//! `pack.yaml`: what a pack is, besides its flows.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use greentic_types::pack_manifest::ComponentCapability;
use greentic_types::{ExtensionRef, PackDependency, PackId as PackName, PackKind};
use semver::Version;
use serde::de::DeserializeOwned;
use serde_yaml::Value;

use crate::model::{FlowId, Problems};
use crate::yaml::{Document, Fields, Node};

use super::component::{ComponentSource, components};

const FIELDS: [&str; 13] = [
    "pack_id",
    "name",
    "display_name",
    "description",
    "version",
    "kind",
    "publisher",
    "flows",
    "components",
    "assets",
    "capabilities",
    "dependencies",
    "extensions",
];

/// What greentic-pack knows besides. Tools write them empty, which is fine.
const NOT_BUILT: [&str; 2] = ["bootstrap", "agents"];

/// The content of a `pack.yaml`.
#[derive(Debug)]
pub(super) struct PackConfig {
    pub pack_id: PackName,
    pub name: Option<String>,
    pub version: Version,
    pub kind: PackKind,
    pub publisher: String,
    /// The listed flows; none stands for all of `flows/`.
    pub flows: Option<Vec<FlowSource>>,
    pub components: Vec<ComponentSource>,
    /// The listed files, relative to the pack's folder; all of `assets/` comes along anyway.
    pub assets: Vec<PathBuf>,
    pub capabilities: Vec<ComponentCapability>,
    pub dependencies: Vec<PackDependency>,
    pub extensions: BTreeMap<String, ExtensionRef>,
}

/// A flow of a pack: its file, relative to the pack's folder, and what `pack.yaml` says of it.
#[derive(Clone, Debug, Default)]
pub(super) struct FlowSource {
    pub id: Option<FlowId>,
    pub file: PathBuf,
    pub tags: Vec<String>,
    pub entrypoints: Vec<String>,
}

impl PackConfig {
    /// Reads a `pack.yaml` strictly, adding all that is wrong with it to the problems.
    pub fn parse(file: &Path, text: &str, problems: &mut Problems) -> Option<Self> {
        let document = match Document::parse(file, text) {
            Ok(document) => document,
            Err(problem) => {
                problems.push(problem);
                return None;
            }
        };
        let fields = document.root().fields(problems)?;
        reject_unknown(&fields, problems);
        let pack_id = fields
            .require("pack_id", "hello-pack", problems)
            .and_then(|node| node.id("pack id", problems));
        let version = fields
            .require("version", "1.0.0", problems)
            .and_then(|node| version(node, problems));
        let kind = fields
            .require("kind", "application", problems)
            .and_then(|node| kind(node, problems));
        let publisher = fields
            .require("publisher", "Example Ltd", problems)
            .and_then(|node| node.text(problems));
        let name = fields.get("display_name").or(fields.get("name"));
        let name = name.map(|node| node.text(problems));
        let flows = fields.get("flows").map(|node| flows(node, problems));
        let components = fields
            .get("components")
            .map(|node| components(node, problems));
        let assets = fields.get("assets").map(|node| assets(node, problems));
        let capabilities = plain(fields.get("capabilities"), "list of capabilities", problems);
        let dependencies = plain(fields.get("dependencies"), "list of dependencies", problems);
        let extensions = plain(fields.get("extensions"), "set of extensions", problems);
        Some(Self {
            pack_id: pack_id?,
            name: name.flatten().map(str::to_owned),
            version: version?,
            kind: kind?,
            publisher: publisher?.to_owned(),
            // An empty list, as tools write it, says no more than none.
            flows: flows.flatten().filter(|flows| !flows.is_empty()),
            components: components.unwrap_or_default(),
            assets: assets.unwrap_or_default(),
            capabilities,
            dependencies,
            extensions,
        })
    }
}

fn reject_unknown(fields: &Fields<'_>, problems: &mut Problems) {
    for (name, node) in fields.iter() {
        if NOT_BUILT.contains(&name) {
            if !is_empty(node.value()) {
                problems.push(
                    node.error(format!("`{name}` cannot be built by this program"))
                        .remedy(
                            "build this pack with greentic-pack; the worker opens its archives",
                        ),
                );
            }
        } else if !FIELDS.contains(&name) {
            problems.push(
                node.error(format!("unknown field `{name}`"))
                    .remedy(format!("the fields of a pack are: {}", FIELDS.join(", "))),
            );
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null()
        || value.as_sequence().is_some_and(Vec::is_empty)
        || value
            .as_mapping()
            .is_some_and(serde_yaml::Mapping::is_empty)
}

fn version(node: &Node<'_>, problems: &mut Problems) -> Option<Version> {
    let text = node.text(problems)?;
    let parsed = Version::parse(text).map_err(|error| {
        node.error(format!("`{text}` is no version: {error}"))
            .remedy("write three numbers: `1.0.0`")
    });
    parsed.map_err(|problem| problems.push(problem)).ok()
}

fn kind(node: &Node<'_>, problems: &mut Problems) -> Option<PackKind> {
    let text = node.text(problems)?;
    match text {
        "application" => Some(PackKind::Application),
        "provider" => Some(PackKind::Provider),
        "infrastructure" => Some(PackKind::Infrastructure),
        "library" => Some(PackKind::Library),
        _ => {
            problems.push(
                node.error(format!("`{text}` is no kind of pack"))
                    .remedy("use application, provider, infrastructure or library"),
            );
            None
        }
    }
}

fn flows(node: &Node<'_>, problems: &mut Problems) -> Option<Vec<FlowSource>> {
    let mut flows = Vec::new();
    for item in node.items(problems)? {
        let Some(fields) = item.fields(problems) else {
            continue;
        };
        fields.only(&["id", "file", "tags", "entrypoints"], problems);
        let id = fields
            .require("id", "main", problems)
            .and_then(|node| node.id("flow id", problems));
        let file = fields
            .require("file", "flows/main.ygtc", problems)
            .and_then(|node| inside(node, problems));
        let tags = texts(fields.get("tags"), problems);
        let entrypoints = texts(fields.get("entrypoints"), problems);
        if let (Some(id), Some(file)) = (id, file) {
            flows.push(FlowSource {
                id: Some(id),
                file,
                tags,
                entrypoints,
            });
        }
    }
    Some(flows)
}

fn assets(node: &Node<'_>, problems: &mut Problems) -> Vec<PathBuf> {
    let items = node.items(problems).unwrap_or_default();
    let mut assets = Vec::new();
    for item in items {
        if let Some(fields) = item.fields(problems) {
            fields.only(&["path"], problems);
            let path = fields.require("path", "assets/cards/hello.json", problems);
            assets.extend(path.and_then(|node| inside(node, problems)));
        }
    }
    assets
}

/// A value that goes into the manifest as it is; nothing where there is none.
fn plain<T: DeserializeOwned + Default>(
    node: Option<&Node<'_>>,
    what: &str,
    problems: &mut Problems,
) -> T {
    let Some(node) = node.filter(|node| !is_empty(node.value())) else {
        return T::default();
    };
    let Some(json) = node.json(problems) else {
        return T::default();
    };
    serde_json::from_value(json).unwrap_or_else(|error| {
        problems.push(
            node.error(format!("this is no {what}: {error}"))
                .remedy("write what greentic-pack's `pack.yaml` takes"),
        );
        T::default()
    })
}

/// A path that stays inside the pack's folder.
pub(super) fn inside(node: &Node<'_>, problems: &mut Problems) -> Option<PathBuf> {
    let path = Path::new(node.text(problems)?);
    let plain = path
        .components()
        .all(|step| matches!(step, Component::Normal(_) | Component::CurDir));
    if !plain {
        problems.push(
            node.error("the path leads out of the pack's folder")
                .remedy("write a path from the folder of pack.yaml, without `..`"),
        );
    }
    plain.then(|| path.to_owned())
}

/// A list of texts; none where there is none.
pub(super) fn texts(node: Option<&Node<'_>>, problems: &mut Problems) -> Vec<String> {
    let items = node.and_then(|node| node.items(problems));
    let texts = items.unwrap_or_default().into_iter();
    texts
        .filter_map(|item| item.text(problems).map(str::to_owned))
        .collect()
}
