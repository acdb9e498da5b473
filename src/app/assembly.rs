//! The registry of a load in which not everything is in order. A pack that is broken, or whose components are still being
//! compiled, is left out, and the rest takes effect: no pack stands in the way of another one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use crate::adapters::wasm::{FailedComponent, Preparation};
use crate::catalog::{self, Candidate};
use crate::model::{ComponentDigest, Problem, Problems, Severity, TenantId};
use crate::registry::{BoundPack, DefaultFlow, Registry};

/// See the [module](self).
#[derive(Debug, Default)]
pub(super) struct Assembly {
    pub(super) registry: Registry,
    /// What is wrong with packs that were left out.
    pub(super) mistakes: Problems,
    /// Why packs were left out whose components take too much to compile.
    pub(super) excesses: Problems,
    /// What is legal, but perhaps not meant.
    pub(super) warnings: Problems,
    /// How many packs of each tenant were left out.
    pub(super) left_out: BTreeMap<TenantId, u64>,
}

/// The state of one candidate.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fitness {
    Ready,
    Pending,
    Mistaken,
    Excessive,
}

/// The components of a load, by what became of them.
struct Components<'a> {
    failed: HashMap<ComponentDigest, &'a FailedComponent>,
    pending: &'a HashSet<ComponentDigest>,
    /// Those whose problems were told.
    told: HashSet<ComponentDigest>,
}

impl Assembly {
    /// Puts together what is in order. In place of a pack that is not, a tenant keeps the pack of that name which was in
    /// force before; a tenant that had nothing before gets nothing while a pack of it is pending.
    pub(super) fn new(
        candidates: Vec<Candidate>,
        prepared: &Preparation,
        before: &Registry,
        defaults: &BTreeMap<TenantId, DefaultFlow>,
    ) -> Self {
        let mut assembly = Self::default();
        let failed = prepared.failed.iter();
        let mut components = Components {
            failed: failed.map(|failed| (failed.digest, failed)).collect(),
            pending: &prepared.pending,
            told: HashSet::new(),
        };
        let mut packs: BTreeMap<TenantId, Vec<Arc<BoundPack>>> = BTreeMap::new();
        let mut absent: Vec<(TenantId, Option<String>)> = Vec::new();
        let (mut excessive, mut waiting) = (BTreeSet::new(), BTreeSet::new());
        for candidate in candidates {
            let fitness = assembly.judge(&candidate, &mut components);
            let Candidate {
                tenant,
                name,
                bound,
                ..
            } = candidate;
            let own = packs.entry(tenant.clone()).or_default();
            match (fitness, bound) {
                (Fitness::Ready, Some(bound)) => {
                    own.push(Arc::new(bound));
                    continue;
                }
                (Fitness::Pending, _) => drop(waiting.insert(tenant.clone())),
                (Fitness::Excessive, _) => drop(excessive.insert(tenant.clone())),
                (Fitness::Mistaken | Fitness::Ready, _) => {}
            }
            if fitness != Fitness::Pending {
                *assembly.left_out.entry(tenant.clone()).or_default() += 1;
            }
            absent.push((tenant, name));
        }
        packs.retain(|tenant, _| before.is_bound(tenant) || !waiting.contains(tenant));
        for (tenant, name) in absent {
            if let Some(own) = packs.get_mut(&tenant) {
                keep(own, before, |pack| {
                    pack.tenant == tenant && name.as_ref().is_none_or(|name| *name == pack.name)
                });
            }
        }
        assembly.registry = assembly.with_defaults(packs, before, defaults, &excessive);
        catalog::warn(&assembly.registry, defaults, &mut assembly.warnings);
        assembly
    }

    /// Sorts what is wrong with a candidate.
    fn judge(&mut self, candidate: &Candidate, components: &mut Components<'_>) -> Fitness {
        let mut fitness = Fitness::Ready;
        for problem in candidate.problems.iter() {
            match problem.severity {
                Severity::Warning => self.warnings.push(problem.clone()),
                Severity::Error => self.mistakes.push(problem.clone()),
            }
        }
        let Some(bound) = &candidate.bound else {
            return Fitness::Mistaken;
        };
        if candidate.problems.has_errors() {
            return Fitness::Mistaken;
        }
        for digest in bound.components.values() {
            if components.pending.contains(digest) {
                fitness = Fitness::Pending;
            }
        }
        for digest in bound.components.values() {
            let Some(failed) = components.failed.get(digest) else {
                continue;
            };
            let (kind, problems) = match failed.is_excess {
                true => (Fitness::Excessive, &mut self.excesses),
                false => (Fitness::Mistaken, &mut self.mistakes),
            };
            fitness = kind;
            if components.told.insert(*digest) {
                problems.extend(failed.problems.clone());
            }
        }
        fitness
    }

    /// A tenant whose default flow is not there has all that it had before: a message must not start another flow.
    fn with_defaults(
        &mut self,
        mut packs: BTreeMap<TenantId, Vec<Arc<BoundPack>>>,
        before: &Registry,
        defaults: &BTreeMap<TenantId, DefaultFlow>,
        excessive: &BTreeSet<TenantId>,
    ) -> Registry {
        let all = packs.values().flatten().cloned();
        let (registry, errors) = Registry::new(all, defaults);
        if errors.is_empty() {
            return registry;
        }
        for error in errors {
            let tenant = error.tenant();
            match excessive.contains(tenant) {
                true => self.excesses.push(catalog::wrong_default(&error)),
                false => self.mistakes.push(catalog::wrong_default(&error)),
            }
            let had = before.packs().into_iter();
            let had = had.filter(|pack| pack.tenant == *tenant).cloned();
            packs.insert(tenant.clone(), had.collect());
        }
        Registry::new(packs.into_values().flatten(), defaults).0
    }

    /// All that is wrong, for who does without none of it.
    pub(super) fn problems(&self) -> Problems {
        let mut all = self.mistakes.clone();
        all.extend(self.excesses.clone());
        all
    }

    /// Fails if something is wrong that an author or operator must mend before a worker starts.
    pub(super) fn without_mistakes(self) -> Result<Self, Problems> {
        if !self.mistakes.has_errors() {
            return Ok(self);
        }
        let mut all: Problems = self.problems();
        all.extend(self.warnings.into_iter().filter(is_warning));
        Err(all)
    }
}

fn is_warning(problem: &Problem) -> bool {
    problem.severity == Severity::Warning
}

/// Keeps packs that were in force before, if they are wanted and not there already.
fn keep(own: &mut Vec<Arc<BoundPack>>, before: &Registry, wanted: impl Fn(&BoundPack) -> bool) {
    for pack in before.packs() {
        if wanted(pack) && own.iter().all(|other| other.id != pack.id) {
            own.push(Arc::clone(pack));
        }
    }
}

#[cfg(test)]
mod tests;
