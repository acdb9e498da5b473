//! A pack straight from its sources, for authors: built and compiled as a start would, and bound to nobody.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use super::shelf::{ComponentCode, Opened, Shelf};
use crate::flow::{self, Program};
use crate::model::{Grants, Problem, Problems, TenantId};
use crate::pack::{self, BuiltPack};
use crate::registry::BoundPack;

/// The pack of a folder, ready to run.
pub struct Folder {
    /// The pack as it was built, with all that is worth knowing of it.
    pub built: BuiltPack,
    /// The code that its flows call.
    pub code: Vec<ComponentCode>,
    opened: Opened,
    program: Arc<Program>,
}

/// Builds the pack of a folder and compiles its flows, so that what would not load is not built.
pub fn build_pack(dir: &Path) -> Result<BuiltPack, Problems> {
    Folder::open(dir).map(|folder| folder.built)
}

impl Folder {
    /// Builds the pack of a folder and compiles its flows.
    ///
    /// # Errors
    /// Every problem that was found, warnings included. Those of a flow name its file and line.
    pub fn open(dir: &Path) -> Result<Self, Problems> {
        let mut built = pack::build(dir)?;
        let limits = pack::Limits::default();
        let pack = pack::open(&built.bytes, Some(&built.id), &limits).map_err(|error| {
            let problem = Problem::error(format!("what was built would be refused: {error}"));
            problem.in_file(dir).remedy(error.remedy())
        })?;
        let (mut shelf, mut found) = (Shelf::default(), Problems::default());
        let mut opened = shelf.unpack(flow::Limits::default(), pack, dir, &mut found);
        let mut problems = std::mem::take(&mut built.warnings);
        problems.extend(found.into_iter().map(|problem| locate(&built, problem)));
        let Some(program) = opened.program.take() else {
            return Err(problems);
        };
        built.warnings = problems;
        Ok(Self {
            built,
            code: shelf.into_code(),
            opened,
            program,
        })
    }

    /// The pack as if it were bound to this tenant, with these variables and every flow to be started.
    pub fn bind(&self, tenant: &TenantId, env: BTreeMap<String, String>) -> BoundPack {
        let manifest = &self.opened.manifest;
        BoundPack {
            tenant: tenant.clone(),
            id: self.built.id,
            name: manifest.pack_id.to_string(),
            version: manifest.version.clone(),
            reference: None,
            program: Arc::clone(&self.program),
            flows: manifest.flows.iter().map(|flow| flow.id.clone()).collect(),
            components: self.opened.components.clone(),
            grants: Arc::new(Grants {
                pack: self.built.id,
                pack_name: manifest.pack_id.to_string(),
                env,
                declared: self.opened.declared.clone(),
                config: serde_json::Value::Null,
            }),
        }
    }
}

/// A compiled flow knows its name, and not its file: says of a problem in which file and line its author finds it.
fn locate(built: &BuiltPack, problem: Problem) -> Problem {
    let Some((flow, node)) = problem.flow.as_deref() else {
        return problem;
    };
    let mut flows = built.manifest.flows.iter().zip(&built.flow_files);
    let Some((_, file)) = flows.find(|(entry, _)| entry.id == *flow) else {
        return problem;
    };
    let place = node.as_ref().and_then(|node| pack::place_of(file, node));
    let problem = problem.clone().in_file(file);
    match place {
        Some(place) => problem.at(place),
        None => problem,
    }
}
