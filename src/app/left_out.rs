//! What is bound and not in force: whose it is, why, and what that means for the tenant. The log, the metrics and `/readyz` say it.

use std::collections::{BTreeMap, HashSet};

use crate::model::{ComponentDigest, Problems, TenantId};
use crate::registry::Registry;
use crate::telemetry::{self, Health, Metrics};

/// Bindings that are not in force.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// Why, by tenant.
    pub unusable: Vec<Unusable>,
    /// How many packs of each tenant.
    pub packs: BTreeMap<TenantId, u64>,
    /// The components of all packs that are bound, those that are left out included.
    pub(super) wanted: HashSet<ComponentDigest>,
}

/// What is wrong with the bindings of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    /// The tenant; none where a gtbind does not tell.
    pub tenant: Option<TenantId>,
    /// What that means for it.
    pub effect: Effect,
    /// What is wrong.
    pub problems: Problems,
}

/// What bindings that cannot be used mean for their tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing of it is in force. Its messages stay in the stream.
    Stopped,
    /// What it had before is in force.
    Unchanged,
    /// All of it is in force but packs whose components take too much to compile.
    Partial,
    /// None is known, since nobody knows the tenant.
    Ignored,
}

impl Effect {
    fn as_str(self) -> &'static str {
        match self {
            Self::Stopped => "stopped",
            Self::Unchanged => "unchanged",
            Self::Partial => "partial",
            Self::Ignored => "ignored",
        }
    }

    fn meaning(self) -> &'static str {
        match self {
            Self::Stopped => {
                "the tenant is stopped: its bindings cannot be used; its messages stay in the stream until that is mended"
            }
            Self::Unchanged => {
                "the tenant goes on with what it had: its bindings have changed and cannot be used"
            }
            Self::Partial => "packs of the tenant are left out; what else it has is in force",
            Self::Ignored => {
                "a gtbind cannot be used, and nothing tells its tenant; all other ones are in force"
            }
        }
    }
}

impl Unusable {
    pub(super) fn of(tenant: TenantId, effect: Effect, problems: Problems) -> Self {
        Self {
            tenant: Some(tenant),
            effect,
            problems,
        }
    }

    pub(super) fn of_nobody(problems: Problems) -> Self {
        Self {
            tenant: None,
            effect: Effect::Ignored,
            problems,
        }
    }

    fn tell(&self) {
        let problems = &self.problems;
        match &self.tenant {
            Some(tenant) => tracing::error!(%tenant, %problems, "{}", self.effect.meaning()),
            None => tracing::error!(%problems, "{}", self.effect.meaning()),
        }
    }

    fn shown(&self) -> impl Iterator<Item = telemetry::Unusable> {
        self.problems.iter().map(|problem| telemetry::Unusable {
            tenant: self.tenant.as_ref().map(TenantId::to_string),
            effect: self.effect.as_str(),
            file: problem.file.as_ref().map(|file| file.display().to_string()),
            place: problem.place.clone(),
            problem: problem.message.clone(),
            help: problem.remedy.clone(),
        })
    }
}

impl LeftOut {
    /// Whether everything is in force.
    pub fn is_empty(&self) -> bool {
        self.unusable.is_empty()
    }

    /// The tenants that are stopped.
    pub fn stopped(&self) -> impl Iterator<Item = &TenantId> {
        let stopped = self.unusable.iter();
        let stopped = stopped.filter(|entry| entry.effect == Effect::Stopped);
        stopped.filter_map(|entry| entry.tenant.as_ref())
    }

    /// All of it as one text, by which two can be told apart.
    pub(super) fn said(&self) -> String {
        let each = self.unusable.iter();
        let each = each.map(|entry| format!("{:?}: {}", entry.tenant, entry.problems));
        each.collect::<Vec<_>>().join("\n")
    }

    /// Says in the log what was not so before, and which tenants are in order again.
    pub(super) fn tell(&self, before: &Self) {
        for entry in &self.unusable {
            if !before.unusable.contains(entry) {
                entry.tell();
            }
        }
        let now: HashSet<_> = self.unusable.iter().map(|entry| &entry.tenant).collect();
        for entry in &before.unusable {
            if let (Some(tenant), false) = (&entry.tenant, now.contains(&entry.tenant)) {
                tracing::info!(%tenant, "nothing is wrong with the tenant's bindings any more");
            }
        }
    }

    /// Shows it in the metrics and in `/readyz`, beside what is in force.
    pub(super) fn show(&self, in_force: &Registry, metrics: &Metrics, health: &Health) {
        let shown: Vec<_> = self.unusable.iter().flat_map(Unusable::shown).collect();
        let serves_nobody = in_force.tenants().is_empty() && !shown.is_empty();
        metrics.left_out(&self.packs);
        metrics.unusable_bindings().set(&shown);
        health.unusable(shown, serves_nobody);
    }
}
