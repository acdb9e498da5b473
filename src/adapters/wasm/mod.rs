//! Components on wasmtime: compiled once per digest, a fresh instance for every call, and out of reach of anything that
//! was not granted.
//!
//! - [`config`]: the settings under `components`.
//! - `engine`, `ticker`: wasmtime's engine with its pool of slots; what makes running guests yield.
//! - `compile`: from bytes to machine code, in a process that can be ended; `queue` in it says whose is next.
//! - `prepare`, `cache`: from there to what can be called, with the compiled code kept on disk.
//! - `abi`: the interfaces that components are called through.
//! - `imports`: the interfaces that they may use; `egress` is their way out over HTTP.
//! - `call`, `guest`, `limits`: one call, what it has around it, and how far it may go; `threads` are what it runs on, and
//!   `fair` shares them and the slots among tenants.
//!
//! `docs/components.md` has the whole of it for authors and operators; `wit/` has the interfaces.

mod abi;
mod cache;
mod call;
mod compile;
pub mod config;
mod egress;
mod engine;
mod fair;
mod guest;
mod host_pattern;
mod imports;
mod ledger;
mod limits;
mod mailbox;
mod prepare;
mod stdio;
mod stored;
mod threads;
mod ticker;

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use compile::{CompileConfig, Compiler, CompilerOptions, Job, run_compiler};
pub use config::{CacheDir, Config, HttpConfig};
pub use host_pattern::{HostPattern, InvalidHostPattern};
pub use ledger::{FailedComponent, Preparation};
pub use prepare::{Code, Stats};

use crate::budget::MemoryBudget;
use crate::model::{ComponentDigest, Problem, Problems, TenantId};
use crate::ports::{ComponentCall, Components, Running};
use crate::telemetry::{CallOutcome, ComponentMetrics};
use call::{Hall, Missing, Started};
use compile::CompileQueue;
use egress::{Egresses, OwnServers};
use fair::{FairSlots, FairThreads};
use guest::Surroundings;
use ledger::Ledger;
use prepare::Workshop;
use threads::Threads;
use ticker::Ticker;

/// Processes that compile at once.
const COMPILERS: usize = 2;

/// The components of a worker. Whatever it takes to run some is there once there is a first one.
pub struct WasmComponents {
    config: Config,
    metrics: ComponentMetrics,
    own: Arc<OwnServers>,
    egresses: Arc<Egresses>,
    memory: MemoryBudget,
    compiler: Compiler,
    works: OnceLock<Works>,
    queue: Arc<CompileQueue>,
    ledger: Arc<Ledger>,
}

/// The network around a worker, as far as it matters to what components may reach.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// The lists of tenants that have their own in place of the common one.
    pub tenants: BTreeMap<TenantId, Vec<HostPattern>>,
    /// The servers that the worker talks to, by name or address and port. No component reaches them.
    pub own_servers: Vec<(String, u16)>,
}

/// What it takes to run components.
struct Works {
    workshop: Arc<Workshop>,
    hall: Arc<Hall>,
}

/// Why no component can be run on this machine.
#[derive(Debug, thiserror::Error)]
pub enum WasmError {
    /// wasmtime does not start with these settings.
    #[error(
        "components cannot be run with {instances} instances of {memory_bytes} bytes each: {reason}"
    )]
    Engine {
        /// The setting `components.instances`.
        instances: u32,
        /// The setting `components.memory_bytes`.
        memory_bytes: usize,
        /// What wasmtime says.
        reason: String,
    },
    /// There is no thread for the clock of the calls.
    #[error("the thread that interrupts components cannot be started: {0}")]
    Ticker(#[source] std::io::Error),
    /// There are no threads for the calls.
    #[error("the threads that components run on cannot be started (`components.threads`): {0}")]
    Threads(#[source] std::io::Error),
}

impl Works {
    fn new(
        config: &Config,
        compiler: &Compiler,
        metrics: ComponentMetrics,
        memory: MemoryBudget,
        egresses: &Arc<Egresses>,
    ) -> Result<Self, WasmError> {
        let failed = |error: wasmtime::Error| WasmError::Engine {
            instances: config.instances.get(),
            memory_bytes: config.memory(),
            reason: format!("{error:#}"),
        };
        let engine = engine::new(config).map_err(failed)?;
        let linker = imports::linker(&engine).map_err(failed)?;
        let ticker = Ticker::new(&engine).map_err(WasmError::Ticker)?;
        let threads = Threads::start(config.threads).map_err(WasmError::Threads)?;
        let hall = Hall {
            ticker,
            fair_threads: FairThreads::new(threads.count()),
            slots: FairSlots::new(
                config.instances.get() as usize,
                config.tenant_instances().get() as usize,
            ),
            threads,
            around: Surroundings {
                egresses: Arc::clone(egresses),
                metrics,
                memory_bytes: config.memory(),
                stack_bytes: config.stack_bytes.get(),
                memory,
                state_bytes: config.output_bytes.get(),
            },
            call_timeout: config.call_timeout,
            output_bytes: config.output_bytes.get(),
            stack_bytes: config.stack_bytes.get(),
        };
        Ok(Self {
            workshop: Arc::new(Workshop {
                engine,
                linker,
                config: config.clone(),
                compiler: compiler.clone(),
            }),
            hall: Arc::new(hall),
        })
    }
}

impl WasmComponents {
    /// No component yet. Components are compiled in this process, and go by the common list of hosts.
    pub fn new(config: &Config, metrics: ComponentMetrics) -> Self {
        let own = Arc::new(OwnServers::default());
        Self {
            config: config.clone(),
            metrics,
            egresses: Arc::new(Egresses::new(&config.http, &BTreeMap::new(), &own)),
            own,
            memory: MemoryBudget::unlimited(),
            compiler: Compiler::InProcess,
            works: OnceLock::new(),
            queue: Arc::new(CompileQueue::new(
                thread::available_parallelism().map_or(1, NonZeroUsize::get),
            )),
            ledger: Arc::default(),
        }
    }

    /// Compiles components there.
    #[must_use]
    pub fn compiled_by(mut self, compiler: Compiler) -> Self {
        let lanes = match compiler {
            Compiler::InProcess => thread::available_parallelism().map_or(1, NonZeroUsize::get),
            Compiler::Process(_) => COMPILERS,
        };
        self.queue = Arc::new(CompileQueue::new(lanes));
        self.compiler = compiler;
        self
    }

    /// Lets components reach what this network allows.
    #[must_use]
    pub fn in_network(mut self, network: Network) -> Self {
        self.own = Arc::new(OwnServers::new(network.own_servers));
        let egresses = Egresses::new(&self.config.http, &network.tenants, &self.own);
        self.egresses = Arc::new(egresses);
        self
    }

    /// Counts the memory of calls against this.
    #[must_use]
    pub fn within(mut self, memory: MemoryBudget) -> Self {
        self.memory = memory;
        self
    }

    /// Keeps components from an address that the worker listens at.
    pub fn keep_from(&self, listener: SocketAddr) {
        self.own.listen(listener);
    }

    fn works(&self) -> Result<&Works, WasmError> {
        if let Some(works) = self.works.get() {
            return Ok(works);
        }
        let (metrics, memory) = (self.metrics.clone(), self.memory.clone());
        let works = Works::new(
            &self.config,
            &self.compiler,
            metrics,
            memory,
            &self.egresses,
        )?;
        Ok(self.works.get_or_init(|| works))
    }

    /// Makes components ready to be called, beside those that are already; calls go on meanwhile. Waits for all of them.
    ///
    /// # Errors
    /// Every problem of every component, warnings included. Those without an error are ready all the same. None is if
    /// components cannot be run with these settings at all.
    pub fn prepare<'a>(
        &self,
        components: impl IntoIterator<Item = Code<'a>>,
    ) -> Result<Stats, Problems> {
        let job = |code: Code<'a>| Job {
            owner: None,
            digest: code.digest,
            name: code.name.to_owned(),
            bytes: Bytes::copy_from_slice(code.bytes),
        };
        let Preparation { stats, failed, .. } =
            self.prepare_until(components.into_iter().map(job).collect(), None)?;
        if failed.is_empty() {
            return Ok(stats);
        }
        let mut problems = Problems::default();
        for failed in failed {
            problems.extend(failed.problems);
        }
        problems.extend(stats.warnings);
        Err(problems)
    }

    /// The same, but waits until then at the most. The work goes on; [`WasmComponents::late`] tells of its end.
    ///
    /// # Errors
    /// Components cannot be run with these settings at all.
    pub fn prepare_until(
        &self,
        mut jobs: Vec<Job>,
        until: Option<Instant>,
    ) -> Result<Preparation, WasmError> {
        let mut seen = HashSet::new();
        jobs.retain(|job| seen.insert(job.digest));
        let order: Vec<ComponentDigest> = jobs.iter().map(|job| job.digest).collect();
        let known = jobs.len();
        jobs.retain(|job| !self.ledger.is_known(job.digest));
        let mut found = Preparation::default();
        found.stats.ready = known - jobs.len();
        if known == 0 {
            return Ok(found);
        }
        let asked: HashSet<ComponentDigest> = jobs.iter().map(|job| job.digest).collect();
        if !jobs.is_empty() {
            let workshop = Arc::clone(&self.works()?.workshop);
            let ledger = Arc::clone(&self.ledger);
            let work: Arc<dyn Fn(&Job) + Send + Sync> = Arc::new(move |job| {
                let code = Code {
                    digest: job.digest,
                    name: &job.name,
                    bytes: &job.bytes,
                };
                ledger.enter(job, workshop.one(&code));
            });
            let added = self.queue.add(jobs, &work);
            // What was pending before is not waited for again by who has other things to do.
            self.queue
                .wait(if until.is_some() { &added } else { &seen }, until);
        }
        found.pending = self.queue.pending(&seen);
        for digest in order {
            self.ledger
                .tell(digest, asked.contains(&digest), &mut found);
        }
        Ok(found)
    }

    /// Returns when a component is done that [`WasmComponents::prepare_until`] did not wait for.
    pub async fn late(&self) {
        self.queue.late().await;
    }

    /// Forgets the components that are not among these; calls of them that are under way end as they would have.
    pub fn retain(&self, wanted: &HashSet<ComponentDigest>) {
        self.ledger.retain(wanted);
        if let Some(works) = self.works.get() {
            works.hall.fair_threads.forget_idle();
        }
    }
}

impl Components for WasmComponents {
    fn call(&self, call: ComponentCall) -> Box<dyn Running> {
        match (self.ledger.prepared(call.code), self.works.get()) {
            (Some(prepared), Some(works)) => {
                Box::new(Started::new(Arc::clone(&works.hall), prepared, call))
            }
            (None, _) | (_, None) => {
                self.metrics
                    .called(&call.tenant, CallOutcome::Unusable, Duration::ZERO);
                Box::new(Missing::new(call))
            }
        }
    }
}

impl From<WasmError> for Problems {
    fn from(error: WasmError) -> Self {
        let problem = Problem::error(error.to_string()).at("setting components");
        let remedy =
            "lower `components.instances`, `components.memory_bytes` or `components.threads`";
        problem.remedy(remedy).into()
    }
}
