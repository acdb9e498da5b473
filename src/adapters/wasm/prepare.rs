//! From a component's bytes to what can be called: compiled, with its imports met and its entries known.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};

use super::abi::Entries;
use super::cache::{Cache, CacheError};
use super::config::CacheDir;
use super::guest::Guest;
use super::imports;
use crate::model::{ComponentDigest, Problem, Problems};

/// A component as a pack holds it.
#[derive(Clone, Copy, Debug)]
pub struct Code<'a> {
    /// The digest of its bytes.
    pub digest: ComponentDigest,
    /// How the pack calls it, for what is said about it.
    pub name: &'a str,
    /// Its bytes.
    pub bytes: &'a [u8],
}

/// What a preparation came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Components that were compiled.
    pub compiled: usize,
    /// Components that an earlier start had compiled.
    pub loaded: usize,
    /// Components that were ready already.
    pub ready: usize,
    /// What is legal, but perhaps not meant.
    pub warnings: Problems,
}

/// A component that can be called.
pub(super) struct Prepared {
    pub(super) instance: InstancePre<Guest>,
    pub(super) entries: Entries,
}

/// What a worker prepares components with.
pub(super) struct Workshop {
    pub(super) engine: Engine,
    pub(super) linker: Linker<Guest>,
    pub(super) cache: CacheDir,
}

/// What became of one component.
pub(super) struct Piece {
    pub(super) result: Result<Prepared, Vec<Problem>>,
    pub(super) was_compiled: bool,
    pub(super) warning: Option<Problem>,
}

impl Workshop {
    /// Prepares components, several at a time.
    pub(super) fn all(&self, codes: &[Code<'_>]) -> HashMap<ComponentDigest, Piece> {
        if codes.is_empty() {
            return HashMap::new();
        }
        let cache = self.open_cache();
        let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let (next, done) = (AtomicUsize::new(0), Mutex::new(HashMap::new()));
        let work = || {
            while let Some(code) = codes.get(next.fetch_add(1, Ordering::Relaxed)) {
                let piece = self.one(code, cache.as_ref());
                let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                done.insert(code.digest, piece);
            }
        };
        thread::scope(|scope| {
            for _ in 1..workers.min(codes.len()) {
                scope.spawn(work);
            }
            work();
        });
        done.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opened for each preparation: a worker without components makes no folder, and one whose folder was put right uses
    /// it at the next reload.
    fn open_cache(&self) -> Option<Cache> {
        let CacheDir::At(dir) = &self.cache else {
            return None;
        };
        let opened = Cache::open(dir, &self.engine);
        let warn = |error: &CacheError| {
            tracing::warn!(folder = %dir.display(), %error, "compiled components are not kept (`components.cache_dir`)");
        };
        opened.inspect_err(warn).ok()
    }

    fn one(&self, code: &Code<'_>, cache: Option<&Cache>) -> Piece {
        let cached = cache.and_then(|cache| cache.load(&self.engine, code.digest));
        let was_compiled = cached.is_none();
        let component = cached.map_or_else(|| self.compile(code, cache), Ok);
        let mut warning = None;
        let result = component.and_then(|component| {
            let entries = Entries::of(&component);
            if entries.is_empty() {
                warning = Some(no_entry(code));
            }
            let instance = self.link(code, &component)?;
            Ok(Prepared { instance, entries })
        });
        Piece {
            result,
            was_compiled,
            warning,
        }
    }

    fn compile(&self, code: &Code<'_>, cache: Option<&Cache>) -> Result<Component, Vec<Problem>> {
        if is_core_module(code.bytes) {
            let problem = about(code, "it is a core module, not a component").remedy(
                "build it for the component model, e.g. for the target wasm32-wasip2, or wrap it with `wasm-tools component new`",
            );
            return Err(vec![problem]);
        }
        let compiled = Component::new(&self.engine, code.bytes).map_err(|error| {
            let problem = about(code, format!("it cannot be compiled: {error:#}"));
            vec![problem.remedy(
                "if it is sound, it needs more to begin with than the settings under `components` allow",
            )]
        })?;
        if let Some(cache) = cache
            && let Err(error) = cache.store(code.digest, &compiled)
        {
            tracing::warn!(component = code.name, %error, "a compiled component cannot be kept: the next start compiles it again");
        }
        Ok(compiled)
    }

    fn link(
        &self,
        code: &Code<'_>,
        component: &Component,
    ) -> Result<InstancePre<Guest>, Vec<Problem>> {
        let unknown = imports::unknown(&self.engine, component);
        if !unknown.is_empty() {
            let problem = |import: &String| {
                about(
                    code,
                    format!("it imports `{import}`, which this worker does not have"),
                )
                .remedy("docs/components.md lists what a component may import")
            };
            return Err(unknown.iter().map(problem).collect());
        }
        self.linker.instantiate_pre(component).map_err(|error| {
            vec![
                about(
                    code,
                    format!("its imports are not what this worker has: {error:#}"),
                )
                .remedy("docs/components.md lists what a component may import"),
            ]
        })
    }
}

fn about(code: &Code<'_>, message: impl Into<String>) -> Problem {
    Problem::error(message).at(format!("component {}", code.name))
}

fn no_entry(code: &Code<'_>) -> Problem {
    Problem::warning("it exports none of the interfaces that a flow can call")
        .at(format!("component {}", code.name))
        .remedy("docs/components.md lists them; a node that calls it fails")
}

/// The header of a binary tells which of the two it is.
fn is_core_module(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\0asm\x01\0\0\0")
}

impl Stats {
    /// Takes in what became of one component.
    pub(super) fn count(&mut self, piece: &Piece) {
        match piece.was_compiled {
            true => self.compiled += 1,
            false => self.loaded += 1,
        }
        self.warnings.extend(piece.warning.clone());
    }
}

/// The components that are ready, by digest.
pub(super) type Shelf = HashMap<ComponentDigest, Arc<Prepared>>;
