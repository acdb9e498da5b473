//! Settings: read in layers, checked as a whole, shown with their secrets masked.
//!
//! The layers, later wins: the embedded `config/default.yaml`, the file of `--config`, environment variables
//! (`GREENTIC_WORKER__NATS__URL`), flags. Each part of the worker owns its own section; [`Settings`] is their sum. This
//! module is the only one that reads the environment.

mod flags;
mod layers;
mod memory;
mod nearest;
mod read;
mod render;
mod sections;
mod validate;
mod variables;
mod windows;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use flags::Flags;
pub use memory::MemoryLimit;
pub use sections::{Limits, Packs, Reload, Retry, State, Tenant, TenantHttp, Worker};
pub use variables::VARIABLE_PREFIX;

use crate::adapters::{http, nats, redis, wasm};
use crate::bindings::EnvPolicy;
use crate::model::{EnvId, Problems, TenantId};
use crate::telemetry;

use layers::Layer;

/// The defaults: every key there is, with what it means.
pub const DEFAULT_YAML: &str = include_str!("../../config/default.yaml");

/// Everything that can be set.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// The Greentic environment that this worker belongs to.
    pub environment: EnvId,
    /// Gtbind files, or folders of them.
    pub bindings: Vec<PathBuf>,
    /// Folders of gtbind files.
    pub bindings_dirs: Vec<PathBuf>,
    /// Whether all gtbinds or none are in force.
    pub bindings_strict: bool,
    /// Where packs come from.
    pub packs: Packs,
    /// When bindings are loaded again.
    pub reload: Reload,
    /// What is set for single tenants.
    pub tenants: BTreeMap<TenantId, Tenant>,
    /// Which variables a pack may be granted.
    pub env: EnvPolicy,
    /// How turns are run.
    pub worker: Worker,
    /// How far a turn may go.
    pub limits: Limits,
    /// How much state is kept.
    pub state: State,
    /// How the components of packs are run.
    pub components: wasm::Config,
    /// The connection to NATS, its streams and consumers.
    pub nats: nats::Config,
    /// The connection to Redis.
    pub redis: redis::Config,
    /// The operator's endpoint.
    pub http: http::Config,
    /// The log.
    pub log: telemetry::Config,
}

/// Settings that can be started with, and where each came from.
#[derive(Clone)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// What is legal but risky in them.
    pub warnings: Problems,
    layers: Vec<Layer>,
}

/// Reads the settings from all layers and checks them. `config` is the file of `--config`; `environment` is
/// [`environment`], or what a test says it is.
///
/// # Errors
/// Every problem of every layer, each with its place and its remedy, warnings included.
pub fn load(
    config: Option<&Path>,
    environment: &BTreeMap<String, String>,
    flags: &Flags,
) -> Result<Loaded, Problems> {
    let mut problems = Problems::default();
    let layers = layers::all(config, environment, flags, &mut problems);
    let (settings, layers) = read::settings(layers, &mut problems);
    if let Some(settings) = &settings {
        let found = validate::check(settings).into_iter();
        problems.extend(found.map(|problem| layers::with_origin(problem, &layers)));
    }
    match settings {
        Some(settings) if !problems.has_errors() => Ok(Loaded {
            settings,
            warnings: problems,
            layers,
        }),
        Some(_) | None => Err(problems),
    }
}

impl Settings {
    /// The settings that hold where nothing is set.
    ///
    /// # Errors
    /// None that a build could carry which passed its tests: `config/default.yaml` is embedded.
    pub fn defaults() -> Result<Self, Problems> {
        load(None, &BTreeMap::new(), &Flags::default()).map(|loaded| loaded.settings)
    }

    /// The network around the worker, as far as it matters to what components may reach.
    pub fn network(&self) -> wasm::Network {
        let tenants = self.tenants.iter();
        let allowed = |(id, tenant): (&TenantId, &Tenant)| {
            let allow = tenant.http.allow.clone()?;
            Some((id.clone(), allow))
        };
        wasm::Network {
            tenants: tenants.filter_map(allowed).collect(),
            own_servers: self
                .nats
                .addresses()
                .chain(self.redis.url.address())
                .collect(),
        }
    }

    /// The contradictions between these settings and streams that exist, which count with their own windows.
    pub fn validate_streams(&self, streams: &[nats::StreamWindows]) -> Problems {
        windows::check_streams(self, streams)
    }

    /// What is wrong in the combination of settings, errors and warnings: each value by itself is right already.
    pub fn validate(&self) -> Problems {
        validate::check(self)
    }
}

impl Loaded {
    /// The settings in force as YAML, secrets masked, each line that is not a default with where it came from.
    pub fn render(&self) -> String {
        render::yaml(&self.settings, &self.layers)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&render::yaml(self, &[]))
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render())
    }
}

/// The variables of this process: the layer of settings, and what packs may be granted. A value that is no UTF-8 is
/// taken with its bad bytes replaced.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the environment"
)]
pub fn environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .map(|(name, value)| {
            (
                name.to_string_lossy().into_owned(),
                value.to_string_lossy().into_owned(),
            )
        })
        .collect()
}
