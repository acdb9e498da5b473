//! Tenants that no other test uses, so that all tests share the servers.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use greentic_worker::model::PackId;
use tempfile::TempDir;

use super::FixturePack;
use super::guarded::scratch;

/// A tenant of one test, with a folder of gtbinds.
pub struct Tenant {
    /// Its id.
    pub id: String,
    bindings: TempDir,
    // What the gtbinds refer to lives as long as they do.
    packs: Vec<FixturePack>,
}

/// A new tenant without gtbinds.
pub fn fresh_tenant() -> Tenant {
    Tenant {
        // With a dot, as in `dev.local`: the subject then has three tokens.
        id: format!("it.{:016x}", fastrand::u64(..)),
        bindings: scratch(),
        packs: Vec::new(),
    }
}

impl Tenant {
    /// Binds flows of a demo pack (`hello-pack`, `approval-pack`).
    pub fn binds(self, pack: &str, flows: &[&str]) -> Self {
        self.binds_with(pack, flows, &[])
    }

    /// Binds flows of a demo pack and passes variables through.
    pub fn binds_with(self, pack: &str, flows: &[&str], env_passthrough: &[&str]) -> Self {
        let archive = demo_pack(pack);
        let mut text = format!(
            "tenant: {}\npack_id: {}\npack_ref: file://{}\nflows:\n",
            self.id,
            pack_id(pack),
            archive.display()
        );
        for flow in flows {
            let _ = writeln!(text, "  - id: {flow}");
        }
        if !env_passthrough.is_empty() {
            let _ = writeln!(text, "env_passthrough: {env_passthrough:?}");
        }
        self.file(&format!("{pack}.gtbind"), &text)
    }

    /// Binds flows of a pack that the test wrote, with more lines for the gtbind.
    pub fn runs(mut self, pack: &FixturePack, flows: &[&str], rest: &str) -> Self {
        self.packs.push(pack.clone());
        let (id, file) = (&pack.id, pack.file.display());
        let mut text = format!(
            "tenant: {}\npack_id: {id}\npack_ref: file://{file}\nflows:\n",
            self.id
        );
        for flow in flows {
            let _ = writeln!(text, "  - id: {flow}");
        }
        text.push_str(rest);
        let name = file
            .to_string()
            .replace(|c: char| !c.is_alphanumeric(), "_");
        self.file(&format!("{name}.gtbind"), &text)
    }

    /// Takes every gtbind away, while workers may be running.
    pub fn unbind(&self) {
        for entry in fs::read_dir(self.dir()).expect("the folder can be read") {
            let file = entry.expect("an entry can be read").path();
            fs::remove_file(file).expect("a gtbind can be removed");
        }
    }

    /// Writes a gtbind as it is.
    pub fn file(self, name: &str, text: &str) -> Self {
        fs::write(self.dir().join(name), text).expect("a gtbind can be written");
        self
    }

    /// The same tenant with a folder of its own, for another set of gtbinds.
    pub fn with_other_bindings(&self) -> Self {
        Self {
            id: self.id.clone(),
            bindings: scratch(),
            packs: Vec::new(),
        }
    }

    /// The folder of gtbinds.
    pub fn dir(&self) -> &Path {
        self.bindings.path()
    }
}

/// The id of a demo pack: what `Greentic-Pack-Id` says.
pub fn pack_id(pack: &str) -> PackId {
    PackId::of_archive(&fs::read(demo_pack(pack)).expect("a demo pack can be read"))
}

/// The archive of a demo pack in the store of this repository.
fn demo_pack(pack: &str) -> PathBuf {
    let store = Path::new(env!("CARGO_MANIFEST_DIR")).join("packs/store");
    let files = fs::read_dir(&store).unwrap_or_else(|error| panic!("{}: {error}", store.display()));
    let mut found: Vec<_> = files
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let rest = name.strip_prefix(pack).unwrap_or_default();
            rest.ends_with(".gtpack") && !rest.starts_with(char::is_alphanumeric)
        })
        .collect();
    found.sort();
    let none = || panic!("{} holds no {pack}", store.display());
    found.pop().unwrap_or_else(none)
}
