//! Components on wasmtime: compiled once per digest, a fresh instance for every call, and out of reach of anything that
//! was not granted.
//!
//! - [`config`]: the settings under `components`.
//! - `engine`, `ticker`: wasmtime's engine with its pool of slots; what makes running guests yield.
//! - `prepare`, `cache`: from bytes to what can be called, with the compiled code kept on disk.
//! - `abi`: the interfaces that components are called through.
//! - `imports`: the interfaces that they may use; `egress` is their way out over HTTP.
//! - `call`, `guest`, `limits`: one call, what it has around it, and how far it may go; `threads` are what it runs on.
//!
//! `docs/components.md` has the whole of it for authors and operators; `wit/` has the interfaces.

mod abi;
mod cache;
mod call;
pub mod config;
mod egress;
mod engine;
mod guest;
mod imports;
mod limits;
mod mailbox;
mod prepare;
mod stdio;
mod stored;
mod threads;
mod ticker;

use std::collections::HashSet;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::Semaphore;

pub use config::{CacheDir, Config, HostPattern, HttpConfig};
pub use prepare::{Code, Stats};

use crate::model::{ComponentDigest, Problem, Problems};
use crate::ports::{ComponentCall, Components, Running};
use crate::telemetry::{CallOutcome, ComponentMetrics};
use call::{Hall, Missing, Started};
use egress::Egress;
use guest::Surroundings;
use prepare::{Shelf, Workshop};
use threads::Threads;
use ticker::Ticker;

/// The components of a worker. Whatever it takes to run some is there once there is a first one.
pub struct WasmComponents {
    config: Config,
    metrics: ComponentMetrics,
    works: OnceLock<Works>,
    shelf: RwLock<Shelf>,
}

/// What it takes to run components.
struct Works {
    workshop: Workshop,
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
    fn new(config: &Config, metrics: ComponentMetrics) -> Result<Self, WasmError> {
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
            threads,
            ticker,
            slots: Semaphore::new(config.instances.get() as usize),
            around: Surroundings {
                egress: Arc::new(Egress::new(&config.http)),
                metrics,
                memory_bytes: config.memory(),
            },
            call_timeout: config.call_timeout,
            output_bytes: config.output_bytes.get(),
            stack_bytes: config.stack_bytes.get(),
        };
        Ok(Self {
            workshop: Workshop {
                engine,
                linker,
                cache: config.cache_dir.clone(),
            },
            hall: Arc::new(hall),
        })
    }
}

impl WasmComponents {
    /// No component yet.
    pub fn new(config: &Config, metrics: ComponentMetrics) -> Self {
        Self {
            config: config.clone(),
            metrics,
            works: OnceLock::new(),
            shelf: RwLock::default(),
        }
    }

    fn works(&self) -> Result<&Works, WasmError> {
        if let Some(works) = self.works.get() {
            return Ok(works);
        }
        let works = Works::new(&self.config, self.metrics.clone())?;
        Ok(self.works.get_or_init(|| works))
    }

    /// Makes components ready to be called, beside those that are already; calls go on meanwhile. Takes the processors
    /// for as long as compiling takes.
    ///
    /// # Errors
    /// Every problem of every component, warnings included. Those without an error are ready all the same. None is if
    /// components cannot be run with these settings at all.
    pub fn prepare<'a>(
        &self,
        components: impl IntoIterator<Item = Code<'a>>,
    ) -> Result<Stats, Problems> {
        let mut stats = Stats::default();
        let mut seen = HashSet::new();
        let mut new: Vec<Code<'a>> = components.into_iter().collect();
        new.retain(|code| seen.insert(code.digest));
        {
            let shelf = self.shelf.read().unwrap_or_else(PoisonError::into_inner);
            let known = new.len();
            new.retain(|code| !shelf.contains_key(&code.digest));
            stats.ready = known - new.len();
        }
        if new.is_empty() {
            return Ok(stats);
        }
        let mut problems = Problems::default();
        let mut pieces = self.works()?.workshop.all(&new);
        let mut shelf = self.shelf.write().unwrap_or_else(PoisonError::into_inner);
        for piece in new
            .iter()
            .filter_map(|code| Some((code, pieces.remove(&code.digest)?)))
        {
            let (code, piece) = piece;
            stats.count(&piece);
            match piece.result {
                Ok(prepared) => drop(shelf.insert(code.digest, Arc::new(prepared))),
                Err(found) => problems.extend(found),
            }
        }
        if problems.has_errors() {
            problems.extend(stats.warnings);
            return Err(problems);
        }
        Ok(stats)
    }

    /// Forgets the components that are not among these; calls of them that are under way end as they would have.
    pub fn retain(&self, wanted: &HashSet<ComponentDigest>) {
        let mut shelf = self.shelf.write().unwrap_or_else(PoisonError::into_inner);
        shelf.retain(|digest, _| wanted.contains(digest));
    }
}

impl Components for WasmComponents {
    fn call(&self, call: ComponentCall) -> Box<dyn Running> {
        let shelf = self.shelf.read().unwrap_or_else(PoisonError::into_inner);
        let prepared = shelf.get(&call.code).cloned();
        drop(shelf);
        match (prepared, self.works.get()) {
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
