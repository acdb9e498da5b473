//! `pack`: from a folder of flows to an archive with its gtbind, and a look inside.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;

use super::{Failure, say};
use crate::bindings;
use crate::catalog;
use crate::model::{FlowId, Problem, Problems, TenantId};
use crate::pack::{self, BuiltPack, PackSummary};

/// The pack store, unless the settings say otherwise.
const STORE: &str = "packs/store";

/// What to do with a pack.
#[derive(Debug, Subcommand)]
pub enum Pack {
    /// Build the archive of a folder with a pack.yaml and flows/*.ygtc, and print its pack_id
    Build {
        /// The folder
        dir: PathBuf,
        /// The archive to write; without it, the archive goes into packs/store, where `store://` finds it
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
        /// Write a gtbind for this tenant, too
        #[arg(long, value_name = "TENANT")]
        bind: Option<TenantId>,
        /// The folder that the gtbind goes to
        #[arg(long, value_name = "DIR", default_value = "bindings")]
        bindings_dir: PathBuf,
    },
    /// Show what is inside an archive; it is checked as a start would check it
    Inspect {
        /// The archive
        file: PathBuf,
    },
}

pub fn run(pack: &Pack) -> Result<(), Failure> {
    match pack {
        Pack::Build {
            dir,
            out,
            bind,
            bindings_dir,
        } => {
            let built = catalog::build_pack(dir)?;
            for warning in built.warnings.iter() {
                writeln!(io::stderr(), "{warning}")?;
            }
            let (file, reference) = place(&built, out.as_deref())?;
            write(&file, &built.bytes)?;
            say(built.id)?;
            writeln!(io::stderr(), "wrote {}", file.display())?;
            match bind {
                Some(tenant) => write_gtbind(&built, tenant, &reference, bindings_dir),
                None => Ok(()),
            }
        }
        Pack::Inspect { file } => inspect(file),
    }
}

/// Where the archive goes, and the `pack_ref` under which a worker finds it there.
fn place(built: &BuiltPack, out: Option<&Path>) -> Result<(PathBuf, String), Failure> {
    match out {
        None => Ok((Path::new(STORE).join(built.file_name()), built.store_ref())),
        Some(file) => {
            let absolute = std::path::absolute(file)?;
            Ok((file.to_owned(), format!("file://{}", absolute.display())))
        }
    }
}

fn write_gtbind(
    built: &BuiltPack,
    tenant: &TenantId,
    reference: &str,
    dir: &Path,
) -> Result<(), Failure> {
    let flows: Vec<FlowId> = built
        .manifest
        .flows
        .iter()
        .map(|entry| entry.id.clone())
        .collect();
    let text =
        bindings::render(tenant, &built.id, reference, &flows).map_err(anyhow::Error::from)?;
    let file = dir.join(format!("{}.gtbind", built.manifest.pack_id));
    write(&file, text.as_bytes())?;
    writeln!(io::stderr(), "wrote {}", file.display())?;
    Ok(())
}

fn inspect(file: &Path) -> Result<(), Failure> {
    let bytes = fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    let opened = pack::open(&bytes, None, &pack::Limits::default()).map_err(|error| {
        let mut problems = Problems::default();
        problems.push(
            Problem::error(error.to_string())
                .in_file(file)
                .remedy(error.remedy()),
        );
        problems
    })?;
    say(PackSummary::of(&opened))?;
    Ok(())
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(())
}
