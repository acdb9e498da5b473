//! What became of the cases, for people.

use std::fmt;
use std::path::PathBuf;

use super::compare::Difference;

/// What became of all cases. Its `Display` is what `flow test` prints.
#[derive(Debug, Default)]
pub struct Report {
    /// The cases, in the order of their files.
    pub played: Vec<Played>,
}

/// A case that was played.
#[derive(Debug)]
pub struct Played {
    /// Its file.
    pub file: PathBuf,
    /// The line at which it begins.
    pub line: usize,
    /// Its name.
    pub name: String,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
}

/// The first turn of a case that went other than expected.
#[derive(Debug)]
pub struct Failure {
    /// Which one, from 1.
    pub turn: usize,
    /// The line at which it begins.
    pub line: usize,
    /// What was other than expected.
    pub differences: Vec<Difference>,
}

impl Report {
    /// How many cases failed.
    pub fn failed(&self) -> usize {
        let failed = |played: &&Played| played.failure.is_some();
        self.played.iter().filter(failed).count()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for played in &self.played {
            writeln!(f, "{played}")?;
        }
        let failed = self.failed();
        write!(f, "{} passed, {failed} failed", self.played.len() - failed)
    }
}

impl fmt::Display for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, name) = (self.file.display(), &self.name);
        let Some(failure) = &self.failure else {
            return write!(f, "ok    {file}:{}: {name}", self.line);
        };
        let Failure {
            turn,
            line,
            differences,
        } = failure;
        write!(f, "FAIL  {file}:{line}: {name}, turn {turn}")?;
        for difference in differences {
            write!(f, "\n  {difference}")?;
        }
        Ok(())
    }
}
