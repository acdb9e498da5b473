//! One gtbind file.

use std::path::{Path, PathBuf};

use crate::model::{FlowId, InvalidPackRef, PackId, PackRef, Problem, Problems, TenantId};
use crate::yaml::{Document, Fields, Node, without_bom};

use super::env::is_variable_name;

const FIELDS: [&str; 5] = ["tenant", "pack_id", "pack_ref", "flows", "env_passthrough"];

/// What one `*.gtbind` says.
#[derive(Clone, Debug)]
pub struct GtBind {
    /// The file.
    pub file: PathBuf,
    /// Whose binding it is.
    pub tenant: TenantId,
    /// The pack, by the digest of its archive.
    pub pack_id: Entry<PackId>,
    /// Where the archive is.
    pub pack_ref: Entry<PackRef>,
    /// The flows that may be started from outside; at least one.
    pub flows: Vec<Entry<FlowId>>,
    /// The environment variables that the pack asks for.
    pub env_passthrough: Vec<Entry<String>>,
}

/// A value of a gtbind and where it was written.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// The value.
    pub value: T,
    /// Its place.
    pub origin: Origin,
}

/// A place in a gtbind, for problems that only show later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The file.
    pub file: PathBuf,
    /// The line and field.
    pub place: String,
}

impl Origin {
    /// This problem, here.
    pub fn locate(&self, problem: Problem) -> Problem {
        problem.in_file(&self.file).at(&self.place)
    }
}

impl GtBind {
    /// Reads the text of a gtbind, strictly: everything that is wrong is reported.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Problems> {
        let mut problems = Problems::default();
        let document = Document::parse(file, text)?;
        let reader = Reader {
            file,
            problems: &mut problems,
        };
        match reader.gtbind(&document.root()) {
            Some(gtbind) if problems.is_empty() => Ok(gtbind),
            _ => Err(problems),
        }
    }
}

/// The text of the gtbind that binds these flows of a pack to a tenant.
///
/// # Errors
///
/// If YAML cannot say one of the values, which is not known to happen.
pub fn render(
    tenant: &TenantId,
    pack_id: &PackId,
    pack_ref: &str,
    flows: &[FlowId],
) -> Result<String, serde_yaml::Error> {
    let mut text = format!(
        "tenant: {}\npack_id: {pack_id}\npack_ref: {}\nflows:\n",
        scalar(tenant.as_str())?,
        scalar(pack_ref)?,
    );
    for flow in flows {
        text.push_str("  - id: ");
        text.push_str(&scalar(flow.as_str())?);
        text.push('\n');
    }
    Ok(text)
}

/// A text as YAML writes it, in quotes where it would be taken for something else.
pub(super) fn scalar(text: &str) -> Result<String, serde_yaml::Error> {
    Ok(serde_yaml::to_string(text)?.trim_end().to_owned())
}

/// The tenant of this name, if it can be one.
pub(super) fn tenant(name: &str) -> Option<TenantId> {
    name.parse().ok().filter(fits_a_subject)
}

fn fits_a_subject(tenant: &TenantId) -> bool {
    !tenant.as_str().split('.').any(str::is_empty)
}

/// The tenant that a text states which is not a gtbind. Where it is not YAML either, a line of its own has to state it.
pub(super) fn stated_tenant(file: &Path, text: &str) -> Option<TenantId> {
    let Ok(document) = Document::parse(file, text) else {
        let mut lines = without_bom(text).lines();
        return lines.find_map(tenant_in_line);
    };
    let mut problems = Problems::default();
    let fields = document.root().fields(&mut problems)?;
    let node = fields.get("tenant")?;
    tenant(node.text(&mut problems)?)
}

fn tenant_in_line(line: &str) -> Option<TenantId> {
    let value = line
        .strip_prefix("tenant")?
        .trim_start()
        .strip_prefix(':')?;
    let value = value.split_once(" #").map_or(value, |(value, _)| value);
    tenant(value.trim().trim_matches(['"', '\'']))
}

struct Reader<'a> {
    file: &'a Path,
    problems: &'a mut Problems,
}

impl Reader<'_> {
    /// Reads every field before it gives up on any.
    fn gtbind(mut self, root: &Node<'_>) -> Option<GtBind> {
        let fields = root.fields(self.problems)?;
        self.reject_unknown(&fields);
        let tenant = self.tenant(&fields);
        let pack_id = self.pack_id(&fields);
        let pack_ref = self.pack_ref(&fields);
        let flows = self.flows(&fields);
        let env_passthrough = self.env_passthrough(&fields);
        Some(GtBind {
            file: self.file.to_owned(),
            tenant: tenant?,
            pack_id: pack_id?,
            pack_ref: pack_ref?,
            flows: flows?,
            env_passthrough: env_passthrough?,
        })
    }

    fn reject_unknown(&mut self, fields: &Fields<'_>) {
        if let Some(channels) = fields.get("channels") {
            self.problems.push(
                channels
                    .error("a gtbind has no `channels` section: the worker knows packs and flows, no channels or providers")
                    .remedy("remove the section; a provider reaches the tenant by publishing to its NATS subject"),
            );
        }
        let with_channels: Vec<_> = FIELDS.iter().copied().chain(["channels"]).collect();
        for (name, node) in fields.iter() {
            if !with_channels.contains(&name) {
                self.problems.push(
                    node.error(format!("unknown field `{name}`"))
                        .remedy(format!("the fields of a gtbind are: {}", FIELDS.join(", "))),
                );
            }
        }
    }

    fn tenant(&mut self, fields: &Fields<'_>) -> Option<TenantId> {
        let node = fields.require("tenant", "dev.local", self.problems)?;
        let tenant: TenantId = node.id("tenant", self.problems)?;
        if !fits_a_subject(&tenant) {
            self.problems.push(
                node.error(format!(
                    "`{tenant}` is no tenant: it has an empty part between, before or after its dots"
                ))
                .remedy("the tenant is part of a NATS subject; write it like `dev.local`"),
            );
            return None;
        }
        Some(tenant)
    }

    fn pack_id(&mut self, fields: &Fields<'_>) -> Option<Entry<PackId>> {
        let example = "sha256:<64 hexadecimal digits>";
        if fields.get("pack_id").is_none() {
            self.problems.push(
                Problem::error("the field `pack_id` is missing: a binding says exactly which archive it trusts")
                    .in_file(self.file)
                    .remedy(format!("add `pack_id: {example}`, as `greentic-worker pack inspect <archive>` prints it")),
            );
        }
        let node = fields.get("pack_id")?;
        let text = node.text(self.problems)?;
        match text.parse() {
            Ok(value) => Some(entry(self.file, node, value)),
            Err(error) => {
                let error: crate::model::InvalidPackId = error;
                self.problems.push(
                    node.error(error.to_string())
                        .remedy("`greentic-worker pack inspect <archive>` prints the id"),
                );
                None
            }
        }
    }

    fn pack_ref(&mut self, fields: &Fields<'_>) -> Option<Entry<PackRef>> {
        let example = "store://hello-pack@1.0.0";
        let node = fields.require("pack_ref", example, self.problems)?;
        let text = node.text(self.problems)?;
        let base = self.file.parent().unwrap_or(Path::new(""));
        match PackRef::parse(text, base) {
            Ok(value) => Some(entry(self.file, node, value)),
            Err(error) => {
                let message = if error == InvalidPackRef::Credentials {
                    // Not even a message may show them.
                    format!("this is no pack reference: {error}")
                } else {
                    format!("`{text}` is no pack reference: {error}")
                };
                self.problems.push(node.error(message).remedy(format!(
                    "write `{example}`, a path from this file's folder, or an address such as \
                     `https://host/a.gtpack`, `s3://bucket/a.gtpack` or `oci://registry/repository:tag`"
                )));
                None
            }
        }
    }

    fn flows(&mut self, fields: &Fields<'_>) -> Option<Vec<Entry<FlowId>>> {
        let node = fields.require("flows", "[{id: main}]", self.problems)?;
        let items = node.items(self.problems)?;
        if items.is_empty() {
            self.problems.push(
                node.error("`flows` lists none, so nothing could ever be started")
                    .remedy("list at least one: `- id: main`"),
            );
        }
        let mut flows: Vec<Entry<FlowId>> = Vec::new();
        for item in items {
            let Some(flow) = item.fields(self.problems) else {
                continue;
            };
            flow.only(&["id"], self.problems);
            let id = flow.require("id", "main", self.problems);
            let Some((id, value)) =
                id.and_then(|id| Some((id, id.id::<FlowId>("flow id", self.problems)?)))
            else {
                continue;
            };
            if flows.iter().any(|seen| seen.value == value) {
                let problem = id.error(format!("the flow `{value}` is listed twice"));
                self.problems.push(problem.remedy("keep it once"));
            } else {
                flows.push(entry(self.file, id, value));
            }
        }
        Some(flows)
    }

    fn env_passthrough(&mut self, fields: &Fields<'_>) -> Option<Vec<Entry<String>>> {
        let Some(node) = fields.get("env_passthrough") else {
            return Some(Vec::new());
        };
        let mut variables: Vec<Entry<String>> = Vec::new();
        for item in node.items(self.problems)? {
            let Some(name) = item.text(self.problems) else {
                continue;
            };
            if !is_variable_name(name) {
                self.problems.push(
                    item.error(format!("`{name}` is no name of an environment variable"))
                        .remedy("letters, digits and `_` only, no leading digit; each variable is listed by its full name"),
                );
            } else if variables.iter().any(|seen| seen.value == name) {
                let problem = item.error(format!("the variable `{name}` is listed twice"));
                self.problems.push(problem.remedy("keep it once"));
            } else {
                variables.push(entry(self.file, &item, name.to_owned()));
            }
        }
        Some(variables)
    }
}

fn entry<T>(file: &Path, node: &Node<'_>, value: T) -> Entry<T> {
    Entry {
        value,
        origin: Origin {
            file: file.to_owned(),
            place: node.place(),
        },
    }
}

#[cfg(test)]
mod tests;
