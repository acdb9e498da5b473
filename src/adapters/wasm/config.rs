//! The settings under `components`.

use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::compile::CompileConfig;
use crate::model::{Problem, Problems};

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
    /// The hosts.
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

/// Names hosts: one by its name, or all below a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum HostPattern {
    /// This host: a name or an address.
    Exactly(String),
    /// Every host whose name ends in a dot and this domain.
    Below(String),
}

/// A text that names no hosts.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{0}` names no host: expected a name such as `api.example.com`, `*.example.com` or an address, without a port"
)]
pub struct InvalidHostPattern(String);

impl HostPattern {
    /// Whether this host, in lower case, is meant by its own name.
    pub fn names(&self, host: &str) -> bool {
        matches!(self, Self::Exactly(name) if name == host)
    }

    /// Whether this host, in lower case, is meant.
    pub fn covers(&self, host: &str) -> bool {
        match self {
            Self::Exactly(name) => name == host,
            Self::Below(domain) => host
                .strip_suffix(domain.as_str())
                .is_some_and(|rest| rest.len() > 1 && rest.ends_with('.')),
        }
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

impl FromStr for HostPattern {
    type Err = InvalidHostPattern;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        let named = |name: &str| {
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
            !name.is_empty() && !name.starts_with('.') && name.bytes().all(plain)
        };
        if let Some(domain) = lower.strip_prefix("*.") {
            return match named(domain) {
                true => Ok(Self::Below(domain.to_owned())),
                false => Err(InvalidHostPattern(text.to_owned())),
            };
        }
        let address = lower.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = address.parse::<std::net::IpAddr>() {
            return Ok(Self::Exactly(address.to_string()));
        }
        match named(&lower) {
            true => Ok(Self::Exactly(lower)),
            false => Err(InvalidHostPattern(text.to_owned())),
        }
    }
}

impl TryFrom<String> for HostPattern {
    type Error = InvalidHostPattern;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(name) => f.write_str(name),
            Self::Below(domain) => write!(f, "*.{domain}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_it_names_and_nothing_else() {
        #[track_caller]
        fn check(pattern: &str, host: &str, covers: bool) {
            let pattern: HostPattern = pattern.parse().unwrap();
            assert_eq!(pattern.covers(host), covers, "{pattern} and {host}");
        }
        check("api.example.com", "api.example.com", true);
        check("API.example.com", "api.example.com", true);
        check("api.example.com", "xapi.example.com", false);
        check("example.com", "api.example.com", false);
        check("*.example.com", "api.example.com", true);
        check("*.example.com", "a.b.example.com", true);
        check("*.example.com", "example.com", false);
        check("*.example.com", "evilexample.com", false);
        check("*.example.com", ".example.com", false);
        check("[::1]", "::1", true);
        check("127.0.0.1", "127.0.0.1", true);
        for wrong in [
            "", "*", "*.", "a b", "http://a", "a:80", "a/b", "*.*.a", ".a",
        ] {
            assert!(wrong.parse::<HostPattern>().is_err(), "{wrong} was taken");
        }
    }

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
