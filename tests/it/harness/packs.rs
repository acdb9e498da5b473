//! Packs that a test writes itself.

use std::fs;
use std::path::{Path, PathBuf};
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
        Self::build(name, flows, |_| String::new())
    }

    /// The same, with a component of this id, code and capabilities (YAML).
    pub fn with_component(
        name: &str,
        flows: &[(&str, &str)],
        (id, code, capabilities): (&str, &[u8], &str),
    ) -> Self {
        Self::build(name, flows, |sources| {
            fs::write(sources.join("component.wasm"), code).expect("a file can be written");
            format!(
                "components: [{{id: {id}, version: 1.0.0, wasm: component.wasm, supports: [messaging], capabilities: {capabilities}}}]\n"
            )
        })
    }

    /// The same, with the code of components that need nothing.
    pub fn with(name: &str, flows: &[(&str, &str)], components: &[(&str, &[u8])]) -> Self {
        Self::build(name, flows, |sources| {
            let mut more = String::from("components:\n");
            for (id, code) in components {
                let file = format!("{id}.wasm");
                more.push_str(&format!("- {{id: {id}, version: 1.0.0, wasm: {file}}}\n"));
                fs::write(sources.join(file), code).expect("a file can be written");
            }
            more
        })
    }

    /// Takes the archive away from where gtbinds and sessions say that it is.
    pub fn hide(&self) {
        fs::rename(&self.file, self.hidden()).expect("an archive can be moved");
    }

    /// Puts it back.
    pub fn show(&self) {
        fs::rename(self.hidden(), &self.file).expect("an archive can be moved");
    }

    /// Where it is while it is hidden.
    pub fn hidden(&self) -> PathBuf {
        self.file.with_extension("hidden")
    }

    fn build(name: &str, flows: &[(&str, &str)], more: impl FnOnce(&Path) -> String) -> Self {
        let dir = scratch();
        let sources = dir.path().join("sources");
        fs::create_dir_all(sources.join("flows")).expect("a folder can be made");
        let more = more(&sources);
        let config =
            format!("pack_id: {name}\nversion: 1.0.0\nkind: application\npublisher: tests\n{more}");
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
