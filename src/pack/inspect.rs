//! What is inside a pack, for people.

use std::collections::BTreeMap;
use std::fmt;

use greentic_types::{ComponentCapabilities, Flow, Node};
use serde::Serialize;

use crate::model::ComponentDigest;

use super::component::{Code, Component};
use super::sbom::Listing;
use super::signature::Signed;
use super::{Pack, runtime_flows};

/// What `pack inspect` shows. Its `Display` is the text, its serialised form what `--json` prints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PackSummary {
    /// The digest of the archive.
    pub pack_id: String,
    /// The pack's own name for itself.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Who publishes it.
    pub publisher: String,
    /// Who signed it; whether a signature holds is not told here.
    pub signatures: Vec<Signed>,
    /// The file of the archive that its files were checked against.
    pub sbom: Option<&'static str>,
    /// Its flows, in the manifest's order.
    pub flows: Vec<FlowSummary>,
    /// Its components.
    pub components: Vec<ComponentSummary>,
    /// What its manifest says besides.
    pub extensions: Vec<ExtensionSummary>,
    /// The packs that it depends on; nothing is done about them.
    pub dependencies: Vec<String>,
    /// The secrets that it asks for; those that it does without end in `?`.
    pub secrets: Vec<String>,
    /// Its files, by path.
    pub files: Vec<FileSummary>,
    /// What is odd about it.
    pub notes: Vec<String>,
}

/// One flow of a [`PackSummary`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FlowSummary {
    /// The flow.
    pub id: String,
    /// Its tags, those of the manifest and its own.
    pub tags: Vec<String>,
    /// The node it begins with.
    pub entry: Option<String>,
    /// How many nodes of which kind it has.
    pub kinds: BTreeMap<String, usize>,
}

/// One component of a [`PackSummary`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComponentSummary {
    /// What flows call it.
    pub id: String,
    /// Its version, if the pack says.
    pub version: Option<String>,
    /// The WIT world that it says it has.
    pub world: Option<String>,
    /// What it says that it needs; none where the pack says nothing of it.
    pub needs: Option<Vec<&'static str>>,
    /// Where its code is: a file of the archive, or a reference.
    pub code: Option<String>,
    /// The size of the code, in bytes.
    pub bytes: Option<usize>,
    /// The SHA-256 of the code.
    pub sha256: Option<String>,
}

/// One extension of a [`PackSummary`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ExtensionSummary {
    /// Its name.
    pub id: String,
    /// Its version.
    pub version: String,
    /// Whether anything is made of it.
    pub used: bool,
}

/// One file of a [`PackSummary`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileSummary {
    /// Its path in the archive.
    pub path: String,
    /// Its size, unpacked, in bytes.
    pub bytes: usize,
}

impl PackSummary {
    /// The summary of an opened pack.
    pub fn of(pack: &Pack) -> Self {
        let manifest = &pack.manifest;
        let extensions = manifest.extensions.iter().flatten();
        let dependencies = manifest.dependencies.iter();
        let secrets = manifest.secret_requirements.iter();
        let files = pack.files.iter();
        Self {
            pack_id: pack.id.to_string(),
            name: manifest.pack_id.to_string(),
            version: manifest.version.to_string(),
            publisher: manifest.publisher.clone(),
            signatures: pack.signatures(),
            sbom: match pack.listing {
                Listing::File(path) => Some(path),
                Listing::None => None,
            },
            flows: flows(pack),
            components: pack.components.iter().map(|c| component(pack, c)).collect(),
            extensions: extensions
                .map(|(id, extension)| ExtensionSummary {
                    id: id.clone(),
                    version: extension.version.clone(),
                    used: is_used(id),
                })
                .collect(),
            dependencies: dependencies
                .map(|dependency| format!("{} {}", dependency.pack_id, dependency.version_req))
                .collect(),
            secrets: secrets
                .map(|secret| {
                    let mark = if secret.required { "" } else { "?" };
                    format!("{}{mark}", secret.key.as_str())
                })
                .collect(),
            files: files
                .map(|(path, content)| FileSummary {
                    path: path.clone(),
                    bytes: content.len(),
                })
                .collect(),
            notes: pack.notes.iter().map(|note| note.message.clone()).collect(),
        }
    }
}

fn flows(pack: &Pack) -> Vec<FlowSummary> {
    let flows = pack.manifest.flows.iter().map(|entry| {
        let mut tags: Vec<String> = entry.tags.clone();
        tags.extend(entry.flow.metadata.tags.iter().cloned());
        tags.sort();
        tags.dedup();
        FlowSummary {
            id: entry.id.to_string(),
            tags,
            entry: entry_node(&entry.flow),
            kinds: kinds(&entry.flow),
        }
    });
    flows.collect()
}

fn entry_node(flow: &Flow) -> Option<String> {
    let named = flow.entrypoints.get("default").and_then(|v| v.as_str());
    named
        .map(str::to_owned)
        .or_else(|| flow.ingress().map(|(id, _)| id.to_string()))
}

fn kinds(flow: &Flow) -> BTreeMap<String, usize> {
    let mut kinds = BTreeMap::new();
    for node in flow.nodes.values() {
        *kinds.entry(kind(node)).or_default() += 1;
    }
    kinds
}

fn kind(node: &Node) -> String {
    match &node.component.operation {
        Some(operation) => format!("{} ({operation})", node.component.id),
        None => node.component.id.to_string(),
    }
}

fn component(pack: &Pack, component: &Component) -> ComponentSummary {
    let code = pack.code(component);
    ComponentSummary {
        id: component.id.clone(),
        version: component.version.as_ref().map(ToString::to_string),
        world: component.world.clone(),
        needs: component.capabilities.as_ref().map(needs),
        code: match &component.code {
            Code::File(place) | Code::Elsewhere(place) => Some(place.clone()),
            Code::Missing => None,
        },
        bytes: code.map(<[u8]>::len),
        sha256: code.map(|code| ComponentDigest::of(code).to_string()),
    }
}

fn needs(capabilities: &ComponentCapabilities) -> Vec<&'static str> {
    let (host, wasi) = (&capabilities.host, &capabilities.wasi);
    let state = host.state.as_ref();
    [
        ("http", host.http.as_ref().is_some_and(|http| http.client)),
        ("secrets", host.secrets.is_some()),
        ("state:read", state.is_some_and(|state| state.read)),
        ("state:write", state.is_some_and(|state| state.write)),
        ("telemetry", host.telemetry.is_some()),
        ("files", wasi.filesystem.is_some()),
        ("variables", wasi.env.is_some()),
        ("random", wasi.random),
        ("clocks", wasi.clocks),
    ]
    .into_iter()
    .filter_map(|(name, needed)| needed.then_some(name))
    .collect()
}

/// Whether anything is made of this extension.
fn is_used(id: &str) -> bool {
    use greentic_types::PROVIDER_EXTENSION_ID as PROVIDERS;
    use greentic_types::pack::extensions::component_sources::EXT_COMPONENT_SOURCES_V1 as SOURCES;
    [PROVIDERS, SOURCES].contains(&id) || runtime_flows::NAMES.contains(&id)
}

impl fmt::Display for PackSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.name, self.version)?;
        writeln!(f, "pack_id    {}", self.pack_id)?;
        writeln!(f, "publisher  {}", self.publisher)?;
        writeln!(
            f,
            "sbom       {}",
            self.sbom
                .unwrap_or("none: its files were not checked one by one")
        )?;
        if self.signatures.is_empty() {
            writeln!(f, "signed     no")?;
        }
        for Signed { by, whole } in &self.signatures {
            let what = if *whole {
                "the archive"
            } else {
                "the manifest alone"
            };
            writeln!(f, "signed     {what}, by {by}")?;
        }
        list(f, "notes", &self.notes)?;
        list(f, "depends on", &self.dependencies)?;
        list(f, "secrets", &self.secrets)?;
        list(f, "flows", &self.flows)?;
        list(f, "components", &self.components)?;
        list(f, "extensions", &self.extensions)?;
        write!(f, "files")?;
        for file in &self.files {
            write!(f, "\n  {:>9} {}", file.bytes, file.path)?;
        }
        Ok(())
    }
}

/// A list under its heading; nothing where it is empty.
fn list(f: &mut fmt::Formatter<'_>, heading: &str, items: &[impl fmt::Display]) -> fmt::Result {
    if !items.is_empty() {
        writeln!(f, "{heading}")?;
    }
    items.iter().try_for_each(|item| writeln!(f, "  {item}"))
}

impl fmt::Display for FlowSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = self.entry.as_deref().unwrap_or("no node");
        write!(f, "{}: starts at {entry}", self.id)?;
        if !self.tags.is_empty() {
            write!(f, ", tagged {}", self.tags.join(", "))?;
        }
        for (kind, count) in &self.kinds {
            write!(f, "\n    {count:>3} {kind}")?;
        }
        Ok(())
    }
}

impl fmt::Display for ComponentSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {}",
            self.id,
            self.version.as_deref().unwrap_or("of no known version")
        )?;
        match (&self.code, self.bytes, &self.sha256) {
            (Some(file), Some(bytes), Some(sha256)) => {
                write!(
                    f,
                    "\n    code    {file}, {bytes} bytes\n    sha256  {sha256}"
                )?;
            }
            (Some(reference), ..) => write!(f, "\n    code    not in the archive: {reference}")?,
            (None, ..) => write!(f, "\n    code    not in the archive")?,
        }
        if let Some(world) = &self.world {
            write!(f, "\n    world   {world}")?;
        }
        match self.needs.as_deref() {
            None => write!(f, "\n    needs   it does not say"),
            Some([]) => write!(f, "\n    needs   nothing"),
            Some(needs) => write!(f, "\n    needs   {}", needs.join(", ")),
        }
    }
}

impl fmt::Display for ExtensionSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let used = if self.used {
            ""
        } else {
            ", nothing is made of it"
        };
        write!(f, "{} {}{used}", self.id, self.version)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::pack::{Limits, build, open};

    #[test]
    fn a_summary_says_what_is_inside() {
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("packs/hello-pack");
        let built = build(&sources).unwrap();
        let pack = open(&built.bytes, None, &Limits::default()).unwrap();
        let text = PackSummary::of(&pack).to_string();
        let lines: Vec<_> = text.lines().map(str::trim).collect();
        assert_eq!(lines[0], "hello-pack 1.0.0");
        assert_eq!(lines[1], format!("pack_id    {}", built.id));
        for part in [
            "sbom       sbom.cbor",
            "signed     no",
            "main: starts at ask_name",
            "3 emit.message",
            "1 session.wait",
        ] {
            assert!(lines.iter().any(|line| line.starts_with(part)), "{text}");
        }
        assert!(
            lines.iter().any(|line| line.ends_with(" manifest.cbor")),
            "{text}"
        );
    }
}
