//! From settings to a registry: gtbinds are read, archives fetched and opened, flows compiled. Each load begins anew, so
//! that a running worker can load beside what it runs.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{StreamExt, stream};

use crate::adapters::packs::Remote;
use crate::adapters::wasm::{Code, WasmComponents};
use crate::bindings::{self, EnvPolicy, Fingerprint, PackBinding};
use crate::catalog::{self, Bindings, ComponentCode, Sources};
use crate::flow;
use crate::model::{PackId, PackRef, Problem, Problems, RemoteRef, TenantId};
use crate::pack::{self, Cache, NotFetched, Resolver};
use crate::registry::{BoundPack, DefaultFlow, Live, Loading, Registry, Shelf};
use crate::settings::Settings;
use crate::telemetry::ComponentMetrics;

/// How many archives are fetched at once.
const PARALLEL: usize = 4;

/// Loads everything that the settings bind: gtbinds, packs, flows, granted variables, components.
#[derive(Clone)]
pub struct Loader {
    parts: Arc<Parts>,
    remote: Arc<Remote>,
    components: Arc<WasmComponents>,
    counted: ComponentMetrics,
    keeps: bool,
}

/// What a load needs besides the network.
struct Parts {
    bindings: Vec<PathBuf>,
    store: PathBuf,
    cache: Option<Cache>,
    limits: pack::Limits,
    flow_limits: flow::Limits,
    signatures: pack::Signatures,
    policy: EnvPolicy,
    environment: BTreeMap<String, String>,
    defaults: BTreeMap<TenantId, DefaultFlow>,
}

/// What a load brought.
pub struct Loaded {
    /// Everything that is bound.
    pub registry: Registry,
    /// What runs the components that its flows call: they are compiled.
    pub components: Arc<WasmComponents>,
    /// What is legal, but perhaps not meant.
    pub warnings: Problems,
    /// What the gtbinds were when they were read, or before.
    pub seen: Fingerprint,
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
        let counted = ComponentMetrics::default();
        let components = WasmComponents::new(&settings.components, counted.clone());
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
                steps_per_node: limits.steps_per_node.get(),
                steps_per_turn: limits.steps_per_turn.get(),
            },
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
            keeps: false,
        })
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

    /// Loads what is bound now.
    ///
    /// # Errors
    /// Every problem that was found, warnings included.
    pub async fn load(&self) -> Result<Loaded, Problems> {
        let parts = Arc::clone(&self.parts);
        let (seen, bindings) = aside(move || {
            let seen = bindings::fingerprint(&parts.bindings);
            (seen, catalog::read(&parts.bindings))
        })
        .await?;
        let fetched = self.fetch(&bindings.merged).await;
        let catalog::Loaded {
            registry,
            code,
            mut warnings,
        } = self.open(bindings, fetched).await?;
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
        })
    }

    /// Forgets the components that no pack calls which a turn may still ask for.
    pub(super) fn forget_others(&self, live: &Live) {
        let packs = live.packs();
        let called = packs.iter().flat_map(|pack| pack.components.values());
        self.components.retain(&called.copied().collect());
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

    async fn open(
        &self,
        bindings: Bindings,
        fetched: Fetched,
    ) -> Result<catalog::Loaded, Problems> {
        let (parts, keeps) = (Arc::clone(&self.parts), self.keeps);
        aside(move || {
            let resolver = parts.resolver().with_fetched(fetched);
            let resolver = if keeps { resolver.keeping() } else { resolver };
            catalog::load(&parts.sources(&resolver), bindings)
        })
        .await?
    }

    /// Fetches the archives of other machines that are not in the cache yet. What the cache takes is not held in memory.
    async fn fetch(&self, merged: &[PackBinding]) -> Fetched {
        let mut wanted: BTreeMap<PackId, Vec<&RemoteRef>> = BTreeMap::new();
        for binding in merged {
            if let PackRef::Remote(remote) = &binding.pack_ref.value {
                let references = wanted.entry(binding.pack_id.value).or_default();
                if !references.contains(&remote) {
                    references.push(remote);
                }
            }
        }
        let each = wanted.into_iter().map(|(pack, references)| async move {
            (pack, self.fetch_one(pack, references).await)
        });
        // Gathered first: what holds a closure over references cannot be sent to another thread.
        let each: Vec<_> = each.collect();
        let fetched: Vec<_> = stream::iter(each)
            .buffer_unordered(PARALLEL)
            .collect()
            .await;
        let outside = fetched.into_iter();
        outside
            .filter_map(|(pack, fetched)| Some((pack, fetched.transpose()?)))
            .collect()
    }

    /// The archive, if the cache does not have it by then. Of several addresses the first that does is taken.
    async fn fetch_one(
        &self,
        pack: PackId,
        references: Vec<&RemoteRef>,
    ) -> Result<Option<Vec<u8>>, NotFetched> {
        if self.is_cached(pack).await {
            return Ok(None);
        }
        let limit = self.parts.limits.archive_bytes;
        let mut failure = None;
        for reference in references {
            match self.remote.fetch(&pack, reference, limit).await {
                Ok(bytes) => return Ok(self.store(pack, bytes).await),
                Err(error) => {
                    failure = Some(NotFetched {
                        reason: format!("`{reference}`: {error}"),
                        remedy: error.remedy().to_owned(),
                    });
                }
            }
        }
        failure.map_or(Ok(None), Err)
    }

    async fn is_cached(&self, pack: PackId) -> bool {
        let parts = Arc::clone(&self.parts);
        let there = aside(move || {
            let cache = parts.cache.as_ref()?;
            // What cannot be read is fetched; whether the cache can be written to shows afterwards.
            cache.take(&pack, parts.limits.archive_bytes).ok().flatten()
        });
        matches!(there.await, Ok(Some(_)))
    }

    /// Puts an archive into the cache; gives it back if there is none that takes it.
    async fn store(&self, pack: PackId, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let parts = Arc::clone(&self.parts);
        let stored = aside(move || match &parts.cache {
            Some(cache) if cache.keep(&pack, &bytes).is_ok() => None,
            Some(_) | None => Some(bytes),
        });
        stored.await.ok().flatten()
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
            policy: &self.policy,
            environment: &self.environment,
            defaults: &self.defaults,
        }
    }

    /// A pack of the cache, ready to run; none if it is not there.
    fn kept(
        &self,
        components: &WasmComponents,
        pack: PackId,
        tenant: &TenantId,
    ) -> Option<Result<BoundPack, Problems>> {
        let cache = self.cache.as_ref()?;
        let archive = cache.file(&pack);
        match cache.take(&pack, self.limits.archive_bytes) {
            Ok(Some(_)) => {}
            Ok(None) => return None,
            Err(error) => {
                let problem = Problem::error(format!("the archive cannot be read: {error}"));
                let problem = problem.in_file(&archive);
                return Some(Err(problem
                    .remedy("give the worker the right to read it")
                    .into()));
            }
        }
        let resolver = self.resolver();
        let found = catalog::load_kept(&self.sources(&resolver), (pack, &archive), tenant);
        Some(found.and_then(|(bound, code)| {
            prepare(components, &code)?;
            Ok(bound)
        }))
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
    let loader = Loader::new(settings, environment.clone())?;
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

/// The cache is where packs are found that are not bound any more.
impl Shelf for Loader {
    fn load<'a>(&'a self, pack: PackId, tenant: &'a TenantId) -> Loading<'a> {
        let (parts, components) = (Arc::clone(&self.parts), Arc::clone(&self.components));
        let owner = tenant.clone();
        Box::pin(async move {
            let found = aside(move || parts.kept(&components, pack, &owner)).await;
            match found.ok().flatten()? {
                Ok(found) => {
                    tracing::info!(%pack, name = found.name, "a conversation goes on in a pack that is not bound any more");
                    Some(found)
                }
                Err(problems) => {
                    tracing::error!("{problems}");
                    None
                }
            }
        })
    }
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
    if stats.compiled > 0 {
        tracing::info!(
            compiled = stats.compiled,
            loaded = stats.loaded,
            "components are ready"
        );
    }
    Ok(stats.warnings)
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
