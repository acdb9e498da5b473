//! `pack`: from a folder of flows to an archive with its gtbind, and a look inside.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Subcommand;

use super::{Failure, say};
use crate::bindings::{self, GtBind};
use crate::catalog;
use crate::model::{FlowId, PackId, Problem, Problems, TenantId};
use crate::pack::{self, BuiltPack, PackSummary, SigningKey};

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
        /// Write a gtbind for this tenant, too; one that is there keeps its flows and all else but pack_id and pack_ref
        #[arg(long, value_name = "TENANT")]
        bind: Option<TenantId>,
        /// The folder that the gtbind goes to
        #[arg(long, value_name = "DIR", default_value = "bindings")]
        bindings_dir: PathBuf,
        /// Replace another archive of the same version in packs/store; gtbinds that name the old one no longer load
        #[arg(long)]
        force: bool,
    },
    /// Show what is inside an archive; it is checked as a start would check it
    Inspect {
        /// The archive
        file: PathBuf,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Sign an archive, and print its new pack_id
    Sign {
        /// The archive
        file: PathBuf,
        /// The private key, as `openssl genpkey -algorithm ed25519` writes it
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
        /// Certificates of the key in PEM, for other programs that want them in the archive
        #[arg(long, value_name = "FILE")]
        chain: Option<PathBuf>,
        /// The archive to write, if not over the one that is signed
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
}

pub fn run(pack: &Pack) -> Result<(), Failure> {
    match pack {
        Pack::Build {
            dir,
            out,
            bind,
            bindings_dir,
            force,
        } => {
            let built = catalog::build_pack(dir)?;
            for warning in built.warnings.iter() {
                super::warn(warning)?;
            }
            let (file, reference) = place(&built, out.as_deref())?;
            if out.is_none() && !force {
                refuse_other_digest(&built, &file)?;
            }
            write(&file, &built.bytes)?;
            say(built.id)?;
            writeln!(io::stderr(), "wrote {}", file.display())?;
            match bind {
                Some(tenant) => write_gtbind(&built, tenant, &reference, bindings_dir),
                None => Ok(()),
            }
        }
        Pack::Inspect { file, json } => inspect(file, *json),
        Pack::Sign {
            file,
            key,
            chain,
            out,
        } => sign(file, key, chain.as_deref(), out.as_deref().unwrap_or(file)),
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

/// An archive in the store is named by its version, so workers and gtbinds trust that it stays what it is.
fn refuse_other_digest(built: &BuiltPack, file: &Path) -> Result<(), Failure> {
    let Ok(there) = fs::read(file) else {
        return Ok(());
    };
    let there = PackId::of_archive(&there);
    if there == built.id {
        return Ok(());
    }
    let version = &built.manifest.version;
    let problem = Problem::error(format!(
        "the store holds another archive of version {version}: {there}, and not {}",
        built.id
    ));
    Err(Problems::from(problem.in_file(file).remedy(
        "raise `version` in pack.yaml; or replace the archive with --force, if nothing runs it",
    ))
    .into())
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
    let (pack, id) = (&built.manifest.pack_id, &built.id);
    let existing = existing_gtbind(dir, tenant, pack.as_str());
    let (file, text, what) = match existing {
        Some((file, text)) => {
            let text = bindings::rebind(&file, &text, id, reference)?;
            (file, text, "updated")
        }
        None => {
            let text =
                bindings::render(tenant, id, reference, &flows).map_err(anyhow::Error::from)?;
            (dir.join(format!("{tenant}.{pack}.gtbind")), text, "wrote")
        }
    };
    write(&file, text.as_bytes())?;
    writeln!(io::stderr(), "{what} {}", file.display())?;
    Ok(())
}

/// The gtbind that binds this pack to this tenant already: under its own name, or under the pack's alone if it is this
/// tenant's.
fn existing_gtbind(dir: &Path, tenant: &TenantId, pack: &str) -> Option<(PathBuf, String)> {
    let own = dir.join(format!("{tenant}.{pack}.gtbind"));
    if let Ok(text) = fs::read_to_string(&own) {
        return Some((own, text));
    }
    let plain = dir.join(format!("{pack}.gtbind"));
    let text = fs::read_to_string(&plain).ok()?;
    let is_ours = GtBind::parse(&plain, &text).is_ok_and(|gtbind| gtbind.tenant == *tenant);
    is_ours.then_some((plain, text))
}

fn inspect(file: &Path, json: bool) -> Result<(), Failure> {
    let summary = PackSummary::of(&open(file)?);
    if json {
        let text = serde_json::to_string_pretty(&summary).map_err(anyhow::Error::from)?;
        say(text)?;
    } else {
        say(summary)?;
    }
    Ok(())
}

fn sign(file: &Path, key: &Path, chain: Option<&Path>, out: &Path) -> Result<(), Failure> {
    let text = String::from_utf8_lossy(&read(key)?).into_owned();
    let key = SigningKey::from_pem(&text)
        .with_context(|| format!("cannot sign with {}", key.display()))?;
    let chain = chain.map(read).transpose()?;
    let signed = pack::sign(open(file)?, &key, chain).map_err(anyhow::Error::from)?;
    write(out, &signed)?;
    say(PackId::of_archive(&signed))?;
    writeln!(
        io::stderr(),
        "wrote {}, signed by {}",
        out.display(),
        key.public().fingerprint()
    )?;
    Ok(())
}

/// Opens an archive as a start would.
pub fn open(file: &Path) -> Result<pack::Pack, Failure> {
    let opened = pack::open(&read(file)?, None, &pack::Limits::default());
    opened.map_err(|error| {
        let problem = Problem::error(error.to_string())
            .in_file(file)
            .remedy(error.remedy());
        Problems::from(problem).into()
    })
}

fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    Ok(fs::read(file).with_context(|| format!("cannot read {}", file.display()))?)
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), Failure> {
    if let Some(dir) = file.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(())
}
