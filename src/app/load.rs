//! From settings to a registry: gtbinds are read, archives fetched and opened, flows compiled. Each load begins anew, so
//! that a running worker can load beside what it runs.

mod fetch;
mod kept;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::LeftOut;
use super::assembly::Assembly;
use crate::adapters::machine;
use crate::adapters::packs::Remote;
use crate::adapters::wasm::{Code, Compiler, Job, Stats, WasmComponents};
use crate::bindings::{self, EnvPolicy, Fingerprint, Owners};
use crate::budget::MemoryBudget;
use crate::catalog::{self, Bindings, Candidate, ComponentCode, Opening, Sources};
use crate::flow;
use crate::model::{ComponentDigest, PackId, Problem, Problems, TenantId, UndeclaredState};
use crate::pack::{self, Cache, NotFetched, Resolver};
use crate::registry::{DefaultFlow, Live, Registry};
use crate::settings::Settings;
use crate::telemetry::ComponentMetrics;

/// How long a start waits for components to be compiled. The tenants of those that take longer are served from then on.
const START_PATIENCE: Duration = Duration::from_secs(30);
/// The same of a running worker, whose other changes wait meanwhile.
const RELOAD_PATIENCE: Duration = Duration::from_secs(2);

/// Loads everything that the settings bind: gtbinds, packs, flows, granted variables, components.
#[derive(Clone)]
pub struct Loader {
    parts: Arc<Parts>,
    remote: Arc<Remote>,
    components: Arc<WasmComponents>,
    counted: ComponentMetrics,
    memory: MemoryBudget,
    keeps: bool,
    strict: bool,
}

/// What a load needs besides the network.
struct Parts {
    bindings: Vec<PathBuf>,
    store: PathBuf,
    cache: Option<Cache>,
    limits: pack::Limits,
    flow_limits: flow::Limits,
    undeclared_state: UndeclaredState,
    signatures: pack::Signatures,
    policy: EnvPolicy,
    environment: BTreeMap<String, String>,
    defaults: BTreeMap<TenantId, DefaultFlow>,
}

/// What a load brought.
pub struct Loaded {
    /// Everything that is bound and in order.
    pub registry: Registry,
    /// What runs the components that its flows call: they are compiled.
    pub components: Arc<WasmComponents>,
    /// What is legal, but perhaps not meant.
    pub warnings: Problems,
    /// What the gtbinds were when they were read, or before.
    pub seen: Fingerprint,
    /// Whose each of them is.
    pub owners: Owners,
    /// What was left out, where a load goes on without it.
    pub left_out: LeftOut,
}

/// What a load found, put together.
struct Assembled {
    seen: Fingerprint,
    owners: Owners,
    assembly: Assembly,
    wanted: HashSet<ComponentDigest>,
}

impl Assembled {
    fn checked(
        self,
        check: impl FnOnce(Assembly) -> Result<Assembly, Problems>,
    ) -> Result<Self, Problems> {
        let assembly = check(self.assembly)?;
        Ok(Self { assembly, ..self })
    }
}

type Fetched = HashMap<PackId, Result<Vec<u8>, NotFetched>>;

impl Loader {
    /// By these settings, granting variables from this environment.
    ///
    /// # Errors
    /// Components cannot be run with these settings.
    pub fn new(
        settings: &Settings,
        environment: BTreeMap<String, String>,
    ) -> Result<Self, Problems> {
        Self::compiling(settings, environment, Compiler::InProcess)
    }

    /// The same, with the components compiled there.
    ///
    /// # Errors
    /// Components cannot be run with these settings.
    pub fn compiling(
        settings: &Settings,
        environment: BTreeMap<String, String>,
        compiler: Compiler,
    ) -> Result<Self, Problems> {
        let counted = ComponentMetrics::default();
        let memory = MemoryBudget::new(settings.limits.memory.of(machine::memory_bytes()));
        let components = WasmComponents::new(&settings.components, counted.clone())
            .compiled_by(compiler)
            .in_network(settings.network())
            .within(memory.clone());
        let dirs = settings.bindings_dirs.iter();
        let tenants = settings.tenants.iter();
        let defaults =
            tenants.filter_map(|(id, tenant)| Some((id.clone(), tenant.default_flow.clone()?)));
        let limits = &settings.limits;
        let remote = Remote::new(settings.packs.access(), environment.clone());
        let parts = Parts {
            bindings: settings.bindings.iter().chain(dirs).cloned().collect(),
            store: settings.packs.store.clone(),
            cache: settings.packs.cache_dir.as_ref().map(Cache::new),
            limits: pack::Limits::default(),
            flow_limits: flow::Limits {
                nodes: limits.nodes_per_turn.get(),
                jumps: limits.jumps_per_turn.get(),
                calls: limits.call_depth.get(),
                rendered_bytes: limits.rendered_bytes.get(),
                replies: limits.replies_per_turn.get(),
                state: limits.state(),
                steps_per_node: limits.steps_per_node.get(),
                steps_per_turn: limits.steps_per_turn.get(),
            },
            undeclared_state: settings.components.undeclared_state,
            signatures: settings.packs.signatures.clone(),
            policy: settings.env.clone(),
            environment,
            defaults: defaults.collect(),
        };
        Ok(Self {
            parts: Arc::new(parts),
            remote: Arc::new(remote),
            components: Arc::new(components),
            counted,
            memory,
            keeps: false,
            strict: settings.bindings_strict,
        })
    }

    /// The memory that components use, and whatever else is counted against the same limit.
    pub(super) fn memory(&self) -> &MemoryBudget {
        &self.memory
    }

    /// What runs components.
    pub(super) fn components(&self) -> &WasmComponents {
        &self.components
    }

    /// What is counted of the components' calls.
    pub(super) fn counted(&self) -> &ComponentMetrics {
        &self.counted
    }

    /// Keeps every archive that is loaded in the cache: conversations may be parked in it when it is bound no more.
    #[must_use]
    pub fn keeping(mut self) -> Self {
        self.keeps = true;
        self
    }

    /// Loads what is bound now, all of it.
    ///
    /// # Errors
    /// Every problem that was found, warnings included.
    pub async fn load(&self) -> Result<Loaded, Problems> {
        let (seen, owners, opening) = self.open_all(&Owners::default()).await?;
        let catalog::Loaded {
            registry,
            code,
            mut warnings,
        } = opening.all(&self.parts.defaults)?;
        let components = Arc::clone(&self.components);
        match aside(move || prepare(&components, &code)).await? {
            Ok(found) => warnings.extend(found),
            Err(found) => {
                warnings.extend(found);
                return Err(warnings);
            }
        }
        Ok(Loaded {
            registry,
            components: Arc::clone(&self.components),
            warnings,
            seen,
            owners,
            left_out: LeftOut::default(),
        })
    }

    /// Loads what is bound now for a worker that starts: without the tenants whose bindings cannot be used, and without packs
    /// whose components take too much to compile. Those that take long come later.
    ///
    /// # Errors
    /// Every problem that was found, warnings included, if nobody can be served for it or nothing may be left out.
    pub async fn start(&self) -> Result<Loaded, Problems> {
        let nothing = (&Registry::default(), &Owners::default());
        let assembled = self.assemble(nothing, START_PATIENCE).await?;
        let loaded = self.loaded(assembled.checked(|found| found.for_a_start(self.strict))?);
        loaded.left_out.tell(&LeftOut::default());
        Ok(loaded)
    }

    /// Loads what is bound now, beside what is in force. A tenant of which something cannot be used keeps what it has.
    ///
    /// # Errors
    /// Every problem that was found, if the files and folders that were named are wrong, or nothing may be left out.
    pub(super) async fn load_beside(
        &self,
        before: &Registry,
        owners: &Owners,
    ) -> Result<Loaded, Problems> {
        let assembled = self.assemble((before, owners), RELOAD_PATIENCE).await?;
        let strict = self.strict;
        let check = |found: Assembly| if strict { found.all() } else { Ok(found) };
        Ok(self.loaded(assembled.checked(check)?))
    }

    /// Returns when a component is ready, or given up, that a load did not wait for.
    pub(super) async fn late(&self) {
        self.components.late().await;
    }

    fn loaded(&self, assembled: Assembled) -> Loaded {
        let Assembled {
            seen,
            owners,
            assembly,
            wanted,
        } = assembled;
        Loaded {
            left_out: LeftOut {
                unusable: assembly.unusable,
                packs: assembly.left_out,
                wanted,
            },
            registry: assembly.registry,
            components: Arc::clone(&self.components),
            warnings: assembly.warnings,
            seen,
            owners,
        }
    }

    async fn assemble(
        &self,
        (before, owners): (&Registry, &Owners),
        patience: Duration,
    ) -> Result<Assembled, Problems> {
        let (seen, owners, opening) = self.open_all(owners).await?;
        let Opening {
            candidates,
            code,
            unusable,
            problems,
        } = opening;
        if problems.has_errors() {
            let found = candidates.into_iter().flat_map(|found| found.problems);
            let unusable = unusable.into_iter().flat_map(|gtbind| gtbind.problems);
            let all = problems.into_iter().chain(unusable).chain(found);
            return Err(Problems::of(all).each_once());
        }
        let jobs = jobs(&candidates, code);
        let wanted = jobs.iter().map(|job| job.digest).collect();
        let components = Arc::clone(&self.components);
        let until = Instant::now() + patience;
        let prepared = aside(move || components.prepare_until(jobs, Some(until))).await??;
        tell(&prepared.stats);
        let found = (candidates, unusable);
        let mut assembly = Assembly::new(found, &prepared, before, &self.parts.defaults);
        assembly.warnings.extend(problems);
        assembly.warnings.extend(prepared.stats.warnings);
        Ok(Assembled {
            seen,
            owners,
            assembly,
            wanted,
        })
    }

    async fn open_all(&self, before: &Owners) -> Result<(Fingerprint, Owners, Opening), Problems> {
        let (parts, before) = (Arc::clone(&self.parts), before.clone());
        let (seen, bindings) = aside(move || {
            let seen = bindings::fingerprint(&parts.bindings);
            (seen, catalog::read_again(&parts.bindings, &before))
        })
        .await?;
        let owners = bindings.owners.clone();
        let fetched = self.fetch(&bindings.merged).await;
        Ok((seen, owners, self.open(bindings, fetched).await?))
    }

    /// Forgets the components that no pack calls which is bound, or which a turn may still ask for.
    pub(super) fn forget_others(&self, live: &Live, left_out: &LeftOut) {
        let packs = live.packs();
        let called = packs.iter().flat_map(|pack| pack.components.values());
        let wanted = called.chain(&left_out.wanted);
        self.components.retain(&wanted.copied().collect());
    }

    /// Puts a first registry in force, with the cache behind it.
    pub(super) fn put_in_force(&self, registry: Registry) -> Live {
        let Parts {
            policy,
            environment,
            ..
        } = &*self.parts;
        let always = bindings::granted_always(policy, environment);
        Live::new(registry, Box::new(self.clone()), always)
    }

    /// What the gtbinds are now.
    pub(super) async fn look(&self) -> Result<Fingerprint, Problems> {
        let parts = Arc::clone(&self.parts);
        aside(move || bindings::fingerprint(&parts.bindings)).await
    }

    async fn open(&self, bindings: Bindings, fetched: Fetched) -> Result<Opening, Problems> {
        let (parts, keeps) = (Arc::clone(&self.parts), self.keeps);
        aside(move || {
            let resolver = parts.resolver().with_fetched(fetched);
            let resolver = if keeps { resolver.keeping() } else { resolver };
            catalog::open(&parts.sources(&resolver), bindings)
        })
        .await
    }
}

impl Parts {
    fn resolver(&self) -> Resolver {
        Resolver::new(&self.store).with_cache(self.cache.clone())
    }

    fn sources<'a>(&'a self, resolver: &'a Resolver) -> Sources<'a> {
        Sources {
            resolver,
            limits: &self.limits,
            signatures: &self.signatures,
            flow_limits: self.flow_limits,
            undeclared_state: self.undeclared_state,
            policy: &self.policy,
            environment: &self.environment,
            defaults: &self.defaults,
        }
    }
}

/// Loads as [`Loader::load`] does, for whoever has nothing else to do meanwhile.
///
/// # Errors
/// As there.
pub fn load(
    settings: &Settings,
    environment: &BTreeMap<String, String>,
) -> Result<Loaded, Problems> {
    load_with(Loader::new(settings, environment.clone())?)
}

/// The same, as this loader loads.
///
/// # Errors
/// As there.
pub(crate) fn load_with(loader: Loader) -> Result<Loaded, Problems> {
    // On a thread of its own, since a caller may be inside of tokio already.
    let loading = std::thread::spawn(move || {
        let tokio = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let tokio =
            tokio.map_err(|error| Problem::error(format!("nothing can be loaded: {error}")))?;
        tokio.block_on(loader.load())
    });
    loading
        .join()
        .map_err(|_panic| Problem::error("loading ended early, as the log says"))?
}

/// Compiles components, as far as they are not compiled yet, and tells what is odd about them.
pub(crate) fn prepare(
    components: &WasmComponents,
    code: &[ComponentCode],
) -> Result<Problems, Problems> {
    let each = code.iter().map(|component| Code {
        digest: component.digest,
        name: &component.name,
        bytes: &component.bytes,
    });
    let stats = components.prepare(each)?;
    tell(&stats);
    Ok(stats.warnings)
}

fn tell(stats: &Stats) {
    if stats.compiled > 0 {
        tracing::info!(
            compiled = stats.compiled,
            loaded = stats.loaded,
            "components are ready"
        );
    }
}

/// The components of packs, each on behalf of the first tenant that has it.
fn jobs(candidates: &[Candidate], code: Vec<ComponentCode>) -> Vec<Job> {
    let mut owners: HashMap<ComponentDigest, &TenantId> = HashMap::new();
    for candidate in candidates {
        let bound = candidate.bound.iter();
        for digest in bound.flat_map(|bound| bound.components.values()) {
            owners.entry(*digest).or_insert(&candidate.tenant);
        }
    }
    let job = |code: ComponentCode| Job {
        owner: owners.get(&code.digest).copied().cloned(),
        digest: code.digest,
        name: code.name,
        bytes: code.bytes,
    };
    code.into_iter().map(job).collect()
}

/// Does what takes its time on another thread, so that no turn waits for it.
async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problems> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Problem::error(format!("loading ended early: {error}"))
            .remedy("report it with the log: it should not happen")
            .into()
    })
}

#[cfg(test)]
mod tests;
