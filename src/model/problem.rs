//! What is wrong with something that an operator or author wrote, told so that it can be mended.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};

use super::{FlowId, NodeId};

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; the worker starts.
    Warning,
    /// The worker does not start with it.
    Error,
}

/// One thing that is wrong: where it is, what it is and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Problem {
    /// Whether it stops a start.
    pub severity: Severity,
    /// The file it is in, where there is one.
    pub file: Option<PathBuf>,
    /// The line, field or node, e.g. `line 4`, `flows[0].id`, `flow main, node ask`.
    pub place: Option<String>,
    /// The flow, and the node of it, that it is about, for whoever knows where those are written.
    pub flow: Option<Box<(FlowId, Option<NodeId>)>>,
    /// What is wrong, in one lower-case sentence without a final dot.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Problem {
    /// An error with this message and no place yet.
    pub fn error(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            file: None,
            place: None,
            flow: None,
            message: message.into(),
            remedy: None,
        }
    }

    /// A warning with this message and no place yet.
    pub fn warning(message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(message)
        }
    }

    /// Whether it is more than a warning.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Says which file it is in.
    #[must_use]
    pub fn in_file(mut self, file: &Path) -> Self {
        self.file = Some(file.to_owned());
        self
    }

    /// Says which line, field or node it is about.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }

    /// Says which flow it is about.
    #[must_use]
    pub fn in_flow(self, flow: &FlowId) -> Self {
        Self {
            flow: Some(Box::new((flow.clone(), None))),
            ..self.at(format!("flow {flow}"))
        }
    }

    /// Says which node of which flow it is about.
    #[must_use]
    pub fn in_node(self, flow: &FlowId, node: &NodeId) -> Self {
        Self {
            flow: Some(Box::new((flow.clone(), Some(node.clone())))),
            ..self.at(format!("flow {flow}, node {node}"))
        }
    }

    /// Says what to do about it.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.severity {
            Severity::Error => "error: ",
            Severity::Warning => "warning: ",
        })?;
        if let Some(file) = &self.file {
            write!(f, "{}: ", file.display())?;
        }
        if let Some(place) = &self.place {
            write!(f, "{place}: ")?;
        }
        f.write_str(&self.message)?;
        if let Some(remedy) = &self.remedy {
            write!(f, "\n  help: {remedy}")?;
        }
        Ok(())
    }
}

/// All the problems of one load, so that a start reports every one and not the first only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// These.
    pub fn of(problems: impl IntoIterator<Item = Problem>) -> Self {
        Self(problems.into_iter().collect())
    }

    /// Adds one.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// Adds all of another list.
    pub fn extend(&mut self, others: impl IntoIterator<Item = Problem>) {
        self.0.extend(others);
    }

    /// Whether any of them stops a start.
    pub fn has_errors(&self) -> bool {
        self.0.iter().any(Problem::is_error)
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The same without those that are there already.
    #[must_use]
    pub fn each_once(self) -> Self {
        let mut seen = HashSet::new();
        let mut problems = self.0;
        problems.retain(|problem| seen.insert(problem.clone()));
        Self(problems)
    }

    /// The problems in the order they were found.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}
