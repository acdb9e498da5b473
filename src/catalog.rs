//! Gtbinds and the pack store in, a registry out, with every problem that is found on the way.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use greentic_types::PackManifest;

use crate::bindings::{self, EnvPolicy, PackBinding};
use crate::flow::{self, Inventory, Program};
use crate::model::{FlowId, FlowTarget, Grants, PackId, Problem, Problems, TenantId};
use crate::pack::{self, BuiltPack, Pack, Resolver};
use crate::registry::{BoundPack, DefaultFlow, EntryError, Registry};

/// Where everything that is bound comes from.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// Gtbind files, and folders of them.
    pub bindings: &'a [PathBuf],
    /// Finds the archives.
    pub resolver: &'a Resolver,
    /// How much of an archive is taken.
    pub limits: &'a pack::Limits,
    /// How far a turn of a flow may go.
    pub flow_limits: flow::Limits,
    /// Which variables may be granted.
    pub policy: &'a EnvPolicy,
    /// The worker's environment, from which they are granted.
    pub environment: &'a BTreeMap<String, String>,
    /// The tenants' default flows, by the settings.
    pub defaults: &'a BTreeMap<TenantId, DefaultFlow>,
}

/// Loads everything: reads the gtbinds, merges them, opens the packs, compiles their flows, grants variables. The
/// registry comes with the warnings; if there is any error, all problems come and no registry.
pub fn load(sources: &Sources<'_>) -> Result<(Registry, Problems), Problems> {
    let (gtbinds, mut problems) = bindings::load(sources.bindings);
    let (merged, found) = bindings::merge(gtbinds);
    problems.extend(found);

    let mut shelf = Shelf::default();
    let mut bound = Vec::new();
    for binding in &merged {
        let (env, found) = bindings::grant(sources.policy, binding, sources.environment);
        problems.extend(found);
        let Some(opened) = shelf.take(sources, binding, &mut problems) else {
            continue;
        };
        check_flows(binding, &opened.manifest, &mut problems);
        if let Some(program) = &opened.program {
            bound.push(bind(binding, &opened.manifest, program, env));
        }
    }
    let (registry, errors) = Registry::new(bound, sources.defaults);
    if problems.has_errors() {
        // What else is wrong may follow from what is missing by now.
        return Err(problems);
    }
    for error in errors {
        problems.push(
            Problem::error(error.to_string())
                .at("setting tenants.*.default_flow")
                .remedy("name a pack that is bound and a flow that its gtbind lists: `<pack name>/<flow>`"),
        );
    }
    warn(&registry, sources.defaults, &mut problems);
    if problems.has_errors() {
        return Err(problems);
    }
    Ok((registry, problems))
}

/// Builds the pack of a folder and compiles its flows, so that what would not load is not built.
pub fn build_pack(dir: &Path) -> Result<BuiltPack, Problems> {
    let mut built = pack::build(dir)?;
    // A compiled flow knows its name, and not its file.
    let file = match built.flow_files.as_slice() {
        [only] => only.clone(),
        _ => dir.to_owned(),
    };
    match Program::compile(
        &built.manifest.flows,
        Inventory::default(),
        flow::Limits::default(),
    ) {
        Ok((_, warnings)) => {
            built.warnings.extend(in_files(warnings, &file));
            Ok(built)
        }
        Err(errors) => {
            let mut problems = built.warnings;
            problems.extend(in_files(errors, &file));
            Err(problems)
        }
    }
}

/// Says of problems without a file which one they are in.
fn in_files(problems: Problems, file: &Path) -> impl Iterator<Item = Problem> {
    problems.into_iter().map(move |problem| match problem.file {
        Some(_) => problem,
        None => problem.in_file(file),
    })
}

/// The packs that were opened, each once however many tenants bind it.
#[derive(Default)]
struct Shelf {
    opened: HashMap<(PackId, PathBuf), Option<Arc<Opened>>>,
}

struct Opened {
    manifest: PackManifest,
    /// None if the flows do not compile; that is reported once.
    program: Option<Arc<Program>>,
}

impl Shelf {
    fn take(
        &mut self,
        sources: &Sources<'_>,
        binding: &PackBinding,
        problems: &mut Problems,
    ) -> Option<Arc<Opened>> {
        let file = sources.resolver.locate(&binding.pack_ref.value);
        let key = (binding.pack_id.value, file);
        if !self.opened.contains_key(&key) {
            let opened = open(sources, binding)
                .map(|pack| Arc::new(prepare(sources, pack, &key.1, problems)))
                .map_err(|problem| problems.push(problem))
                .ok();
            self.opened.insert(key.clone(), opened);
        }
        self.opened.get(&key)?.clone()
    }
}

fn open(sources: &Sources<'_>, binding: &PackBinding) -> Result<Pack, Problem> {
    let origin = &binding.pack_ref.origin;
    let reference = &binding.pack_ref.value;
    let limits = sources.limits;
    let bytes = sources
        .resolver
        .fetch(reference, limits.archive_bytes)
        .map_err(|error| origin.locate(Problem::error(error.to_string()).remedy(error.remedy())))?;
    pack::open(&bytes, Some(&binding.pack_id.value), limits).map_err(|error| {
        let message = format!("{reference} is refused: {error}");
        origin.locate(Problem::error(message).remedy(error.remedy()))
    })
}

fn prepare(sources: &Sources<'_>, pack: Pack, file: &Path, problems: &mut Problems) -> Opened {
    let program = match Program::compile(
        &pack.manifest.flows,
        Inventory::default(),
        sources.flow_limits,
    ) {
        Ok((program, warnings)) => {
            problems.extend(in_files(warnings, file));
            Some(Arc::new(program))
        }
        Err(errors) => {
            problems.extend(in_files(errors, file));
            None
        }
    };
    Opened {
        manifest: pack.manifest,
        program,
    }
}

fn check_flows(binding: &PackBinding, manifest: &PackManifest, problems: &mut Problems) {
    let there: Vec<&FlowId> = manifest.flows.iter().map(|entry| &entry.id).collect();
    for (flow, origin) in &binding.flows {
        if !there.contains(&flow) {
            let names: Vec<_> = there.iter().map(|id| id.as_str()).collect();
            problems.push(
                origin.locate(
                    Problem::error(format!(
                        "the pack `{}` has no flow `{flow}`",
                        binding.pack_ref.value
                    ))
                    .remedy(format!("its flows are: {}", names.join(", "))),
                ),
            );
        }
    }
}

fn bind(
    binding: &PackBinding,
    manifest: &PackManifest,
    program: &Arc<Program>,
    env: BTreeMap<String, String>,
) -> BoundPack {
    BoundPack {
        tenant: binding.tenant.clone(),
        id: binding.pack_id.value,
        name: manifest.pack_id.to_string(),
        version: manifest.version.clone(),
        program: Arc::clone(program),
        flows: binding.flows.keys().cloned().collect(),
        components: BTreeMap::new(),
        grants: Arc::new(Grants {
            pack: binding.pack_id.value,
            pack_name: manifest.pack_id.to_string(),
            env,
            declared: BTreeMap::new(),
            config: serde_json::Value::Null,
        }),
    }
}

/// What is legal, but perhaps not meant.
fn warn(registry: &Registry, defaults: &BTreeMap<TenantId, DefaultFlow>, problems: &mut Problems) {
    let tenants = registry.tenants();
    for tenant in tenants
        .iter()
        .filter(|tenant| !defaults.contains_key(tenant))
    {
        if let Err(EntryError::AmbiguousFlow { candidates, .. }) =
            registry.entry(tenant, &FlowTarget::default())
        {
            problems.push(
                Problem::warning(format!(
                    "a message of tenant `{tenant}` that names no flow cannot start any: it may mean {}",
                    candidates.join(", ")
                ))
                .remedy(format!(
                    "set tenants.\"{tenant}\".default_flow to one of them: `<pack name>/<flow>`"
                )),
            );
        }
    }
    for tenant in defaults.keys().filter(|tenant| !tenants.contains(tenant)) {
        problems.push(
            Problem::warning(format!(
                "tenant `{tenant}` has a default flow, but no gtbind"
            ))
            .at("setting tenants.*.default_flow")
            .remedy("remove the setting, or bind a pack to the tenant"),
        );
    }
}

#[cfg(test)]
mod tests;
