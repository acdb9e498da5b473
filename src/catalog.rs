//! Gtbinds and the pack store in, a registry out, with every problem that is found on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use greentic_types::PackManifest;

use crate::bindings::{self, Entry, EnvPolicy, Origin, Owners, PackBinding, UnusableGtbind};
use crate::flow::{self, Program};
use crate::model::{
    FlowId, FlowTarget, Grants, PackId, PackRef, Problem, Problems, TenantId, UndeclaredState,
};
use crate::pack::{self, Resolver};
use crate::registry::{BoundPack, DefaultError, DefaultFlow, EntryError, Registry};

mod capabilities;
mod folder;
mod shelf;

pub use folder::{Folder, build_pack};
pub use shelf::ComponentCode;

use shelf::{Opened, Shelf};

/// Where everything that is bound comes from.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// Finds the archives.
    pub resolver: &'a Resolver,
    /// How much of an archive is taken.
    pub limits: &'a pack::Limits,
    /// What to do about archives that nobody vouches for.
    pub signatures: &'a pack::Signatures,
    /// How far a turn of a flow may go.
    pub flow_limits: flow::Limits,
    /// What becomes of state that components do not declare.
    pub undeclared_state: UndeclaredState,
    /// Which variables may be granted.
    pub policy: &'a EnvPolicy,
    /// The worker's environment, from which they are granted.
    pub environment: &'a BTreeMap<String, String>,
    /// The tenants' default flows, by the settings.
    pub defaults: &'a BTreeMap<TenantId, DefaultFlow>,
}

/// Everything that is bound.
#[derive(Debug)]
pub struct Loaded {
    /// What turns find their flows in.
    pub registry: Registry,
    /// The code that the flows call, each once: for what runs it, which alone needs to keep it.
    pub code: Vec<ComponentCode>,
    /// What is worth knowing though it stops nothing.
    pub warnings: Problems,
}

/// What the gtbinds say.
#[derive(Clone, Debug)]
pub struct Bindings {
    /// One for each pack of each tenant.
    pub merged: Vec<PackBinding>,
    /// The gtbinds that cannot be used.
    pub unusable: Vec<UnusableGtbind>,
    /// Whose each gtbind is.
    pub owners: Owners,
    /// What is wrong with the files and folders that were named.
    pub problems: Problems,
}

/// Reads gtbinds from files and folders, and merges them.
pub fn read(paths: &[PathBuf]) -> Bindings {
    read_again(paths, &Owners::default())
}

/// The same, for who knows whose each gtbind was before.
pub fn read_again(paths: &[PathBuf], before: &Owners) -> Bindings {
    let gtbinds = bindings::load(paths, before);
    let (merged, contradictory) = bindings::merge(gtbinds.usable);
    let mut unusable = gtbinds.unusable;
    unusable.extend(contradictory);
    Bindings {
        merged,
        unusable,
        owners: gtbinds.owners,
        problems: gtbinds.problems,
    }
}

/// A pack of a tenant's gtbind, as far as it could be opened.
#[derive(Debug)]
pub struct Candidate {
    /// Whose gtbind it is.
    pub tenant: TenantId,
    /// The name that the pack gives itself, where its archive could be opened.
    pub name: Option<String>,
    /// The pack, if it can be run.
    pub bound: Option<BoundPack>,
    /// All that is wrong with it. Where several tenants bind a pack, each of them has its errors, and the first its warnings.
    pub problems: Problems,
}

/// All that the gtbinds bind, opened.
#[derive(Debug)]
pub struct Opening {
    /// One for each pack of each tenant.
    pub candidates: Vec<Candidate>,
    /// The code that the flows call, each once.
    pub code: Vec<ComponentCode>,
    /// The gtbinds that cannot be used.
    pub unusable: Vec<UnusableGtbind>,
    /// What is wrong with the files and folders that were named.
    pub problems: Problems,
}

/// Loads everything that the gtbinds bind: opens the packs, compiles their flows, grants variables. If there is any
/// error, all problems come and nothing else.
pub fn load(sources: &Sources<'_>, bindings: Bindings) -> Result<Loaded, Problems> {
    open(sources, bindings).all(sources.defaults)
}

/// Opens everything that the gtbinds bind. A pack that is broken is in no other one's way.
pub fn open(sources: &Sources<'_>, bindings: Bindings) -> Opening {
    let mut shelf = Shelf::new(sources.undeclared_state);
    let candidate = |binding: &PackBinding| {
        let (env, mut problems) = bindings::grant(sources.policy, binding, sources.environment);
        let opened = shelf.take(sources, binding, &mut problems);
        let mut bound = None;
        if let Some(opened) = &opened {
            check_flows(binding, &opened.manifest, &mut problems);
            if let Some(program) = &opened.program {
                bound = Some(bind(binding, opened, program, env, &mut problems));
            }
        }
        Candidate {
            tenant: binding.tenant.clone(),
            name: opened.map(|opened| opened.manifest.pack_id.to_string()),
            bound,
            problems,
        }
    };
    Opening {
        candidates: bindings.merged.iter().map(candidate).collect(),
        code: shelf.into_code(),
        unusable: bindings.unusable,
        problems: bindings.problems,
    }
}

impl Opening {
    /// All of it, or every problem.
    ///
    /// # Errors
    /// Every problem that was found, warnings included.
    pub fn all(self, defaults: &BTreeMap<TenantId, DefaultFlow>) -> Result<Loaded, Problems> {
        let Self {
            candidates,
            code,
            unusable,
            mut problems,
        } = self;
        problems.extend(unusable.into_iter().flat_map(|gtbind| gtbind.problems));
        let mut bound = Vec::new();
        for candidate in candidates {
            problems.extend(candidate.problems);
            bound.extend(candidate.bound);
        }
        let mut problems = problems.each_once();
        let (registry, errors) = Registry::new(bound, defaults);
        if problems.has_errors() {
            // What else is wrong may follow from what is missing by now.
            return Err(problems);
        }
        problems.extend(errors.iter().map(wrong_default));
        warn(&registry, defaults, &BTreeSet::new(), &mut problems);
        if problems.has_errors() {
            return Err(problems);
        }
        Ok(Loaded {
            registry,
            code,
            warnings: problems,
        })
    }
}

/// A default flow that names nothing.
pub(crate) fn wrong_default(error: &DefaultError) -> Problem {
    Problem::error(error.to_string())
        .at("setting tenants.*.default_flow")
        .remedy("name a pack that is bound and a flow that its gtbind lists: `<pack name>/<flow>`")
}

/// A binding of a pack that no gtbind binds, for a tenant that has conversations parked in it. No flow of it can be started,
/// and it is granted what every pack is.
pub fn unbound(tenant: &TenantId, pack: PackId, reference: PackRef) -> PackBinding {
    let origin = Origin {
        file: PathBuf::from(reference.to_string()),
        place: "archive".to_owned(),
    };
    PackBinding {
        tenant: tenant.clone(),
        pack_id: Entry {
            value: pack,
            origin: origin.clone(),
        },
        pack_ref: Entry {
            value: reference,
            origin,
        },
        flows: BTreeMap::new(),
        env: BTreeMap::new(),
    }
}

/// Loads a pack that is bound like this, and the code that its flows call.
///
/// # Errors
/// The archive is not there, is not that pack, or does not load.
pub fn load_unbound(
    sources: &Sources<'_>,
    binding: &PackBinding,
) -> Result<(BoundPack, Vec<ComponentCode>), Problems> {
    let (env, mut problems) = bindings::grant(sources.policy, binding, sources.environment);
    let mut shelf = Shelf::new(sources.undeclared_state);
    let opened = shelf.take(sources, binding, &mut problems);
    let program = opened.as_ref().and_then(|opened| opened.program.as_ref());
    match (&opened, program) {
        (Some(opened), Some(program)) => {
            let bound = bind(binding, opened, program, env, &mut problems);
            Ok((bound, shelf.into_code()))
        }
        _ => Err(problems),
    }
}

/// Says of problems without a file which one they are in.
fn in_files(problems: Problems, file: &Path) -> impl Iterator<Item = Problem> {
    problems.into_iter().map(move |problem| match problem.file {
        Some(_) => problem,
        None => problem.in_file(file),
    })
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

/// The pack as this tenant has it. What the pack needs and is not granted is worth a warning: it may do without.
fn bind(
    binding: &PackBinding,
    opened: &Opened,
    program: &Arc<Program>,
    env: BTreeMap<String, String>,
    problems: &mut Problems,
) -> BoundPack {
    let manifest = &opened.manifest;
    let grants = Grants {
        pack: binding.pack_id.value,
        pack_name: manifest.pack_id.to_string(),
        env,
        declared: opened.declared.clone(),
        config: serde_json::Value::Null,
    };
    for key in opened
        .secrets
        .iter()
        .filter(|key| grants.variable(key).is_none())
    {
        let variable = variable_for(key);
        problems.push(
            binding.pack_id.origin.locate(
                Problem::warning(format!(
                    "the pack `{}` needs the secret `{key}`, and no variable of that name is granted to it",
                    grants.pack_name
                ))
                .remedy(format!(
                    "list `{variable}` in env_passthrough, allow it by the setting env.allow, and set it for the worker"
                )),
            ),
        );
    }
    BoundPack {
        tenant: binding.tenant.clone(),
        id: binding.pack_id.value,
        name: manifest.pack_id.to_string(),
        version: manifest.version.clone(),
        reference: binding.pack_ref.value.for_others().map(Arc::from),
        program: Arc::clone(program),
        flows: binding.flows.keys().cloned().collect(),
        components: opened.components.clone(),
        grants: Arc::new(grants),
    }
}

/// The variable that hands a secret of this name over.
fn variable_for(key: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    key.chars().map(plain).collect::<String>().to_uppercase()
}

/// What is legal, but perhaps not meant. Of the tenants in `left_out` nothing may be in force although they have gtbinds.
pub(crate) fn warn(
    registry: &Registry,
    defaults: &BTreeMap<TenantId, DefaultFlow>,
    left_out: &BTreeSet<&TenantId>,
    problems: &mut Problems,
) {
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
    let has_none = |tenant: &&TenantId| !tenants.contains(tenant) && !left_out.contains(tenant);
    for tenant in defaults.keys().filter(has_none) {
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
