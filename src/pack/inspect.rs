//! What is inside a pack, for people.

use std::collections::BTreeMap;
use std::fmt;

use greentic_types::{Flow, Node};

use crate::model::PackId;

use super::Pack;

/// What `pack inspect` shows. Its `Display` is the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackSummary {
    /// The digest of the archive.
    pub id: PackId,
    /// The pack's own name for itself.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Who publishes it.
    pub publisher: String,
    /// Its flows, in the manifest's order.
    pub flows: Vec<FlowSummary>,
    /// Its components, as `id version`.
    pub components: Vec<String>,
    /// Its files, by path.
    pub files: Vec<FileSummary>,
}

/// One flow of a [`PackSummary`].
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// One file of a [`PackSummary`].
#[derive(Clone, Debug, PartialEq, Eq)]
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
        let flows = manifest.flows.iter().map(|entry| {
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
        let components = manifest.components.iter();
        let files = pack.files.iter();
        Self {
            id: pack.id,
            name: manifest.pack_id.to_string(),
            version: manifest.version.to_string(),
            publisher: manifest.publisher.clone(),
            flows: flows.collect(),
            components: components
                .map(|component| format!("{} {}", component.id, component.version))
                .collect(),
            files: files
                .map(|(path, content)| FileSummary {
                    path: path.clone(),
                    bytes: content.len(),
                })
                .collect(),
        }
    }
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

impl fmt::Display for PackSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {}", self.name, self.version)?;
        writeln!(f, "pack_id    {}", self.id)?;
        writeln!(f, "publisher  {}", self.publisher)?;
        writeln!(f, "flows")?;
        for flow in &self.flows {
            write!(f, "  {}: starts at ", flow.id)?;
            f.write_str(flow.entry.as_deref().unwrap_or("no node"))?;
            if !flow.tags.is_empty() {
                write!(f, ", tagged {}", flow.tags.join(", "))?;
            }
            writeln!(f)?;
            for (kind, count) in &flow.kinds {
                writeln!(f, "    {count:>3} {kind}")?;
            }
        }
        if !self.components.is_empty() {
            writeln!(f, "components")?;
        }
        for component in &self.components {
            writeln!(f, "  {component}")?;
        }
        write!(f, "files")?;
        for file in &self.files {
            write!(f, "\n  {:>9} {}", file.bytes, file.path)?;
        }
        Ok(())
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
