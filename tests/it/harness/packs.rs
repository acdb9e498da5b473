//! Packs that a test writes itself.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use greentic_worker::catalog::build_pack;
use greentic_worker::model::PackId;
use tempfile::TempDir;

use super::guarded::scratch;

/// A pack built from flows in a test; its archive goes with the last copy of this.
#[derive(Clone)]
pub struct FixturePack {
    /// Its id.
    pub id: PackId,
    /// Its archive.
    pub file: PathBuf,
    _dir: Arc<TempDir>,
}

impl FixturePack {
    /// Builds a pack of these flows: each an id and its nodes in YAML.
    pub fn of(name: &str, flows: &[(&str, &str)]) -> Self {
        Self::build(name, flows, None)
    }

    /// The same with the component `tests.<name>`, which may read and write state.
    pub fn with_component(name: &str, flows: &[(&str, &str)], code: &[u8]) -> Self {
        Self::build(name, flows, Some(code))
    }

    fn build(name: &str, flows: &[(&str, &str)], code: Option<&[u8]>) -> Self {
        let dir = scratch();
        let sources = dir.path().join("sources");
        fs::create_dir_all(sources.join("flows")).expect("a folder can be made");
        let mut config =
            format!("pack_id: {name}\nversion: 1.0.0\nkind: application\npublisher: tests\n");
        if let Some(code) = code {
            config.push_str(&format!(
                "components:\n  - id: tests.{name}\n    version: 1.0.0\n    wasm: component.wasm\n    supports: [messaging]\n    \
                 capabilities: {{host: {{state: {{read: true, write: true}}}}}}\n"
            ));
            fs::write(sources.join("component.wasm"), code).expect("a file can be written");
        }
        fs::write(sources.join("pack.yaml"), config).expect("a file can be written");
        for (id, nodes) in flows {
            let nodes: String = nodes.lines().map(|line| format!("  {line}\n")).collect();
            let text = format!("id: {id}\ntype: messaging\nnodes:\n{nodes}");
            fs::write(sources.join(format!("flows/{id}.ygtc")), text)
                .expect("a file can be written");
        }
        let built = build_pack(&sources).unwrap_or_else(|problems| panic!("{problems}"));
        let file = dir.path().join(built.file_name());
        fs::write(&file, &built.bytes).expect("an archive can be written");
        Self {
            id: built.id,
            file,
            _dir: Arc::new(dir),
        }
    }
}
