//! The settings under `components.compile`.

use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{Problem, Problems};

/// What a compiler needs in any case.
const MIN_MEMORY: usize = 64 * 1024 * 1024;

/// How far the compiling of one component may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompileConfig {
    /// The longest time.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// The most memory, in bytes.
    pub memory_bytes: NonZeroUsize,
    /// The most functions of one component.
    pub functions: NonZeroUsize,
    /// The largest body of one function, in bytes.
    pub function_bytes: NonZeroUsize,
}

impl Default for CompileConfig {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(120),
            memory_bytes: const { NonZeroUsize::new(2 * 1024 * 1024 * 1024).unwrap() },
            functions: const { NonZeroUsize::new(100_000).unwrap() },
            function_bytes: const { NonZeroUsize::new(1024 * 1024).unwrap() },
        }
    }
}

impl CompileConfig {
    /// Values that cannot work.
    pub(in super::super) fn problems(&self, problems: &mut Problems) {
        if self.timeout < Duration::from_millis(1) {
            problems
                .push(Problem::error("it must be 1ms or more").at("components.compile.timeout"));
        }
        if self.memory_bytes.get() < MIN_MEMORY {
            problems.push(
                Problem::error(format!("it must be {MIN_MEMORY} or more"))
                    .at("components.compile.memory_bytes"),
            );
        }
    }
}
