//! Rehearsals: the tests that authors write beside their flows, played on real turns.
//!
//! A test file is a list of cases (`script`); a case is a conversation with the pack as its folder gives it. Each message
//! goes through a whole turn over in-memory ports (`stage`), under a clock that the case moves. What came of it is
//! held against what the case expects (`compare`), and told (`report`).

mod cast;
mod compare;
mod report;
mod script;
mod stage;
mod witness;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use compare::Difference;
pub use report::{Failure, Played, Report};

use crate::catalog::Folder;
use crate::model::{Problem, Problems};
use crate::ports::Components;
use stage::Stage;

/// Where the test files lie, below a pack's folder: beside the flows that they are of.
const FLOWS: &str = "flows";
const ENDING: &str = ".test.yaml";

/// Plays the cases of a pack's folder whose names contain `filter`. `components` runs what the cases do not play
/// themselves.
///
/// # Errors
/// Where test files are missing or cannot be read: every problem.
pub async fn play(
    dir: &Path,
    folder: &Folder,
    components: &Arc<dyn Components>,
    filter: &str,
) -> Result<Report, Problems> {
    let mut problems = Problems::default();
    let mut read = Vec::new();
    for file in files(dir)? {
        let cases = script::read(&file, &mut problems);
        read.extend(cases.into_iter().map(|case| (file.clone(), case)));
    }
    if problems.has_errors() {
        return Err(problems);
    }
    read.retain(|(_, case)| case.name.contains(filter));
    if read.is_empty() {
        let problem = Problem::error(format!("no case has `{filter}` in its name"));
        return Err(problem
            .in_file(dir)
            .remedy("give another name, or none")
            .into());
    }
    let mut report = Report::default();
    for (file, case) in read {
        let mut stage = Stage::set(folder, &case, components);
        let failure = stage.play(&case).await;
        report.played.push(Played {
            file,
            line: case.line,
            name: case.name,
            failure,
        });
    }
    Ok(report)
}

/// The test files of a pack's folder, in the order of their names.
fn files(dir: &Path) -> Result<Vec<PathBuf>, Problem> {
    let flows = dir.join(FLOWS);
    let listed = fs::read_dir(&flows).and_then(|entries| {
        entries
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<PathBuf>, std::io::Error>>()
    });
    let mut files = listed.map_err(|error| {
        Problem::error(format!("the folder cannot be read: {error}"))
            .in_file(&flows)
            .remedy("give the folder that holds the pack's `pack.yaml`")
    })?;
    files.retain(|file| file.to_string_lossy().ends_with(ENDING));
    files.sort();
    if files.is_empty() {
        return Err(Problem::error("the folder holds no `*.test.yaml` file")
            .in_file(&flows)
            .remedy("write one beside the flow: `flows/main.test.yaml`; docs/packs.md shows how"));
    }
    Ok(files)
}
