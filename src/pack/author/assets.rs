//! The files that a pack's components and cards read.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::model::{Problem, Problems};

use super::component::read;

/// The folder in the sources and in the archive.
const FOLDER: &str = "assets";

/// All files below `assets/`, and those that `pack.yaml` lists from elsewhere, by their paths in the archive. Files whose
/// names begin with a dot are editors' and systems', not the pack's.
pub(super) fn collect(
    dir: &Path,
    listed: &[PathBuf],
    problems: &mut Problems,
) -> BTreeMap<String, Vec<u8>> {
    let mut files = Vec::new();
    let folder = dir.join(FOLDER);
    if folder.is_dir()
        && let Err((at, error)) = walk(&folder, &mut files)
    {
        problems.push(
            Problem::error(format!("it cannot be read: {error}"))
                .in_file(&at)
                .remedy("make it readable, or take it out of `assets/`"),
        );
    }
    files.extend(listed.iter().map(|path| dir.join(path)));
    let mut assets = BTreeMap::new();
    for file in files {
        let within = file.strip_prefix(dir).unwrap_or(&file);
        let steps: Vec<_> = within.iter().map(|step| step.to_string_lossy()).collect();
        let path = match &steps[..] {
            [first, ..] if first == FOLDER => steps.join("/"),
            _ => format!("{FOLDER}/{}", steps.join("/")),
        };
        if let std::collections::btree_map::Entry::Vacant(place) = assets.entry(path) {
            match read(&file) {
                Ok(content) => {
                    place.insert(content);
                }
                Err(problem) => problems.push(problem),
            }
        }
    }
    assets
}

/// Adds the files of a folder and of those in it. Links are not followed: they may lead out of the pack.
fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), (PathBuf, std::io::Error)> {
    let failed = |error| (folder.to_owned(), error);
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        let kind = entry.file_type().map_err(failed)?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if kind.is_dir() {
            walk(&path, files)?;
        } else if kind.is_file() {
            files.push(path);
        } else {
            let error = std::io::Error::other("it is a link or another special file");
            return Err((path, error));
        }
    }
    Ok(())
}
