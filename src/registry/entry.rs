//! Which of several flows a message starts.

use std::fmt;
use std::sync::Arc;

use crate::model::{FlowId, FlowTarget, TenantId};

use super::BoundPack;

/// The tag of a flow that is taken before others.
const DEFAULT_TAG: &str = "default";

/// The name of a flow that is taken before others, if no tag decides.
const MAIN: &str = "main";

/// A flow that can be started, and the pack that it is in.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The pack.
    pub pack: Arc<BoundPack>,
    /// The flow.
    pub flow: FlowId,
}

/// Why a message starts no flow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Nothing is bound for the tenant.
    #[error("no pack is bound for tenant `{0}`")]
    TenantNotBound(TenantId),
    /// What the headers name is not there, or not listed in the tenant's gtbinds.
    #[error("tenant `{tenant}` has no flow that fits {wanted}; it has {}", candidates.join(", "))]
    NoSuchFlow {
        /// The tenant.
        tenant: TenantId,
        /// What the headers say.
        wanted: String,
        /// What may be started.
        candidates: Vec<String>,
    },
    /// Several flows fit, and nothing tells which one is meant.
    #[error(
        "tenant `{tenant}` has several flows for this message: {}; name one with the headers Greentic-Pack-Id and Greentic-Flow-Id, or set tenants.\"{tenant}\".default_flow",
        candidates.join(", ")
    )]
    AmbiguousFlow {
        /// The tenant.
        tenant: TenantId,
        /// The flows that fit.
        candidates: Vec<String>,
    },
}

impl EntryError {
    /// The code that the dead letter carries.
    pub fn code(&self) -> &'static str {
        match self {
            Self::TenantNotBound(_) => "tenant_not_bound",
            Self::NoSuchFlow { .. } => "no_such_flow",
            Self::AmbiguousFlow { .. } => "ambiguous_flow",
        }
    }
}

impl Entry {
    /// Whether both are the same flow of the same pack.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.pack.id == other.pack.id && self.flow == other.flow
    }

    fn is_tagged(&self) -> bool {
        let flow = self.pack.program.flow(&self.flow);
        flow.is_some_and(|flow| flow.tags().contains(DEFAULT_TAG))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{} ({})", self.pack.name, self.flow, self.pack.id)
    }
}

/// Why there is no choice.
pub(super) enum Unfit {
    /// The headers name none of the tenant's flows.
    None,
    /// Several flows fit.
    Several(Vec<Entry>),
}

/// Chooses among the flows that a tenant's gtbinds list.
pub(super) fn choose(
    listed: Vec<Entry>,
    default: Option<&Entry>,
    target: &FlowTarget,
) -> Result<Entry, Unfit> {
    let mut fitting = listed;
    fitting.retain(|entry| {
        target.pack.is_none_or(|pack| pack == entry.pack.id)
            && target.flow.as_ref().is_none_or(|flow| *flow == entry.flow)
    });
    if fitting.is_empty() {
        return Err(Unfit::None);
    }
    let chosen = the_only(&fitting, |entry| default.is_some_and(|d| d.is(entry)))
        .or_else(|| the_only(&fitting, |_| true))
        .or_else(|| the_only(&fitting, Entry::is_tagged))
        .or_else(|| the_only(&fitting, |entry| entry.flow.as_str() == MAIN))
        .cloned();
    chosen.ok_or(Unfit::Several(fitting))
}

fn the_only(entries: &[Entry], fits: impl Fn(&Entry) -> bool) -> Option<&Entry> {
    let mut fitting = entries.iter().filter(|entry| fits(entry));
    fitting.next().filter(|_| fitting.next().is_none())
}

/// The names of flows as errors list them.
pub(super) fn names(entries: &[Entry]) -> Vec<String> {
    let mut names: Vec<_> = entries.iter().map(Entry::to_string).collect();
    names.sort();
    names
}

/// What the headers ask for, in words.
pub(super) fn wanted(target: &FlowTarget) -> String {
    match (&target.pack, &target.flow) {
        (Some(pack), Some(flow)) => format!("pack {pack}, flow `{flow}`"),
        (Some(pack), None) => format!("pack {pack}"),
        (None, Some(flow)) => format!("flow `{flow}`"),
        (None, None) => "a message without headers".to_owned(),
    }
}
