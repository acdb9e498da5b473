//! From a component's bytes to machine code, within bounds: its size is looked at first, and compiling it takes place in a
//! process of its own, which has a limit on its time and on its memory and can be ended.

mod bounds;
mod config;
mod process;
mod queue;

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use humantime_serde::re::humantime::format_duration;
use wasmtime::Engine;

pub use config::CompileConfig;
pub use process::{CompilerOptions, run_compiler};
pub(super) use queue::CompileQueue;
pub use queue::Job;

use super::config::Config;
use bounds::{Bounds, SizeError};

/// The place that components are compiled in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Compiler {
    /// This process: for tests, and for components that are trusted. Bounded by the size of the component only.
    #[default]
    InProcess,
    /// A process of this program for each component, started with the subcommand `compile-component`.
    Process(PathBuf),
}

/// A component that was not compiled.
#[derive(Debug, thiserror::Error)]
pub(super) enum CompileError {
    #[error(transparent)]
    Size(SizeError),
    #[error("it cannot be compiled: {0}")]
    Rejected(String),
    #[error("compiling it takes longer than {} (`components.compile.timeout`)", format_duration(*.0))]
    Timeout(Duration),
    #[error("compiling it takes more than {0} bytes of memory (`components.compile.memory_bytes`)")]
    Memory(usize),
    #[error("its machine code has more than {0} bytes")]
    CodeSize(usize),
    #[error("the compiler ended early, {0}")]
    Crashed(String),
    #[error("no process can be started to compile it: {0}")]
    Unavailable(#[from] io::Error),
}

impl CompileError {
    /// What an operator can do about it.
    pub(super) fn remedy(&self) -> &'static str {
        match self {
            Self::Size(SizeError::Exceeded {
                setting: Some(_), ..
            })
            | Self::Timeout(_)
            | Self::Memory(_) => {
                "have the component built smaller; if it is trusted, raise that setting"
            }
            Self::Size(_) | Self::CodeSize(_) | Self::Crashed(_) => {
                "have the component built smaller, or leave its pack out"
            }
            Self::Rejected(_) => {
                "if it is sound, it needs more to begin with than the settings under `components` allow"
            }
            Self::Unavailable(_) => {
                "let the worker start processes of its own program; it is tried again"
            }
        }
    }

    /// Returns whether it was given up because of what compiling takes, and not because of a mistake in it.
    pub(super) fn is_excess(&self) -> bool {
        match self {
            Self::Size(SizeError::Exceeded { .. })
            | Self::Timeout(_)
            | Self::Memory(_)
            | Self::CodeSize(_)
            | Self::Crashed(_)
            | Self::Unavailable(_) => true,
            Self::Size(SizeError::Malformed(_)) | Self::Rejected(_) => false,
        }
    }

    /// Returns whether the same component fails in the same way when it is compiled again.
    pub(super) fn is_permanent(&self) -> bool {
        match self {
            Self::Unavailable(_) => false,
            Self::Size(_)
            | Self::Rejected(_)
            | Self::Timeout(_)
            | Self::Memory(_)
            | Self::CodeSize(_)
            | Self::Crashed(_) => true,
        }
    }
}

impl Compiler {
    /// This program, as it runs: a newer file in its place is not what made this worker's engine.
    pub fn of_this_program() -> Self {
        let running = PathBuf::from("/proc/self/exe");
        if running.exists() {
            return Self::Process(running);
        }
        std::env::current_exe().map_or(Self::InProcess, Self::Process)
    }

    /// The machine code of a component.
    pub(super) fn compile(
        &self,
        engine: &Engine,
        config: &Config,
        bytes: &[u8],
    ) -> Result<Vec<u8>, CompileError> {
        let compile = &config.compile;
        let bounds = Bounds {
            functions: compile.functions.get() as u64,
            function_bytes: compile.function_bytes.get() as u64,
        };
        bounds::check(bytes, bounds).map_err(CompileError::Size)?;
        match self {
            Self::InProcess => {
                let rejected = |error| CompileError::Rejected(format!("{error:#}"));
                engine.precompile_component(bytes).map_err(rejected)
            }
            Self::Process(program) => process::compile(program, config, bytes),
        }
    }
}
