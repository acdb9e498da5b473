//! The settings that have a flag of their own.

use std::path::{Path, PathBuf};

use figment::value::{Dict, Value};

use super::layers::insert;

/// The last layer: what the command line says. A list given here replaces the list of the layers before.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Flags {
    /// A gtbind file, or a folder of them; repeatable
    #[arg(long, value_name = "FILE|DIR")]
    pub bindings: Vec<PathBuf>,
    /// A folder of gtbind files; repeatable
    #[arg(long = "bindings-dir", value_name = "DIR")]
    pub bindings_dirs: Vec<PathBuf>,
    /// A flag of `serve` alone: other commands are strict by themselves.
    #[arg(skip)]
    pub strict: bool,
    /// The folder that `store://` pack references look in
    #[arg(long, value_name = "DIR")]
    pub packs_store: Option<PathBuf>,
    /// The Greentic environment
    #[arg(long, value_name = "ENV")]
    pub environment: Option<String>,
    /// The NATS server
    #[arg(long, value_name = "URL")]
    pub nats_url: Option<String>,
    /// The Redis server
    #[arg(long, value_name = "URL")]
    pub redis_url: Option<String>,
    /// Where /livez, /readyz and /metrics are served: an address, or `off`
    #[arg(long, value_name = "ADDRESS")]
    pub http_listen: Option<String>,
    /// `human` or `json`
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// What is logged, such as `info` or `info,greentic_worker=debug`
    #[arg(long, value_name = "FILTER")]
    pub log_filter: Option<String>,
}

impl Flags {
    pub(super) fn values(&self) -> Dict {
        let mut values = Dict::new();
        let mut set = |path: &[&str], value: Option<Value>| {
            if let Some(value) = value {
                insert(&mut values, path, value);
            }
        };
        set(&["bindings"], list(&self.bindings));
        set(&["bindings_dirs"], list(&self.bindings_dirs));
        set(&["bindings_strict"], self.strict.then(|| Value::from(true)));
        set(&["packs", "store"], self.packs_store.as_deref().map(path));
        set(&["environment"], text(&self.environment));
        set(&["nats", "url"], text(&self.nats_url));
        set(&["redis", "url"], text(&self.redis_url));
        set(&["http", "listen"], text(&self.http_listen));
        set(&["log", "format"], text(&self.log_format));
        set(&["log", "filter"], text(&self.log_filter));
        values
    }
}

/// The flag that sets a key.
pub(super) fn name_of(key: &str) -> String {
    match key {
        "bindings_dirs" => "--bindings-dir".to_owned(),
        "bindings_strict" => "--strict".to_owned(),
        key => format!("--{}", key.replace(['.', '_'], "-")),
    }
}

fn text(text: &Option<String>) -> Option<Value> {
    text.clone().map(Value::from)
}

fn path(path: &Path) -> Value {
    Value::from(path.to_string_lossy().into_owned())
}

fn list(paths: &[PathBuf]) -> Option<Value> {
    let values: Vec<Value> = paths.iter().map(|p| path(p)).collect();
    (!values.is_empty()).then(|| Value::from(values))
}
