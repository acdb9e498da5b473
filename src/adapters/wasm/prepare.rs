//! From a component's bytes to what can be called: compiled, with its imports met and its entries known.

use std::sync::Arc;

use wasmtime::Engine;
use wasmtime::component::{Component, InstancePre, Linker};

use super::abi::Entries;
use super::cache::{Cache, CacheError, Compiled};
use super::compile::{CompileError, Compiler};
use super::config::{CacheDir, Config};
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
    pub(super) config: Config,
    pub(super) compiler: Compiler,
}

/// What became of one component.
pub(super) struct Piece {
    pub(super) result: Result<Arc<Prepared>, Failure>,
    pub(super) was_compiled: bool,
    pub(super) warning: Option<Problem>,
}

/// A component that cannot be called.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) problems: Vec<Problem>,
    /// The same component fails in the same way again.
    pub(super) is_permanent: bool,
    /// It would take more than it may.
    pub(super) is_excess: bool,
}

impl From<Vec<Problem>> for Failure {
    fn from(problems: Vec<Problem>) -> Self {
        Self {
            problems,
            is_permanent: true,
            is_excess: false,
        }
    }
}

impl Workshop {
    /// Opened for each component: a worker without components makes no folder, and one whose folder was put right uses
    /// it at the next reload.
    fn open_cache(&self) -> Option<Cache> {
        let CacheDir::At(dir) = &self.config.cache_dir else {
            return None;
        };
        let opened = Cache::open(dir, &self.engine);
        let warn = |error: &CacheError| {
            tracing::warn!(folder = %dir.display(), %error, "compiled components are not kept (`components.cache_dir`)");
        };
        opened.inspect_err(warn).ok()
    }

    /// Prepares a component.
    pub(super) fn one(&self, code: &Code<'_>) -> Piece {
        let cache = self.open_cache();
        let cached = (cache.as_ref()).and_then(|cache| cache.load(&self.engine, code.digest));
        let was_compiled = cached.is_none();
        let component = cached.map_or_else(|| self.compile(code, cache.as_ref()), Ok);
        let mut warning = None;
        let result = component.and_then(|component| {
            let entries = Entries::of(&component);
            if entries.is_empty() {
                warning = Some(no_entry(code));
            }
            let instance = self.link(code, &component)?;
            Ok(Arc::new(Prepared { instance, entries }))
        });
        Piece {
            result,
            was_compiled,
            warning,
        }
    }

    fn compile(&self, code: &Code<'_>, cache: Option<&Cache>) -> Result<Component, Failure> {
        if is_core_module(code.bytes) {
            let problem = about(code, "it is a core module, not a component").remedy(
                "build it for the component model, e.g. for the target wasm32-wasip2, or wrap it with `wasm-tools component new`",
            );
            return Err(vec![problem].into());
        }
        let failed = |error: CompileError| Failure {
            is_permanent: error.is_permanent(),
            is_excess: error.is_excess(),
            problems: vec![about(code, error.to_string()).remedy(error.remedy())],
        };
        let compiled = self
            .compiler
            .compile(&self.engine, &self.config, code.bytes);
        let compiled = Compiled::new(compiled.map_err(failed)?);
        let component = compiled
            .load(&self.engine)
            .map_err(|error| failed(CompileError::Rejected(format!("{error:#}"))))?;
        if let Some(cache) = cache
            && let Err(error) = cache.store(code.digest, &compiled)
        {
            tracing::warn!(component = code.name, %error, "a compiled component cannot be kept: the next start compiles it again");
        }
        Ok(component)
    }

    fn link(&self, code: &Code<'_>, component: &Component) -> Result<InstancePre<Guest>, Failure> {
        let unknown = imports::unknown(&self.engine, component);
        if !unknown.is_empty() {
            let problem = |import: &String| {
                about(
                    code,
                    format!("it imports `{import}`, which this worker does not have"),
                )
                .remedy("docs/components.md lists what a component may import")
            };
            return Err(unknown.iter().map(problem).collect::<Vec<_>>().into());
        }
        self.linker.instantiate_pre(component).map_err(|error| {
            let message = format!("its imports are not what this worker has: {error:#}");
            let problem =
                about(code, message).remedy("docs/components.md lists what a component may import");
            vec![problem].into()
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
