//! The settings under `components`.

use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::compile::CompileConfig;
use super::host_pattern::HostPattern;
use crate::model::{Problem, Problems, UndeclaredState};

/// The size of a page of a component's memory; memory grows by whole pages.
const PAGE: usize = 64 * 1024;
/// What any component needs of a stack.
const MIN_STACK: usize = 64 * 1024;

/// How the components of packs are run, and how far each call may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Where compiled components are kept between starts.
    pub cache_dir: CacheDir,
    /// Threads that components run on. Default: as many as there are cores.
    pub threads: Option<NonZeroUsize>,
    /// Calls under way at once; more wait for their turn.
    pub instances: NonZeroU32,
    /// The most of them for one tenant. Default: half of them.
    pub tenant_instances: Option<NonZeroU32>,
    /// How long one call may take, with everything that it waits for.
    #[serde(with = "humantime_serde")]
    pub call_timeout: Duration,
    /// The most memory of one call, in bytes.
    pub memory_bytes: NonZeroUsize,
    /// The deepest stack of one call, in bytes.
    pub stack_bytes: NonZeroUsize,
    /// The largest output of one call, and the most state that it may write, in bytes each.
    pub output_bytes: NonZeroUsize,
    /// What becomes of state that a component uses and its manifest does not mention.
    pub undeclared_state: UndeclaredState,
    /// How far the compiling of one component may go.
    pub compile: CompileConfig,
    /// What components may reach over HTTP.
    pub http: HttpConfig,
}

/// Where compiled components are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum CacheDir {
    /// Nowhere: they are compiled at every start.
    Off,
    /// In this folder.
    At(PathBuf),
}

/// What components that declare HTTP may reach.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct HttpConfig {
    /// The hosts, and their ports.
    pub allow: Vec<HostPattern>,
    /// How long one request may take, its answer included.
    #[serde(with = "humantime_serde")]
    pub timeout: Duration,
    /// The largest body of a request, in bytes.
    pub request_bytes: NonZeroUsize,
    /// The largest body of an answer, in bytes.
    pub response_bytes: NonZeroUsize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cache_dir: CacheDir::At(PathBuf::from("./cache/components")),
            threads: None,
            instances: const { NonZeroU32::new(256).unwrap() },
            tenant_instances: None,
            call_timeout: Duration::from_secs(10),
            memory_bytes: const { NonZeroUsize::new(256 * 1024 * 1024).unwrap() },
            stack_bytes: const { NonZeroUsize::new(1024 * 1024).unwrap() },
            output_bytes: const { NonZeroUsize::new(4 * 1024 * 1024).unwrap() },
            undeclared_state: UndeclaredState::default(),
            compile: CompileConfig::default(),
            http: HttpConfig::default(),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            timeout: Duration::from_secs(5),
            request_bytes: const { NonZeroUsize::new(1024 * 1024).unwrap() },
            response_bytes: const { NonZeroUsize::new(4 * 1024 * 1024).unwrap() },
        }
    }
}

impl Config {
    /// What is wrong with these settings.
    pub fn problems(&self) -> Problems {
        let mut problems = Problems::default();
        let durations = [
            ("components.call_timeout", self.call_timeout),
            ("components.http.timeout", self.http.timeout),
        ];
        for (place, duration) in durations {
            if duration < Duration::from_millis(1) {
                problems.push(Problem::error("it must be 1ms or more").at(place));
            }
        }
        let sizes = [
            ("components.memory_bytes", self.memory_bytes.get(), PAGE),
            ("components.stack_bytes", self.stack_bytes.get(), MIN_STACK),
        ];
        for (place, size, least) in sizes {
            if size < least {
                problems.push(Problem::error(format!("it must be {least} or more")).at(place));
            }
        }
        if self.memory_bytes.get() > u32::MAX as usize {
            problems.push(
                Problem::error("a component cannot address as much memory")
                    .at("components.memory_bytes")
                    .remedy("set 4294901760 or less"),
            );
        }
        self.compile.problems(&mut problems);
        if self
            .tenant_instances
            .is_some_and(|most| most > self.instances)
        {
            problems.push(
                Problem::warning(
                    "a tenant never has as many calls under way: there are fewer slots",
                )
                .at("components.tenant_instances")
                .remedy("lower it, or raise `components.instances`"),
            );
        }
        if self.http.timeout > self.call_timeout {
            problems.push(
                Problem::warning("a request may take longer than the call that makes it")
                    .at("components.http.timeout")
                    .remedy("lower it, or raise `components.call_timeout`"),
            );
        }
        problems
    }

    /// [`Config::tenant_instances`], or half of all.
    pub(super) fn tenant_instances(&self) -> NonZeroU32 {
        let half = || NonZeroU32::new(self.instances.get().div_ceil(2));
        self.tenant_instances
            .or_else(half)
            .unwrap_or(NonZeroU32::MIN)
    }

    /// [`Config::memory_bytes`] in whole pages.
    pub(super) fn memory(&self) -> usize {
        self.memory_bytes.get() / PAGE * PAGE
    }
}

impl From<String> for CacheDir {
    fn from(text: String) -> Self {
        match text.as_str() {
            "off" => Self::Off,
            _ => Self::At(PathBuf::from(text)),
        }
    }
}

impl From<CacheDir> for String {
    fn from(dir: CacheDir) -> Self {
        match dir {
            CacheDir::Off => "off".to_owned(),
            CacheDir::At(dir) => dir.display().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_work_is_told_with_its_place() {
        #[track_caller]
        fn check(yaml: &str, places: &[&str]) {
            let config: Config = serde_yaml::from_str(yaml).unwrap();
            let problems = config.problems();
            let found: Vec<_> = problems.iter().filter_map(|p| p.place.as_deref()).collect();
            assert_eq!(found, places, "{problems}");
        }
        check("{}", &[]);
        check(
            "call_timeout: 0s",
            &["components.call_timeout", "components.http.timeout"],
        );
        check("http: {timeout: 0s}", &["components.http.timeout"]);
        check("http: {timeout: 1h}", &["components.http.timeout"]);
        check(
            "{instances: 2, tenant_instances: 3}",
            &["components.tenant_instances"],
        );
        check(
            "compile: {timeout: 0s, memory_bytes: 1}",
            &[
                "components.compile.timeout",
                "components.compile.memory_bytes",
            ],
        );
        check("memory_bytes: 1000", &["components.memory_bytes"]);
        check("memory_bytes: 5000000000", &["components.memory_bytes"]);
        check("stack_bytes: 1000", &["components.stack_bytes"]);
    }
}
